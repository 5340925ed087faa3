"""An ensemble as it decides.

Shapes: M members, S those of them that have scores, R rows of particles (S, and one for their blend), D features.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from actors.bandits import members as models
from actors.bandits.members import Member, Uniform
from actors.bandits.mixture import Mixture
from actors.bandits.residual import Residual
from actors.bandits.shares import ItemWeights
from actors.bandits.weights import logits, softmax
from actors.features.features import Floats, Ints
from cluster.config import LawSettings, WeightSettings
from cluster.errors import ModelError


@dataclass(frozen=True)
class Published:
    """Immutable, factored, numbered.

    weights_M blend the members; alternatives_M are w̃_M, at most 1 in all: what they leave of δ is the blend's. The
    score of an item is `low + (high − low)·mean`. values_M, errors_M: what the weights follow from by the settings
    `weights`; None for weights that are given. items: what items say of the members, None for nothing. residual: what
    is added to the logits of items that have kin.
    """

    members: tuple[Member, ...]
    weights_M: Floats
    alternatives_M: Floats
    law: LawSettings
    dimension: int
    low: float = 0.0
    high: float = 1.0
    epoch: int = 0
    values_M: Floats | None = None
    errors_M: Floats | None = None
    weights: WeightSettings = field(default_factory=WeightSettings)
    items: ItemWeights | None = None
    residual: Residual | None = None

    def __post_init__(self) -> None:
        if self.residual is not None and (self.values_M is None or self.errors_M is None):
            raise ModelError("a residual reads the members' values; it cannot move weights that are given")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @cached_property
    def scored(self) -> Ints:
        """Indices of the members that have scores, those on joint features first."""
        scored = [m for m, member in enumerate(self.members) if not isinstance(member, Uniform)]
        return np.array(sorted(scored, key=lambda m: models.joint(self.members[m]) is None), np.int64)

    @cached_property
    def shares_M(self) -> Floats:
        """The members' parts in the blended mean: the weights of those that have scores, summing to one, else 0."""
        return self.shares(self.weights_M)

    def shares(self, weights_M: Floats) -> Floats:
        """`shares_M` of an item's own weights."""
        shares_M = np.zeros(len(self.members))
        shares_M[self.scored] = self.parts(weights_M)
        return shares_M

    def parts(self, weights_M: Floats, axis: int = 0) -> Floats:
        """Weights of those that have scores, scaled to sum to one; `axis` is that of the members."""
        weights_S = weights_M.take(self.scored, axis) + np.finfo(np.float64).tiny
        return np.asarray(weights_S / weights_S.sum(axis, keepdims=True))

    @cached_property
    def odds_M(self) -> Floats:
        """The softmax of the performance part of the blend logits; weights that are given stand for themselves."""
        if self.values_M is None or self.errors_M is None:
            return self.weights_M
        return softmax(logits(self.values_M, self.errors_M, self.weights))

    @cached_property
    def tells(self) -> bool:
        """Whether there is anything by which items may have weights of their own."""
        heard = self.items is not None and self.weights.neighbour_scale > 0
        return len(self.scored) > 1 and (heard or self.residual is not None)

    @cached_property
    def predefined_M(self) -> NDArray[np.bool_]:
        return np.array([member.predefined for member in self.members])

    @cached_property
    def shares_R(self) -> Floats:
        """What the law gives to each row of particles: δw̃_m to a member, what is left of 1 - δ to the blend."""
        shares_S = self.law.delta * self.alternatives_M[self.scored]
        if len(self.scored) > 1:
            shares_S = np.append(shares_S, 0.0)
        if len(shares_S):
            shares_S[-1] += 1 - self.law.delta * self.alternatives_M.sum()
        return (1 - self.law.epsilon) * shares_S

    @cached_property
    def alike(self) -> float:
        """What the law gives to all scored items alike beside ε: δw̃_m of members without scores."""
        if not len(self.scored):
            return 1 - self.law.epsilon
        return (1 - self.law.epsilon) * self.law.delta * float(np.delete(self.alternatives_M, self.scored).sum())

    @cached_property
    def models(self) -> dict[str, float]:
        """Weights by name; shared by all slots, so it must not be changed."""
        return self.named(self.weights_M)

    def named(self, weights_M: Floats) -> dict[str, float]:
        """Weights by name."""
        return dict(zip(self.names, weights_M.tolist(), strict=True))

    @cached_property
    def joint(self) -> "Joint | None":
        """The shared members on joint features, stacked so that one matrix product serves them all."""
        found = [posterior for m in self.scored if (posterior := models.joint(self.members[m])) is not None]
        if not found:
            return None
        roots_SDD = np.stack([posterior.factor_ADD[0].T for posterior in found])
        roots_SDD = (self.law.exploration_scale * roots_SDD).astype(np.float32)
        return Joint(np.stack([posterior.mean_AD[0] for posterior in found]), roots_SDD)

    @cached_property
    def mirrored(self) -> bool:
        """Whether the deviations in the second particle of a pair are the negatives of those in the first, for all."""
        return not any(isinstance(member, Mixture) for member in self.members)

    @cached_property
    def itemised(self) -> bool:
        """Whether any member draws an item's score by itself, apart from those of others."""
        others = self.scored[len(self.joint.mean_SD) if self.joint else 0 :]
        return any(not isinstance(self.members[m], Mixture) for m in others)


@dataclass(frozen=True)
class Joint:
    """mean_SD and, in single precision, roots_SDD (αLᵀ) of the first S scored members."""

    mean_SD: Floats
    roots_SDD: Floats
