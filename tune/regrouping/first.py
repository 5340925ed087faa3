"""The first grouping: models of the largest providers, by outcomes that these had not seen -> a tree -> clusters.

Shapes: N outcomes, P providers that are large enough, C models, F folds, U users.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from actors.content.regrouping.tree import Tree, grow, performance
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError
from cluster.statistics import normal_interval
from tune.offpolicy.cross_fit import FOLDS
from tune.regrouping.models import PENALTIES, Sums, by_user, likelihood
from tune.regrouping.traffic import Traffic, day_of

MODELS = 16
"""Providers whose models are the columns of the table: those with most users."""
USERS = 30
"""A provider with fewer users than this is no row of the tree: it is placed by its content."""


@dataclass(frozen=True)
class First:
    """rows: P providers of the tree. mean_PC: their performance under the models of `columns`. penalty: of the models,
    the one under which providers' own models predict best."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    mean_PC: Floats
    tree: Tree
    penalty: float

    @property
    def clusters(self) -> dict[str, str]:
        """The cluster of each provider of the tree."""
        return {name: f"c{label + 1}" for name, label in zip(self.rows, self.tree.labels_P.tolist(), strict=True)}


def first(traffic: Traffic, feature_map: FeatureMap, end: int, alpha: float) -> First:
    """Group the providers by the outcomes of days before `end`.

    Raises:
        EvidenceError: no provider has USERS users.
    """
    before = traffic.row(end)
    pairs = np.unique(np.stack([traffic.provider_N[:before], traffic.user_N[:before]], axis=1), axis=0)
    users_P = np.bincount(pairs[:, 0], minlength=len(traffic.providers))
    rows = np.flatnonzero(users_P >= USERS)
    if not len(rows):
        raise EvidenceError(
            f"no provider has {USERS} users before {day_of(end)}, the largest has {users_P.max()}; import more outcomes"
        )
    columns = rows[np.argsort(-users_P[rows], kind="stable")][:MODELS]
    folded = Folded.of(traffic, feature_map, end, columns[:, None])
    values = [folded.values(penalty) for penalty in PENALTIES]
    of = [np.flatnonzero(traffic.provider_N[:before] == p) for p in rows]
    own = [np.searchsorted(rows, p) for p in columns]
    own_L = [sum(found_NC[of[r], c].mean() for c, r in enumerate(own)) for found_NC in values]
    best = int(np.argmax(own_L))
    scores = [by_user(values[best][where], traffic.user_N[where]) for where in of]

    def pays(left: Ints, right: Ints, level: float) -> bool:
        sides = Folded.of(traffic, feature_map, end, [rows[left], rows[right]])
        return sides.pays(PENALTIES[best], level)

    mean_PC, noise_PCC = performance(scores)
    tree = grow(mean_PC, noise_PCC, alpha, traffic.settings.seed, pays)
    names = tuple(traffic.providers[p] for p in rows), tuple(traffic.providers[p] for p in columns)
    return First(*names, mean_PC, tree, PENALTIES[best])


@dataclass(frozen=True)
class Folded:
    """Sums of groups of providers, whole and by fold of users; group_P is -1 for providers in none."""

    traffic: Traffic
    feature_map: FeatureMap
    end: int
    group_P: Ints
    total: Sums
    sums_F: list[Sums]

    @classmethod
    def of(cls, traffic: Traffic, feature_map: FeatureMap, end: int, groups: Iterable[Ints]) -> "Folded":
        group_P, members = np.full(len(traffic.providers), -1), list(groups)
        for group, providers in enumerate(members):
            group_P[providers] = group
        total, *sums_F = (Sums(len(members), feature_map.arms, feature_map.dimension) for _ in range(1 + FOLDS))
        for part in traffic.parts(feature_map, 0, end):
            total.add(part.design, group_P[part.provider_N])
            for fold, sums in enumerate(sums_F):
                own = np.flatnonzero(part.fold_N == fold)
                sums.add(part.design.take(own), group_P[part.provider_N[own]])
        return cls(traffic, feature_map, end, group_P, total, sums_F)

    def values(self, penalty: float) -> Floats:
        """Log-likelihood of each outcome under each group's model, fitted on the other folds' users, (N, G)."""
        return self._likelihood([self.total.models(penalty, without=sums)[:-1] for sums in self.sums_F])

    def pays(self, penalty: float, level: float) -> bool:
        """Whether the groups' models predict their users better than one model of them all (one-sided z-test)."""
        whole = self.total.joined()
        one_N1 = self._likelihood([whole.models(penalty, without=sums.joined())[:-1] for sums in self.sums_F])
        group_N = self.group_P[self.traffic.provider_N[: len(one_N1)]]
        there = np.flatnonzero(group_N >= 0)
        gain_N1 = self.values(penalty)[there, group_N[there]][:, None] - one_N1[there]
        gain_U = by_user(gain_N1, self.traffic.user_N[there])[:, 0]
        return normal_interval(gain_U, 2 * level).low > 0

    def _likelihood(self, theta_F: list[Floats]) -> Floats:
        found = []
        for part in self.traffic.parts(self.feature_map, 0, self.end):
            values_NG = np.zeros((len(part.design), len(theta_F[0])))
            for fold, theta_GAD in enumerate(theta_F):
                own = np.flatnonzero(part.fold_N == fold)
                values_NG[own] = likelihood(theta_GAD, part.design.take(own))
            found.append(values_NG)
        return np.concatenate(found)
