"""The content models: a linear reward per cluster of providers, and one per provider with its cluster as prior.

Both are the posteriors of `actors.bandits`, an item's parameter row ("arm") being that of its cluster or provider, as
`Relations` numbers them; the last row is what an unknown one gets. The model of a cluster takes its providers for
equal. That of a provider is drawn around its cluster's, which is drawn around everyone's (hierarchy.py): without rows
it is what its cluster says, with many what they say.

How far levels spread around the one above, by group of features, and σ² maximise the evidence of the rows, by MacKay's
fixed point as in `actors.bandits.pooled`: 1/s² = γ/‖step‖², γ = Σ(1 − variance/s²), σ² = rss/(N − γ_leaves).

A model of P providers is 2·P·D² numbers, and six times as many while it is fitted.

Shapes: N rows, A parameter rows, P providers, C clusters, D features, G groups of features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.bandits.ensemble import Prior
from actors.bandits.members import View
from actors.bandits.pooled import INTERCEPT_PRECISION, RIDGES, SETTLED
from actors.bandits.posterior import Gaussian, Statistics, gaussian
from actors.content.hierarchy import Level, Natural, beliefs
from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError, ModelError


@dataclass(frozen=True)
class ContentModel:
    """posterior: its prior is what the rest of the tree says of each parameter row; learns on by its own rows.

    precision_LG: 1/s² of each level, the root's first, by group: the intercept, then those of `groups_D`.
    parents: of the tree's levels below the root.
    """

    posterior: Statistics
    precision_LG: Floats
    parents: tuple[Ints, ...]

    def prior(self, view: View, strength: float = 1.0) -> Prior:
        """The shared member of that name, its weight times `strength`: N(μ, Σ/strength)."""
        p = self.posterior
        return Prior(view, strength * p.precision_ADD, strength * p.shift_AD, p.noise, view)

    def again(self, phi_ND: Floats, leaf_N: Ints, reward_N: Floats, groups_D: Ints | None = None) -> "ContentModel":
        """The posterior on other rows, after a change: spreads and σ² stay. Arguments and errors as `fit`."""
        rows = _known(phi_ND, leaf_N, reward_N)
        precision_LD = self.precision_LG[:, _groups(phi_ND.shape[1], groups_D)]
        posterior = _posterior(_sums(rows, self.parents), _mean(rows), self.parents, precision_LD, self.posterior.noise)
        return ContentModel(posterior, self.precision_LG, self.parents)


def by_cluster(
    phi_ND: Floats, provider_N: Ints, reward_N: Floats, cluster_P: Ints, groups_D: Ints | None = None
) -> ContentModel:
    """One posterior per cluster, C + 1 rows. Arguments and errors as `by_provider`."""
    clusters = _checked(provider_N, cluster_P)
    cluster_N = np.concatenate([cluster_P, np.arange(clusters), [-1]])[provider_N]
    return fit(phi_ND, cluster_N, reward_N, [np.zeros(clusters + 1, np.int64)], groups_D)


def by_provider(
    phi_ND: Floats, provider_N: Ints, reward_N: Floats, cluster_P: Ints, groups_D: Ints | None = None
) -> ContentModel:
    """One posterior per provider, then one for a new provider of each cluster, P + C + 1 rows.

    Args:
        phi_ND: rows of the shared feature map, column 0 the intercept.
        provider_N: the parameter row of the provider of each row's item, −1 for an unknown one, whose rows no model
            learns from.
        reward_N: scaled to [0, 1].
        cluster_P: the cluster of each provider, from 0; of one without rows too, which then gets its cluster's prior.
        groups_D: as `pooled.fit`.

    Raises:
        EvidenceError: no rows of known providers, or one that is not finite.
        ModelError: a row of a provider beyond these, or a cluster below 0.
    """
    clusters = _checked(provider_N, cluster_P)
    parents = [np.zeros(clusters + 1, np.int64), np.append(cluster_P, np.arange(clusters + 1))]
    return fit(phi_ND, provider_N, reward_N, parents, groups_D)


def fit(
    phi_ND: Floats,
    leaf_N: Ints,
    reward_N: Floats,
    parents: Sequence[Ints],
    groups_D: Ints | None = None,
    least_noise: float = 1e-3,
    rounds: int = 100,
) -> ContentModel:
    """The posterior of a tree's leaves, its spreads and σ² fitted. `parents` as `hierarchy.beliefs`, none for one node.

    Ends when no spread moves by more than SETTLED of its logarithm.
    """
    rows = _known(phi_ND, leaf_N, reward_N)
    sums, mean_D, group_D = _sums(rows, parents), _mean(rows), _groups(phi_ND.shape[1], groups_D)
    precision_LG: Floats = np.ones((len(parents) + 1, int(group_D.max()) + 1))
    noise = max(float(rows.reward_N.var()), least_noise)
    precision_LG[0, 0] = INTERCEPT_PRECISION
    for _ in range(rounds):
        levels = _levels(sums, mean_D, parents, precision_LG[:, group_D], noise)
        before = np.append(precision_LG, noise)
        noise = max(_noise(levels[-1], sums, rows), least_noise)
        precision_LG = _spreads(levels, mean_D, precision_LG, group_D)
        if np.abs(np.log(np.append(precision_LG, noise) / before)).max() < SETTLED:
            break
    posterior = _posterior(sums, mean_D, parents, precision_LG[:, group_D], noise)
    return ContentModel(posterior, precision_LG, tuple(parents))


@dataclass(frozen=True)
class _Rows:
    """Those of known leaves."""

    phi_ND: Floats
    leaf_N: Ints
    reward_N: Floats


def _known(phi_ND: Floats, leaf_N: Ints, reward_N: Floats) -> _Rows:
    known_N = leaf_N >= 0
    rows = _Rows(phi_ND[known_N], leaf_N[known_N], reward_N[known_N])
    if not len(rows.reward_N):
        raise EvidenceError("no rewarded events of known providers to fit content models on; import more")
    if not (np.isfinite(rows.phi_ND).all() and np.isfinite(rows.reward_N).all()):
        raise EvidenceError("features or rewards are not finite; re-import the data")
    return rows


def _mean(rows: _Rows) -> Floats:
    """The root's prior mean: the mean reward, of the intercept."""
    mean_D = np.zeros(rows.phi_ND.shape[1])
    mean_D[0] = rows.reward_N.mean()
    return mean_D


def _sums(rows: _Rows, parents: Sequence[Ints]) -> Statistics:
    """What the rows say of each leaf, at a noise of 1."""
    leaves, size = len(parents[-1]) if parents else 1, rows.phi_ND.shape[1]
    sums = Statistics.start(np.zeros((leaves, size, size)), np.zeros((leaves, size)), 1.0)
    sums.learn_batch(rows.phi_ND, rows.leaf_N, rows.reward_N)
    return sums


def _posterior(
    sums: Statistics, mean_D: Floats, parents: Sequence[Ints], precision_LD: Floats, noise: float
) -> Statistics:
    last = _levels(sums, mean_D, parents, precision_LD, noise)[-1]
    prior, data = last.prior, last.below
    return Statistics(prior.precision_ADD, prior.shift_AD, data.precision_ADD, data.shift_AD, noise)


def log_likelihood(belief: Gaussian, noise: float, phi_ND: Floats, arm_N: Ints, reward_N: Floats) -> Floats:
    """log N(r | φᵀμ, φᵀΣφ + σ²) of each row alone, nats, (N,). An arm of −1 is the last row's."""
    found_N = np.empty(len(reward_N))
    for arm in np.unique(arm_N):
        rows = arm_N == arm
        variance_N = ((phi_ND[rows] @ belief.factor_ADD[arm]) ** 2).sum(axis=1) + noise
        error_N = reward_N[rows] - phi_ND[rows] @ belief.mean_AD[arm]
        found_N[rows] = -0.5 * (np.log(2 * np.pi * variance_N) + error_N**2 / variance_N)
    return found_N


def _levels(
    sums: Statistics, mean_D: Floats, parents: Sequence[Ints], precision_LD: Floats, noise: float
) -> list[Level]:
    root = Natural(np.diag(precision_LD[0])[None], (precision_LD[0] * mean_D)[None])
    data = Natural(sums.data_precision_ADD / noise, sums.data_shift_AD / noise)
    return beliefs(root, parents, list(precision_LD[1:]), data)


def _noise(leaves: Level, sums: Statistics, rows: _Rows) -> float:
    belief = gaussian(leaves.belief.precision_ADD, leaves.belief.shift_AD)
    left = float(((rows.reward_N - np.einsum("nd,nd->n", rows.phi_ND, belief.mean_AD[rows.leaf_N])) ** 2).sum())
    root_ADD = np.matmul(leaves.below.precision_ADD, belief.factor_ADD)
    effective = float(np.einsum("ade,ade->", root_ADD, belief.factor_ADD))
    return left / max(len(rows.reward_N) - effective, 1.0)


def _spreads(levels: Sequence[Level], mean_D: Floats, precision_LG: Floats, group_D: Ints) -> Floats:
    """1/s² after one step of the fixed point; that of the root's intercept stays."""
    found_LG = np.empty_like(precision_LG)
    for number, (level, precision_G) in enumerate(zip(levels, precision_LG, strict=True)):
        if number:
            step_AD, variance_AD = level.steps(precision_G[group_D])
        else:
            root = gaussian(level.belief.precision_ADD, level.belief.shift_AD)
            step_AD, variance_AD = root.mean_AD - mean_D, (root.factor_ADD**2).sum(axis=2)
        fixed_D = (1 - precision_G[group_D] * variance_AD).sum(axis=0)
        effective_G = np.bincount(group_D, weights=fixed_D)
        size_G = np.bincount(group_D, weights=(step_AD**2).sum(axis=0))
        found_LG[number] = np.clip(effective_G / np.maximum(size_G, 1e-12), *RIDGES)
    found_LG[0, 0] = precision_LG[0, 0]
    return found_LG


def _groups(dimension: int, groups_D: Ints | None) -> Ints:
    """The group of each feature, the intercept alone in the first."""
    group_D = np.ones(dimension, np.int64) if groups_D is None else groups_D + 1
    group_D[0] = 0
    return np.unique(group_D, return_inverse=True)[1].astype(np.int64)


def _checked(provider_N: Ints, cluster_P: Ints) -> int:
    """How many clusters there are."""
    clusters = int(cluster_P.max(initial=-1)) + 1
    if provider_N.max(initial=-1) >= len(cluster_P) + clusters or cluster_P.min(initial=0) < 0:
        raise ModelError(
            f"rows of provider {int(provider_N.max(initial=-1))}, clusters from {int(cluster_P.min(initial=0))}, for "
            f"{len(cluster_P)} providers; give each provider a cluster from 0 on"
        )
    return clusters
