"""The predefined members of an ensemble, fitted on logged events: uniform, popularity, pooled linear, forgetting.

Shapes: N rows (logged actions), D features.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits import pooled
from actors.bandits.ensemble import Part
from actors.bandits.members import Uniform, custom
from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import BanditSettings, RewardKind


@dataclass(frozen=True)
class Design:
    """What was done and what came of it: rows of the logged items, rewards scaled to [0, 1]."""

    phi_ND: Floats
    arm_N: Ints
    item_N: Ints
    reward_N: Floats

    @classmethod
    def of(cls, feature_map: FeatureMap, events: pa.Table, kind: RewardKind) -> "Design":
        rewards = np.asarray(pc.fill_null(events["reward"], kind.default), np.float64)
        acted = actions(feature_map, events)
        return cls(acted.phi_ND, acted.arm_N, acted.item_N, (rewards - kind.low) / (kind.high - kind.low))

    def __len__(self) -> int:
        return len(self.reward_N)

    def take(self, rows: Ints) -> "Design":
        """These rows only."""
        return Design(self.phi_ND[rows], self.arm_N[rows], self.item_N[rows], self.reward_N[rows])


@dataclass(frozen=True)
class Predefined:
    """Fits the pooled priors once, and names them as members.

    before: those before a change, whose scales still hold.
    """

    design: Design
    feature_map: FeatureMap
    settings: BanditSettings
    before: "Predefined | None" = None

    @cached_property
    def linear(self) -> pooled.Pooled:
        d = self.design
        if self.before is not None:
            return self.before.linear.again(d.phi_ND, d.arm_N, d.reward_N)
        return pooled.fit(
            d.phi_ND, d.arm_N, d.reward_N, self.feature_map.arms, self.feature_map.groups, self.settings.least_noise
        )

    @cached_property
    def popularity(self) -> pooled.Pooled:
        if self.before is not None:
            return self.before.popularity.again(
                np.ones((len(self.design), 1)), self.design.item_N, self.design.reward_N
            )
        return pooled.popularity(self.design.item_N, self.design.reward_N, len(self.feature_map.fitted_ids))

    def members(self) -> tuple[Part, ...]:
        return (
            *(self._member(name) for name in self.settings.predefined),
            *(custom(source, self._shape) for source in self.settings.custom),
        )

    def _member(self, name: str) -> Part:
        strength = self.settings.prior_strength
        match name:
            case "uniform":
                return Uniform()
            case "popularity":
                return self.popularity.prior("popularity", "items", strength=strength)
            case "linear":
                return self.linear.prior("linear", "features", strength=strength)
            case _:
                half_life = self.settings.forgetting_half_life
                return self.linear.prior("forgetting", "features", half_life, strength)

    @property
    def _shape(self) -> tuple[int, int, int]:
        return self.feature_map.arms, self.feature_map.dimension, len(self.feature_map.fitted_ids)
