"""The part of a large catalogue that a decision scores, before the law of the decision.

Candidates are the union of
- the best items by the blended mean, once for each recent item as the nearest one;
- the best items of every particle of the blend, and by every linear member's own mean: the law asks which item is best
  in each particle, and θ_p of the decision's own seed is a query as good as any;
- of members with parameters per item (popularity): the best by mean and by mean + BOUND deviations, of equals the
  latest;
- the context's recent items.

Which items these are says nothing about propensities: the law is exact for whatever part it is given, and the journal
keeps that part (`law.Part`). The same state, request and seed give the same part on the same index.

Shapes: I items, A arms, D features, S linear members, P particles, N queries, R recent items.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
from numpy.typing import NDArray

from actors.bandits import members as models
from actors.bandits.history import History
from actors.bandits.item_index import ItemIndex
from actors.bandits.members import Member, Shared
from actors.bandits.mixture import Mixture
from actors.bandits.noise import Noise
from actors.bandits.posterior import Gaussian
from actors.bandits.published import Published
from actors.features.feature_map import FeatureMap
from actors.features.features import Features, Floats, Ints
from actors.features.item_side import ItemSide
from actors.features.recent import RECENT, known_recent

BOUND = 2.0
PROBES = 8
"""Cells of the index that a particle's query looks into; one by the mean looks into four times as many. With 64 instead
the law on a million items earned a twentieth of a per cent more, and took four times as long."""
RANKED = 256
"""Posteriors whose ranking is kept: those of so many clients."""
OPEN = 8
"""Ranked items kept for each that is asked for, since some may be closed."""


@dataclass(frozen=True)
class Retrieval:
    """Made by `of` for a catalogue; `grown` follows it. side and index are None for a map with parameters per item.

    most: items by the blended mean; a quarter of it of each other kind.
    """

    most: int
    arm_I: Ints
    side: ItemSide | None
    index: ItemIndex | None
    _ranked: dict[int, tuple[ReferenceType[Gaussian], Ints]] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, feature_map: FeatureMap, most: int) -> "Retrieval":
        side = ItemSide.of(feature_map)
        rows = np.arange(len(feature_map.item_ids))
        index = ItemIndex.of(side.vectors(feature_map.tables, rows)) if side and feature_map.tables else None
        return cls(most, feature_map.arms_of(rows), side, index)

    def grown(self, feature_map: FeatureMap) -> "Retrieval":
        """For the same map with changes (`FeatureMap.with_changes`)."""
        rows = np.arange(len(self.arm_I), len(feature_map.item_ids))
        arm_I, index = np.append(self.arm_I, feature_map.arms_of(rows)), self.index
        if index is not None and self.side is not None and feature_map.tables is not None:
            index = index.grown(self.side.vectors(feature_map.tables, rows))
            if index.crowded:
                return Retrieval.of(feature_map, self.most)
        return replace(self, arm_I=arm_I, index=index, _ranked={})

    def rows(
        self,
        feature_map: FeatureMap,
        published: Published,
        context: Mapping[str, Any],
        user_id: str | None,
        history: History | None,
        seed: int,
        slots: int,
        open_I: NDArray[np.bool_] | None = None,
        code_H: Floats | None = None,
    ) -> Ints:
        """Rows of the catalogue to score, in order: all of them open, and at least as many as there are slots.

        Args:
            open_I: which rows are eligible, None for all.
            code_H: of the context, as in `Features`.
        """
        recent_R = known_recent(context.get(RECENT), feature_map.row)
        parts = [recent_R]
        anchors = self.side.anchors if self.side else feature_map.item_ids[:1]
        seen = replace(feature_map.features(context, anchors, user_id), code_H=code_H)
        if self.side is not None and self.index is not None:
            parts += self._linear(feature_map, published, seen, recent_R, history, seed, slots, open_I)
        for member in published.members:
            if isinstance(member, Shared) and member.view not in models.SHARING and len(member.posterior.mean_AD) > 1:
                parts += self._ranking(published, member, seen, open_I)
        found = np.unique(np.concatenate(parts))
        found = found if open_I is None else found[open_I[found]]
        if len(found) >= slots:
            return found
        more = np.arange(len(self.arm_I)) if open_I is None else np.flatnonzero(open_I)
        return np.union1d(found, more[-slots:])

    def _linear(
        self,
        feature_map: FeatureMap,
        published: Published,
        seen: Features,
        recent_R: Ints,
        history: History | None,
        seed: int,
        slots: int,
        open_I: NDArray[np.bool_] | None,
    ) -> list[Ints]:
        """What members with one row of parameters would choose."""
        assert self.side is not None
        assert self.index is not None
        mean_SD, blend_PD = parameters(published, seen, history, seed)
        if not len(mean_SD):
            return []
        nearest = max(1, len(recent_R))
        mean_RD = np.broadcast_to(blend_PD[0], (nearest, blend_PD.shape[1]))
        theta_ND = np.concatenate([mean_RD, blend_PD[1:], mean_SD])
        query_NW = self.side.queries(feature_map, seen, recent_R, theta_ND)
        few = slots + 3
        return [
            self.index.search(query_NW[:nearest], max(self.most // nearest, few), 4 * PROBES, open_I),
            self.index.search(query_NW[nearest:], few, PROBES, open_I),
        ]

    def _ranking(
        self, published: Published, member: Shared, seen: Features, open_I: NDArray[np.bool_] | None
    ) -> list[Ints]:
        """The best items of a member with parameters per item, by mean and by mean + BOUND deviations."""
        few, posterior = max(self.most // 4, 1), member.posterior
        known = self._ranked.get(id(posterior))
        if known is not None and known[0]() is posterior:
            ranked_2N = known[1]
        else:
            arms = np.arange(len(posterior.mean_AD))
            own = member.view == "items"  # the same in every context, so that it is ranked once for a publication
            phi_AD = (
                np.ones((len(arms), 1)) if own else np.broadcast_to(seen.phi_KD[0], (len(arms), seen.phi_KD.shape[1]))
            )
            mean_A, spread_A = posterior.moments(phi_AD, arms)
            bound_A = mean_A + BOUND * published.law.exploration_scale * spread_A
            ranked_2N = np.stack([best(score_A[self.arm_I], OPEN * few) for score_A in (mean_A, bound_A)])
            if own:
                if len(self._ranked) >= RANKED:
                    self._ranked.pop(next(iter(self._ranked)), None)
                self._ranked[id(posterior)] = (ref(posterior), ranked_2N)
        return [(ranked_N if open_I is None else ranked_N[open_I[ranked_N]])[:few] for ranked_N in ranked_2N]


def parameters(published: Published, seen: Features, history: History | None, seed: int) -> tuple[Floats, Floats]:
    """mean_SD of the linear members, and those of the blend: its mean, then its P particles, (1 + P, D).

    The blend's spread is not evened out here as in the law (docs/law.md, "Particles"): that depends on the item.

    Args:
        seen: of the decision, of any items: the context alone counts.
    """
    noise, dimension = Noise(seed, published.law.particles), published.dimension
    joint, mixtures_S = published.joint, [m for m in published.scored.tolist() if _one_row(published.members[m])]
    first = 0 if joint is None else len(joint.mean_SD)
    linear_S = [*published.scored[:first].tolist(), *mixtures_S]
    share_S = published.weights_M[linear_S] + np.finfo(np.float64).tiny
    share_S = share_S / share_S.sum()
    mean_SD, deviation_PD = np.zeros((len(linear_S), dimension)), np.zeros((2 * noise.pairs, dimension))
    if joint is not None:
        mean_SD[:first] = joint.mean_SD
        half_HD = noise.theta(1, dimension)[:, 0] @ np.tensordot(share_S[:first], joint.roots_SDD, 1)
        deviation_PD += np.concatenate([half_HD, -half_HD])
    zeros, past = np.zeros(dimension, np.int64), history if history is not None else History.empty(dimension)
    basis = Features(np.eye(dimension), zeros, zeros, zeros.astype(np.uint64), seen.context_X, seen.code_H)
    for place, m in enumerate(mixtures_S, first):  # the scores of unit vectors are the parameters
        found = models.scores(published.members[m], basis, past, noise, published.law.exploration_scale)
        mean_SD[place] = found.mean_K
        deviation_PD += share_S[place] * found.deviation_PK
    mean_D = share_S @ mean_SD
    return mean_SD, np.concatenate([mean_D[None], mean_D + deviation_PD])


def _one_row(member: Member) -> bool:
    return isinstance(member, Mixture) and len(member.factor_ADD) == 1


def best(score_I: Floats, most: int) -> Ints:
    """Rows of the greatest scores, the greatest first; of equal ones the later first."""
    most = min(most, len(score_I))
    least = np.partition(score_I, len(score_I) - most)[len(score_I) - most]
    above = np.flatnonzero(score_I > least)
    level = np.flatnonzero(score_I == least)[len(above) - most :]
    rows = np.concatenate([above, level])
    return rows[np.lexsort([-rows, -score_I[rows]])]
