"""Where PPO learns the blend's residual: a step shows one decision, takes the item chosen in it, and pays its reward.

Episodes are one step long: a decision does not change what comes after it (gamma is 0). All that is known of a decision
is computed beforehand, from a version and a world or a log (tune.blending.situations); here are arrays.

Shapes: B decisions, K items of a decision (padded), M members, N inputs of the residual (actors.bandits.residual),
F = N + 3M + 3 numbers of an item, C = 2 numbers of a decision.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError

Single = NDArray[np.float32]
SCALARS = 2
"""Numbers of a decision after those of its items: temperature and expected reward under the plain blend."""


@dataclass(frozen=True)
class Contexts:
    """B decisions.

    observed_BKN: what the residual reads. logits_BKM: the plain blend's, per item. mean_BKM, spread_BKM: of the
    members' scores, in scaled reward; a member without scores has zeros. floor_BK: what the law gives to an item
    whatever the blend is, (1 − ε)·δ·Σ_m w̃_m π_m + ε/K; what is left of 1 is the blend's. mask_BK: false on padding.
    reward_BK: expected reward of each item, scaled to [0, 1]; zeros where only the log's actions are known.
    """

    observed_BKN: Floats
    logits_BKM: Floats
    mean_BKM: Floats
    spread_BKM: Floats
    floor_BK: Floats
    mask_BK: NDArray[np.bool_]
    reward_BK: Floats

    def __post_init__(self) -> None:
        shapes = {array.shape[:2] for array in vars(self).values()}
        if len(shapes) > 1 or not len(self) or not self.mask_BK.any(axis=1).all():
            raise EvidenceError(f"decisions of {shapes} items: each needs the same places, and an item in one of them")
        if not all(np.isfinite(array).all() for array in vars(self).values()):
            raise EvidenceError("what is known of a decision must be finite; publish the version again")

    def __len__(self) -> int:
        return len(self.mask_BK)

    def take(self, rows: Ints) -> "Contexts":
        return replace(self, **{name: array[rows] for name, array in vars(self).items()})


def flat(contexts: Contexts, plain_BK: Floats, scalars_BC: Floats) -> Single:
    """What the policy reads, (B, K·F + C): of items [observed, logits, means, spreads, floor, valid, log π₀].

    Args:
        plain_BK: the plain blend's log π₀. scalars_BC: temperature and expected reward, which stand last.
    """
    own_BK1 = (part[..., None] for part in (contexts.floor_BK, contexts.mask_BK, plain_BK))
    parts = (contexts.observed_BKN, contexts.logits_BKM, contexts.mean_BKM, contexts.spread_BKM, *own_BK1)
    rows_BKF = np.concatenate([part.astype(np.float32) for part in parts], axis=-1)
    return np.concatenate([rows_BKF.reshape(len(contexts), -1), scalars_BC.astype(np.float32)], axis=1)


@dataclass(frozen=True)
class Answers:
    """Decisions and what each choice in them earns: 1 with the item's expected reward as probability, else 0.

    seen_BO: as `flat` makes it. reward_BK: expected rewards.
    """

    seen_BO: Single
    reward_BK: Floats

    def __len__(self) -> int:
        return len(self.seen_BO)

    def draw(self, decisions: Ints, actions: Ints, rng: np.random.Generator) -> Single:
        """Rewards of these choices."""
        return (rng.random(len(actions)) < self.reward_BK[decisions, actions]).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Where environments in other processes find them: RLlib copies and saves an environment's configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "seen.npy", self.seen_BO)
        np.save(folder / "reward.npy", self.reward_BK)

    @classmethod
    @lru_cache(maxsize=1)
    def load(cls, folder: str) -> "Answers":
        """Shared by all environments of a process."""
        return cls(np.load(f"{folder}/seen.npy", mmap_mode="r"), np.load(f"{folder}/reward.npy"))


class BlendEnv(gymnasium.Env[Single, np.int64]):
    """One decision at a time, drawn uniformly with a seed: what gymnasium's users expect.

    Training asks `batch` for thousands at once (tune.blending.runner).

    Args:
        config: {"answers": folder of Answers, "seed": int}.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.answers = Answers.load(config["answers"])
        super().reset(seed=config["seed"])
        size, items = self.answers.seen_BO.shape[1], self.answers.reward_BK.shape[1]
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(items)
        self._decision = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Single, dict[str, Any]]:
        super().reset(seed=seed)
        self._decision = int(self.np_random.integers(len(self.answers)))
        return self.answers.seen_BO[self._decision], {}

    def step(self, action: np.int64) -> tuple[Single, float, bool, bool, dict[str, Any]]:
        reward = float(self.np_random.random() < self.answers.reward_BK[self._decision, int(action)])
        return self.answers.seen_BO[self._decision], reward, True, False, {}

    def batch(self, decisions: int, rng: np.random.Generator) -> tuple[Ints, Single]:
        """So many decisions: their places, and what is seen of them."""
        places = rng.integers(len(self.answers), size=decisions)
        return places, self.answers.seen_BO[places]
