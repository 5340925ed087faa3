"""PPO by RLlib's new API stack: its configuration, training with checkpoints, and a pass over what was logged.

Shapes: B decisions, K items, O numbers seen of a decision.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms import Algorithm
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import ENTROPY_KEY, VF_LOSS_KEY
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from actors.features.features import Floats, Ints
from cluster.config import PpoSettings
from tune.blend_env import Answers, BlendEnv, Single
from tune.blending.learner import PLAIN_ENTROPY, PLAIN_KL, BlendLearner
from tune.blending.module import BlendModule
from tune.blending.policy import BlendPolicy, Form
from tune.blending.runner import BatchEnvRunner, episode

BATCH, EPOCHS, MINIBATCH, PASS = 4096, 4, 512, 64
"""Decisions of a batch, passes over it, and decisions of a gradient step: on draws, and of a pass over a log."""


def configuration(form: Form, folder: Path, seed: int, bounds: dict[str, float], rate: float) -> PPOConfig:
    """PPO on the decisions of a folder (`Answers.save`), sampled and learned by the batch.

    Args:
        folder: also of the policy that it starts from (`BlendPolicy.save`).
        bounds: kl_most and entropy_least (tune.blending.learner).
        rate: of learning.
    """
    module = RLModuleSpec(BlendModule, model_config={"form": asdict(form), "start": str(folder)})
    return (
        PPOConfig()
        .environment(BlendEnv, env_config={"answers": str(folder), "seed": seed})
        .env_runners(env_runner_cls=BatchEnvRunner, num_env_runners=0, rollout_fragment_length=BATCH)
        .learners(num_learners=0, learner_class=BlendLearner, learner_config_dict=bounds)
        .rl_module(rl_module_spec=module)
        .training(
            gamma=0.0,
            lr=rate,
            train_batch_size_per_learner=BATCH,
            num_epochs=EPOCHS,
            minibatch_size=MINIBATCH,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
            use_kl_loss=False,
            entropy_coeff=0.0,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


@dataclass
class Training:
    """A policy in training on the decisions of a folder; `opened` begins it, or goes on from its last checkpoint.

    curve: of each batch, what became of the policy: reward, entropy, kl, value_loss.
    """

    algorithm: Algorithm
    folder: Path
    key: str
    curve: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    @contextmanager
    def opened(
        cls, start: BlendPolicy, answers: Answers, settings: PpoSettings, seed: int, folder: Path
    ) -> Iterator["Training"]:
        """Needs a Ray session. A folder's checkpoint of another start, or of other decisions, is begun anew."""
        answers.save(folder)
        start.save(folder)
        bounds = {"kl_most": settings.kl_most, "entropy_least": settings.entropy_least}
        config = configuration(start.form, folder, seed, bounds, settings.rate)
        key = _key(start, answers, {**bounds, "rate": settings.rate, "seed": seed})
        training = cls(config.build_algo(), folder, key)
        try:
            training._resume()
            yield training
        finally:
            training.algorithm.stop()

    @property
    def batches(self) -> int:
        return len(self.curve)

    @property
    def policy(self) -> BlendPolicy:
        """As it is now."""
        module = self.algorithm.get_module()
        assert isinstance(module, BlendModule)
        return module.policy

    def go(
        self,
        batches: int,
        every: int,
        left_s: Callable[[], float] = lambda: float("inf"),
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Train until so many batches are done, or the time is spent; a checkpoint after every so many."""
        while self.batches < batches and left_s() > 0:
            found = self.algorithm.train()
            told = found["learners"][DEFAULT_MODULE_ID]
            names = {"entropy": ENTROPY_KEY, "kl": PLAIN_KL, "plain_entropy": PLAIN_ENTROPY, "value_loss": VF_LOSS_KEY}
            row = {name: float(told[key]) for name, key in names.items()}
            self.curve.append({"reward": float(found["env_runners"]["episode_return_mean"]), **row})
            if self.batches % every == 0:
                self._checkpoint()
            progress(self.batches, batches)
        self._checkpoint()

    def learn(self, seen_BO: Single, action_B: Ints, reward_B: Floats, propensity_B: Floats) -> None:
        """One pass of clipped updates over logged decisions, whose old probabilities are the logged propensities."""
        rows = episode(
            np.concatenate([seen_BO, seen_BO[-1:]]),
            action_B,
            reward_B.astype(np.float32),
            np.log(propensity_B).astype(np.float32),
        )
        learners, runners = self.algorithm.learner_group, self.algorithm.env_runner_group
        assert learners is not None
        assert runners is not None
        learners.update(episodes=[rows], num_epochs=1, minibatch_size=min(PASS, len(action_B)))
        runners.sync_weights(from_worker_or_learner_group=learners, inference_only=True)

    def _checkpoint(self) -> None:
        """RLlib's own, in a folder of its own; `training.json` names the newest that is whole."""
        place = self.folder / f"checkpoint{self.batches}"
        self.algorithm.save_to_path(str(place.absolute()))
        aside = self.folder / "training.partial"
        aside.write_text(json.dumps({"key": self.key, "checkpoint": place.name, "curve": self.curve}))
        aside.replace(self.folder / "training.json")
        for other in self.folder.glob("checkpoint*"):
            if other != place:
                shutil.rmtree(other)

    def _resume(self) -> None:
        path = self.folder / "training.json"
        found = json.loads(path.read_text()) if path.is_file() else {}
        if found.get("key") == self.key:
            self.algorithm.restore_from_path(str((self.folder / found["checkpoint"]).absolute()))
            self.curve = found["curve"]


def _key(start: BlendPolicy, answers: Answers, about: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([asdict(start.form), about], sort_keys=True).encode())
    for tensor in start.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    digest.update(np.ascontiguousarray(answers.seen_BO).tobytes() + answers.reward_BK.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Kept:
    """How far a policy is from the plain blend, mean over decisions: kl in nats, entropy as a share of the plain one's.

    factor: on the residual's last layer, below 1 where the bounds asked for it.
    """

    kl: float
    entropy: float
    factor: float = 1.0


def hold(policy: BlendPolicy, seen_BO: Single, settings: PpoSettings) -> Kept:
    """Shrink the residual until the policy is within its bounds: the largest of 64ths, in place; 0 is the plain blend,
    which always is."""
    last = policy.last.weight.detach().clone(), policy.last.bias.detach().clone()
    for step in range(64, -1, -1):
        factor = step / 64
        with torch.no_grad():
            policy.last.weight.copy_(factor * last[0])
            policy.last.bias.copy_(factor * last[1])
        kl, entropy = distance(policy, seen_BO)
        if kl <= settings.kl_most and entropy >= settings.entropy_least - 1e-6:
            break
    return Kept(kl, entropy, factor)


@torch.no_grad()
def distance(policy: BlendPolicy, seen_BO: Single) -> tuple[float, float]:
    """Mean KL(π‖π₀), and the entropy of π as a share of that of π₀."""
    log_pi_BK, plain_BK = policy(torch.from_numpy(np.ascontiguousarray(seen_BO)))
    kl = (log_pi_BK.exp() * (log_pi_BK - plain_BK)).sum(1).mean()
    entropy, plain = -(log_pi_BK.exp() * log_pi_BK).sum(1).mean(), -(plain_BK.exp() * plain_BK).sum(1).mean()
    return float(kl), float(entropy / plain.clamp_min(1e-9))


@torch.no_grad()
def effective(policy: BlendPolicy, seen_BO: Single, action_B: Ints, propensity_B: Floats) -> float:
    """Effective sample size of logged decisions under the policy, as a share of their number: (Σρ)²/(n·Σρ²) (Kish)."""
    log_pi_BK = policy(torch.from_numpy(np.ascontiguousarray(seen_BO)))[0].numpy()
    ratio_B = np.exp(np.take_along_axis(log_pi_BK, action_B[:, None], 1)[:, 0]) / propensity_B
    return float(ratio_B.sum() ** 2 / (len(ratio_B) * (ratio_B**2).sum()))
