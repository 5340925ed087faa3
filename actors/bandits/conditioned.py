"""A few Gaussian priors of one user's task after that user's history: responsibilities, means, joint draws.

Prior c says θ = m_c + Lξ + V_cζ with independent standard normal ξ, ζ; L is shared. Rows have means m_c[arm]ᵀφ and
kernels k_c(i, j) = [arm_i = arm_j] q_iᵀq_j + p_ciᵀp_cj with q = L[arm]ᵀφ and p_c = V_c[arm]ᵀφ, and everything is a
Gaussian process over few points (actors.bandits.mixture).

Shapes: C priors, A arms, D features, R rank, N history rows, K items, H pairs of particles.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from actors.bandits.history import History
from actors.bandits.noise import CANDIDATE, CODE, ROW, Noise
from actors.bandits.posterior import Scores
from actors.bandits.weights import softmax
from actors.features.features import Features, Floats, Ints


@dataclass(frozen=True)
class Rows:
    """mean_CN, base_ND (q), rank_CNR (p), arm_N."""

    mean_CN: Floats
    base_ND: Floats
    rank_CNR: Floats
    arm_N: Ints

    def kernel(self, other: "Rows") -> Floats:
        """Prior covariances of these rows with other ones, (C, N, N')."""
        kernel_CNN: Floats = base_kernel(self, other) + np.matmul(self.rank_CNR, other.rank_CNR.swapaxes(-1, -2))
        return kernel_CNN


class Based(Protocol):
    """Rows in the coordinates of L."""

    @property
    def base_ND(self) -> Floats: ...

    @property
    def arm_N(self) -> Ints: ...


def based(factor_ADD: Floats, phi_ND: Floats, arm_N: Ints) -> Floats:
    """q of rows, (N, D)."""
    base_ND: Floats = (
        phi_ND @ factor_ADD[0] if len(factor_ADD) == 1 else np.matmul(phi_ND[:, None], factor_ADD[arm_N])[:, 0]
    )
    return base_ND


def base_kernel(one: Based, two: Based) -> Floats:
    """What all priors say of the covariances of two sets of rows, (N, N')."""
    kernel_NN: Floats = np.where(one.arm_N[:, None] == two.arm_N, one.base_ND @ two.base_ND.T, 0.0)
    return kernel_NN


@dataclass(frozen=True)
class Evidence:
    """What one history says to every prior: its rows, G⁻¹, G⁻¹(r − Φm_c), and log N(r; Φm_c, G_c)."""

    rows: Rows
    inverse_CNN: Floats
    solved_CN: Floats
    log_likelihood_C: Floats


class Priors(Protocol):
    """What is conditioned."""

    @property
    def factor_ADD(self) -> Floats: ...

    @property
    def noise(self) -> float: ...

    def project(self, phi_ND: Floats, arm_N: Ints) -> Rows:
        """Prior means and kernel coordinates of rows."""

    def evidence(self, history: History) -> Evidence: ...


class Conditioned:
    """Priors after one user's history; deviations of scores are scaled by `scale`.

    responsibilities_C are ∝ exp(logits_C) · N(r; Φm_c, G_c).
    """

    def __init__(self, priors: Priors, logits_C: Floats, history: History, scale: float):
        self.priors, self.scale = priors, scale
        self.evidence = priors.evidence(history) if len(history) else None
        if self.evidence is not None:
            logits_C = logits_C + self.evidence.log_likelihood_C
        self.responsibilities_C = softmax(logits_C)

    def means(self, features: Features) -> Floats:
        """Posterior means of the K items under each candidate, (C, K)."""
        return self._means(self.priors.project(features.phi_KD, features.arm_K))

    def _means(self, items: Rows) -> Floats:
        if self.evidence is None:
            return items.mean_CN
        cross_CKN = items.kernel(self.evidence.rows)
        moved_CK: Floats = np.matmul(cross_CKN, self.evidence.solved_CN[:, :, None])[:, :, 0]
        return items.mean_CN + moved_CK

    def scores(self, features: Features, noise: Noise) -> Scores:
        """Mixture means and joint deviations: each pair of particles draws its candidate, then each its θ."""
        items = self.priors.project(features.phi_KD, features.arm_K)
        mean_CK = self._means(items)
        mean_K = self.responsibilities_C @ mean_CK
        if self.scale == 0:  # nothing is explored, so nothing is drawn
            return Scores(mean_K, np.zeros((noise.pairs, len(mean_K))))
        chosen_H = systematic(self.responsibilities_C, noise.pairs, noise.uniform(CANDIDATE))
        draw_HK = self._prior_draw(items, chosen_H, noise)
        if self.evidence is not None:
            draw_HK -= self._correction(self.evidence, items, chosen_H, noise)
        away_HK = mean_CK[chosen_H] - mean_K
        return Scores(mean_K, self.scale * (away_HK + draw_HK), self.scale * (away_HK - draw_HK))

    def _prior_draw(self, rows: Rows, chosen_H: Ints, noise: Noise) -> Floats:
        """q·ξ + p·ζ at these rows, each pair under its candidate, (H, N)."""
        arms, dimension = self.priors.factor_ADD.shape[:2]
        theta_HAD = noise.theta(arms, dimension)
        if arms == 1:
            draw_HN = theta_HAD[:, 0] @ rows.base_ND.T
        else:
            draw_HN = np.einsum("hnd,nd->hn", theta_HAD[:, rows.arm_N], rows.base_ND)
        zeta_HR = noise.keyed(CODE, np.arange(rows.rank_CNR.shape[-1]))
        for c in np.unique(chosen_H):
            draw_HN[chosen_H == c] += zeta_HR[chosen_H == c] @ rows.rank_CNR[c].T
        return draw_HN

    def _correction(self, evidence: Evidence, items: Rows, chosen_H: Ints, noise: Noise) -> Floats:
        """Matheron: what the draw at the history's rows, observed with noise, moves the draw at the items."""
        draw_HN = self._prior_draw(evidence.rows, chosen_H, noise)
        draw_HN += np.sqrt(self.priors.noise) * noise.keyed(ROW, np.arange(draw_HN.shape[1]))
        cross_CKN = items.kernel(evidence.rows)
        moved_HK = np.empty((len(chosen_H), len(items.arm_N)))
        for c in np.unique(chosen_H):
            moved_HK[chosen_H == c] = draw_HN[chosen_H == c] @ evidence.inverse_CNN[c] @ cross_CKN[c].T
        return moved_HK


def systematic(shares_C: Floats, draws: int, offset: float) -> NDArray[np.int64]:
    """Systematic sampling: each of `draws` gets a category, counts within one of draws·share (Kitagawa 1996)."""
    edges_C = np.cumsum(shares_C)
    places = (np.arange(draws) + offset) / draws * edges_C[-1]
    return np.asarray(np.minimum(np.searchsorted(edges_C, places, side="right"), len(shares_C) - 1))
