"""What a lock-step simulation runs along: situations in order, the reward of every item, and the draws of chance.

The random numbers of an event are those of actors.bandits.noise with one particle, keyed by (seed, event): they are
the same for every candidate, so that differences between candidates are theirs, and whatever the chunks are.

Shapes: N events, B events of a page, K items of an event (padded), D features.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from actors.bandits.law import TIE_SIZE
from actors.bandits.noise import CHOICE, ITEM, TIE, Noise
from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Floats
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tune.worlds.base import World

Drawn: TypeAlias = Literal["joint", "independent"]


@dataclass(frozen=True)
class Course:
    """reward_NK: what each item would earn, scaled to [0, 1]; anything on padding.

    Raises EvidenceError where a reward or a feature is not finite, shapes do not fit, or an event offers nothing.
    """

    batch: FeatureBatch
    reward_NK: Floats

    def __post_init__(self) -> None:
        mask_NK = self.batch.mask_BK
        if self.reward_NK.shape != mask_NK.shape:
            raise EvidenceError(f"rewards {self.reward_NK.shape} do not fit situations with items {mask_NK.shape}")
        if not mask_NK.any(1).all():
            raise EvidenceError(f"event {int(np.argmin(mask_NK.any(1)))} offers no item; leave it out")
        for name, wrong_N in (
            ("a reward", ~np.isfinite(np.where(mask_NK, self.reward_NK, 0.0)).all(1)),
            ("a feature", ~np.isfinite(self.batch.phi_BKD[:, : 1 if self.batch.repeats else None]).all((1, 2))),
        ):
            if wrong_N.any():
                raise EvidenceError(f"event {int(np.argmax(wrong_N))}: {name} is not finite; mend the data or leave it")

    @classmethod
    def of(
        cls,
        world: World,
        feature_map: FeatureMap,
        kind: RewardKind,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> "Course":
        """Every situation of a world with the reward that each of its items draws there."""
        batch = feature_map.batch(world.events)
        reward_NK = np.full(batch.mask_BK.shape, kind.low)
        for n, listed in enumerate(world.events["candidates"].to_pylist()):
            items = feature_map.item_ids if listed is None else listed
            reward_NK[n, : len(items)] = [world.reward(n, item) for item in items]
            progress(n + 1, len(batch))
        return cls(batch, (reward_NK - kind.low) / (kind.high - kind.low))

    def __len__(self) -> int:
        return len(self.reward_NK)


@dataclass(frozen=True)
class Draws:
    """The random numbers of B events.

    normal_BX: of the parameters' D coordinates, or of the scores of the K items. tie_BK orders equal items.
    uniform_B: of the choice itself.
    """

    normal_BX: Floats
    tie_BK: Floats
    uniform_B: Floats


@dataclass(frozen=True)
class Chance:
    """The draws of a course, page by page; as often as it is iterated over, the same.

    parameters: whether the normals are of the parameters, which items share, or of the items' scores.
    """

    course: Course
    pages: Sequence[range]
    seed: int
    parameters: bool

    @property
    def bytes(self) -> int:
        n, k, d = self.course.batch.phi_BKD.shape
        return int(8 * n * ((d if self.parameters else k) + k + 1))

    def __iter__(self) -> Iterator[Draws]:
        return (self._page(page) for page in self.pages)

    def _page(self, page: range) -> Draws:
        key_BK, dimension = self.course.batch.key_BK[page.start : page.stop], self.course.batch.phi_BKD.shape[2]
        noises = [Noise((self.seed << 32) + n, 1) for n in page]
        pairs = list(zip(noises, key_BK, strict=True))
        if self.parameters:
            normals = [noise.theta(1, dimension)[0, 0] for noise in noises]
        else:
            normals = [noise.keyed(ITEM, key_K)[0] for noise, key_K in pairs]
        tie_BK = TIE_SIZE * np.stack([noise.uniforms(TIE, key_K) for noise, key_K in pairs])
        normal_BX = np.stack(normals).astype(np.float64)
        return Draws(normal_BX, tie_BK, np.array([noise.uniform(CHOICE) for noise in noises]))
