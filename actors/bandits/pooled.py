"""The pooled prior: one linear model of all fit users, its scales fitted by marginal likelihood.

r = θ_aᵀφ + e with θ_a ~ N(m, λ⁻¹I), e ~ N(0, σ²), the intercept's prior mean the mean reward. λ and σ² maximise the
evidence by MacKay's fixed point (Bishop 2006, §3.5.2): γ = Σ_i e_i/(e_i + λ), λ = γ/‖θ − m‖², σ² = rss/(N − γ).

Shapes: N rows, A arms (the last is the prior for unknown items), D features.
"""

from dataclasses import dataclass, replace

import numpy as np

from actors.bandits.ensemble import Prior
from actors.bandits.members import View
from actors.bandits.posterior import gaussian
from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError

INTERCEPT_PRECISION = 1.0
"""Prior precision of the intercept, in units of 1/reward²; rewards are scaled to [0, 1]."""
RIDGES = (1e-2, 1e6)
"""The least and the greatest λ."""
SETTLED = 0.02
"""Change of log λ and log σ² below which several scales are taken as they are."""


@dataclass(frozen=True)
class Pooled:
    """Posterior precision_ADD and shift_AD, with the fitted scale λ (`ridge`) and σ² (`noise`).

    prior_D: diagonal of the prior's precision. intercepts: the features whose prior mean is the mean reward.
    """

    precision_ADD: Floats
    shift_AD: Floats
    ridge: float
    noise: float
    rows: int
    prior_D: Floats
    intercepts: tuple[int, ...] = (0,)

    def again(self, phi_ND: Floats, arm_N: Ints, reward_N: Floats) -> "Pooled":
        """The posterior on other rows, after a change: how large effects are is as it was, what they are is not.

        A scale fitted on the few rows since then, all of them choices of one policy, may say that nothing matters.
        """
        gram_ADD, cross_AD, _ = _sums(phi_ND, arm_N, reward_N, len(self.shift_AD))
        mean_D = _prior_mean(reward_N, len(self.prior_D), self.intercepts)
        precision_ADD, shift_AD = _posterior(self.prior_D, mean_D, gram_ADD, cross_AD, self.noise)
        return replace(self, precision_ADD=precision_ADD, shift_AD=shift_AD, rows=len(reward_N))

    def prior(self, name: str, view: View, half_life: float | None = None, strength: float = 1.0) -> Prior:
        """A shared member that starts from this posterior, its weight times `strength`: N(μ, Σ/strength).

        With forgetting the pooled rows count no more than its steady state does, half_life/ln 2 outcomes.
        """
        keep = strength * (1.0 if half_life is None else min(1.0, half_life / np.log(2) / max(self.rows, 1)))
        return Prior(name, keep * self.precision_ADD, keep * self.shift_AD, self.noise, view, half_life)


def fit(
    phi_ND: Floats,
    arm_N: Ints,
    reward_N: Floats,
    arms: int,
    groups_D: Ints | None = None,
    least_noise: float = 1e-3,
    rounds: int = 30,
    intercepts: tuple[int, ...] = (0,),
) -> Pooled:
    """Fit on rows with rewards scaled to [0, 1].

    Args:
        groups_D: the group of each feature, from 0; each group has a scale λ of its own, fitted with the others
            (automatic relevance determination by group; Bishop 2006, §7.2). None is one group.
        least_noise: σ² is no less. A map that passes through all its rows leaves no residual, and with a smaller σ² a
            learner that then meets rewards of its own choices alone is certain of what it has not seen.
        intercepts: features of which no row has two, as `FeatureMap.intercepts` names them.

    Raises:
        EvidenceError: there are no rows, or one of them is not finite.
    """
    if not len(reward_N):
        raise EvidenceError("no rewarded events to fit the pooled prior on; import more, or other users")
    if not (np.isfinite(phi_ND).all() and np.isfinite(reward_N).all()):
        raise EvidenceError("features or rewards are not finite; re-import the data")
    gram_ADD, cross_AD, used = _sums(phi_ND, arm_N, reward_N, arms)
    mean_D = _prior_mean(reward_N, phi_ND.shape[1], intercepts)
    centred_AD = cross_AD - gram_ADD @ mean_D
    total = float(((reward_N - reward_N.mean()) ** 2).sum())
    if groups_D is None or not groups_D.any():
        groups_D = np.zeros(len(mean_D), np.int64)
        ridge_G, noise = _one_scale(gram_ADD[used], centred_AD[used], total, len(reward_N), least_noise, rounds)
    else:
        ridge_G, noise = _scales(gram_ADD[used], centred_AD[used], groups_D, total, len(reward_N), least_noise, rounds)
    prior_D = ridge_G[groups_D]
    prior_D[list(intercepts)] = INTERCEPT_PRECISION
    precision_ADD, shift_AD = _posterior(prior_D, mean_D, gram_ADD, cross_AD, noise)
    return Pooled(precision_ADD, shift_AD, float(ridge_G[0]), noise, len(reward_N), prior_D, intercepts)


def _prior_mean(reward_N: Floats, features: int, intercepts: tuple[int, ...]) -> Floats:
    mean_D = np.zeros(features)
    mean_D[list(intercepts)] = reward_N.mean()
    return mean_D


def _posterior(
    prior_D: Floats, mean_D: Floats, gram_ADD: Floats, cross_AD: Floats, noise: float
) -> tuple[Floats, Floats]:
    """precision_ADD and shift_AD of a prior N(mean, 1/prior) and rows of these sums."""
    return np.diag(prior_D) + gram_ADD / noise, prior_D * mean_D + cross_AD / noise


def _one_scale(
    gram_ADD: Floats, cross_AD: Floats, total: float, rows: int, least_noise: float, rounds: int
) -> tuple[Floats, float]:
    """ridge_G and noise of one group: every round in the basis of the eigenvectors, which one ridge does not turn."""
    values_AD, vectors_ADD = np.linalg.eigh(gram_ADD)
    turned_AD = np.einsum("ade,ad->ae", vectors_ADD, cross_AD)
    values_AD = np.maximum(values_AD, 0.0)
    noise, ridge = max(total / rows, least_noise), 1.0
    for _ in range(rounds):
        theta_AD = turned_AD / (values_AD + ridge * noise)
        effective = float((values_AD / (values_AD + ridge * noise)).sum())
        left = total - 2 * float((theta_AD * turned_AD).sum()) + float((values_AD * theta_AD**2).sum())
        noise = max(left / max(rows - effective, 1.0), least_noise)
        ridge = float(np.clip(effective / max(float((theta_AD**2).sum()), 1e-12), *RIDGES))
    return np.full(1, ridge), noise


def _scales(
    gram_ADD: Floats, cross_AD: Floats, groups_D: Ints, total: float, rows: int, least_noise: float, rounds: int
) -> tuple[Floats, float]:
    """ridge_G and noise of several groups: γ_g = Σ_{i in g} (1 − λ_g Σ_ii), λ_g = γ_g/‖θ_g − m‖².

    Ends when no scale moves by more than SETTLED.
    """
    groups = int(groups_D.max()) + 1
    count_G = len(gram_ADD) * np.bincount(groups_D, minlength=groups)
    noise, ridge_G = max(total / rows, least_noise), np.ones(groups)
    for _ in range(rounds):
        belief = gaussian(gram_ADD / noise + np.diag(ridge_G[groups_D]), cross_AD / noise)
        theta_AD, spread_D = belief.mean_AD, (belief.factor_ADD**2).sum(axis=(0, 2))
        effective_G = count_G - ridge_G * np.bincount(groups_D, weights=spread_D, minlength=groups)
        size_G = np.bincount(groups_D, weights=(theta_AD**2).sum(axis=0), minlength=groups)
        left = total - 2 * float((theta_AD * cross_AD).sum())
        left += float(np.einsum("ad,ade,ae->", theta_AD, gram_ADD, theta_AD, optimize=True))
        before = np.append(ridge_G, noise)
        noise = max(left / max(rows - float(effective_G.sum()), 1.0), least_noise)
        ridge_G = np.clip(effective_G / np.maximum(size_G, 1e-12), *RIDGES)
        if np.abs(np.log(np.append(ridge_G, noise) / before)).max() < SETTLED:
            break
    return ridge_G, noise


def _sums(phi_ND: Floats, arm_N: Ints, reward_N: Floats, arms: int) -> tuple[Floats, Floats, Ints]:
    """Σφφᵀ and Σφr of each arm, and the arms that have rows."""
    dimension = phi_ND.shape[1]
    gram_ADD, cross_AD = np.zeros((arms, dimension, dimension)), np.zeros((arms, dimension))
    used = np.unique(arm_N[arm_N >= 0])
    for arm in used:
        rows_ND = phi_ND[arm_N == arm]
        gram_ADD[arm] = rows_ND.T @ rows_ND
        cross_AD[arm] = rows_ND.T @ reward_N[arm_N == arm]
    return gram_ADD, cross_AD, used


def popularity(item_N: Ints, reward_N: Floats, items: int) -> Pooled:
    """The same model on item one-hots: each item's mean reward, shrunk toward that of all.

    Items' means have a prior of the observed mean and variance between items (method of moments).
    """
    known = item_N >= 0
    count_I = np.bincount(item_N[known], minlength=items).astype(np.float64)
    total_I = np.bincount(item_N[known], weights=reward_N[known], minlength=items)
    mean = float(reward_N.mean()) if len(reward_N) else 0.5
    noise = max(float(reward_N.var()) if len(reward_N) else 0.25, 1e-4)
    seen = count_I > 0
    raw = float(np.average((total_I[seen] / count_I[seen] - mean) ** 2, weights=count_I[seen])) if seen.any() else noise
    between = max(raw - noise * seen.sum() / max(count_I.sum(), 1.0), 1e-2 * noise)
    count_A, total_A = np.append(count_I, 0.0), np.append(total_I, 0.0)
    precision_A = 1.0 / between + count_A / noise
    shift_A = mean / between + total_A / noise
    ridge = 1.0 / between
    return Pooled(precision_A[:, None, None], shift_A[:, None], ridge, noise, len(reward_N), np.full(1, ridge))
