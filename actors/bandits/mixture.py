"""A generated member: a mixture of priors for one user's task, conditioned on that user's short history.

Candidate c says θ = m_c + Lξ + V_cζ with independent standard normal ξ, ζ, so Σ_c = LLᵀ + V_cV_cᵀ; L is shared.
A row (φ, arm) then has mean m_c[arm]ᵀφ and kernel k_c(i, j) = [arm_i = arm_j] q_iᵀq_j + p_ciᵀp_cj with
q = L[arm]ᵀφ and p_c = V_c[arm]ᵀφ, and everything is a Gaussian process over few points:

    μ(φ) = mean(φ) + k(φ, Φ_u) G⁻¹ (r − mean(Φ_u)),   G = k(Φ_u, Φ_u) + σ²I,

joint draws by Matheron's rule (Wilson et al. 2020): a prior draw, corrected by the same G⁻¹.

Shapes: C candidates, A arms, D features, R rank, H width of a context code, X context features, N history rows,
K items, P particles.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from actors.bandits.history import History
from actors.bandits.noise import CANDIDATE, CODE, ROW, Noise
from actors.bandits.posterior import Scores
from actors.bandits.weights import softmax
from actors.features.features import Features, Floats, Ints
from cluster.errors import ModelError


@dataclass(frozen=True)
class Mixture:
    """means_CAD, factor_ADD (L), ranks_CADR (V_c), noise: σ².

    encoder_HX maps context features to a code; prototypes_CH are the codes that candidates were made for; a
    user's similarity to a candidate is their cosine, and `temperature` is τ_c. names_C are the candidates' ids.
    """

    name: str
    means_CAD: Floats
    factor_ADD: Floats
    ranks_CADR: Floats
    noise: float
    encoder_HX: Floats
    prototypes_CH: Floats
    temperature: float
    names_C: tuple[str, ...]
    predefined: bool = False

    def __post_init__(self) -> None:
        c, a, d = self.means_CAD.shape
        if self.factor_ADD.shape != (a, d, d) or self.ranks_CADR.shape[:3] != (c, a, d):
            raise ModelError(
                f"{self.name}: means {self.means_CAD.shape} do not fit factor {self.factor_ADD.shape} "
                f"and ranks {self.ranks_CADR.shape}"
            )
        if len(self.names_C) != c or len(self.prototypes_CH) != c:
            raise ModelError(f"{self.name}: {c} candidates need as many names and prototypes")

    def condition(self, history: History, context_X: Floats, scale: float = 1.0) -> "Conditioned":
        """The posterior after `history`; deviations of its scores are scaled by `scale` (α)."""
        return Conditioned(self, history, context_X, scale)

    def similarity(self, context_X: Floats) -> Floats:
        """Cosine of the context's code with each prototype, (C,)."""
        code_H = self.encoder_HX @ context_X
        length = np.linalg.norm(code_H) * np.linalg.norm(self.prototypes_CH, axis=1)
        result: Floats = self.prototypes_CH @ code_H / np.maximum(length, 1e-12)
        return result

    def project(self, phi_ND: Floats, arm_N: Ints) -> "Rows":
        """Prior means and kernel coordinates of rows."""
        if len(self.factor_ADD) == 1:
            return Rows(
                np.matmul(self.means_CAD[:, 0], phi_ND.T),
                phi_ND @ self.factor_ADD[0],
                np.matmul(phi_ND, self.ranks_CADR[:, 0]),
                arm_N,
            )
        return Rows(
            np.einsum("cnd,nd->cn", self.means_CAD[:, arm_N], phi_ND),
            np.matmul(phi_ND[:, None], self.factor_ADD[arm_N])[:, 0],
            np.einsum("cndr,nd->cnr", self.ranks_CADR[:, arm_N], phi_ND),
            arm_N,
        )


@dataclass(frozen=True)
class Rows:
    """mean_CN, base_ND (q), rank_CNR (p), arm_N."""

    mean_CN: Floats
    base_ND: Floats
    rank_CNR: Floats
    arm_N: Ints

    def kernel(self, other: "Rows") -> Floats:
        """Prior covariances of these rows with other ones, (C, N, N')."""
        same_NN = self.arm_N[:, None] == other.arm_N
        base_NN = np.where(same_NN, self.base_ND @ other.base_ND.T, 0.0)
        kernel_CNN: Floats = base_NN + np.matmul(self.rank_CNR, other.rank_CNR.swapaxes(-1, -2))
        return kernel_CNN


class Conditioned:
    """A mixture after one user's history: responsibilities_C, and joint draws of the scores of any items."""

    def __init__(self, mixture: Mixture, history: History, context_X: Floats, scale: float):
        self.mixture, self.history, self.scale = mixture, history, scale
        logits_C = mixture.similarity(context_X) / mixture.temperature
        if len(history):
            logits_C = logits_C + self.log_likelihood_C
        self.responsibilities_C = softmax(logits_C)

    @cached_property
    def _rows(self) -> Rows:
        return self.mixture.project(self.history.phi_ND, self.history.arm_N)

    @cached_property
    def _root_CNN(self) -> Floats:
        """Cholesky factor of G for each candidate."""
        gram_CNN = self._rows.kernel(self._rows)
        root: Floats = np.linalg.cholesky(gram_CNN + self.mixture.noise * np.eye(len(self.history)))
        return root

    @cached_property
    def _inverse_CNN(self) -> Floats:
        half_CNN = np.linalg.inv(self._root_CNN)
        inverse: Floats = np.matmul(half_CNN.swapaxes(-1, -2), half_CNN)
        return inverse

    @cached_property
    def log_likelihood_C(self) -> Floats:
        """log N(r_u; Φ_u m_c, G_c)."""
        error_CN = self.history.reward_N - self._rows.mean_CN
        fit_C = np.einsum("cn,cnm,cm->c", error_CN, self._inverse_CNN, error_CN)
        size_C = 2 * np.log(np.diagonal(self._root_CNN, axis1=1, axis2=2)).sum(-1)
        result: Floats = -0.5 * (fit_C + size_C + len(self.history) * np.log(2 * np.pi))
        return result

    def means(self, features: Features) -> Floats:
        """Posterior means of the K items under each candidate, (C, K)."""
        return self._means(self.mixture.project(features.phi_KD, features.arm_K))

    def _means(self, items: Rows) -> Floats:
        if not len(self.history):
            return items.mean_CN
        error_CN = self.history.reward_N - self._rows.mean_CN
        solved_CN = np.einsum("cnm,cm->cn", self._inverse_CNN, error_CN)
        return np.asarray(items.mean_CN + np.einsum("ckn,cn->ck", items.kernel(self._rows), solved_CN))

    def scores(self, features: Features, noise: Noise) -> Scores:
        """Mixture means and joint deviations: each particle draws its candidate, then θ."""
        items = self.mixture.project(features.phi_KD, features.arm_K)
        mean_CK = self._means(items)
        mean_K = self.responsibilities_C @ mean_CK
        chosen_P = systematic(self.responsibilities_C, noise.particles, noise.uniform(CANDIDATE))
        drawn = np.unique(chosen_P)
        deviation_PK = mean_CK[chosen_P] - mean_K
        base_PK = self._base(items, noise)
        base_PN, error_PN = None, None
        if len(self.history):
            base_PN = self._base(self._rows, noise)
            error_PN = noise.keyed(ROW, np.arange(len(self.history))) * np.sqrt(self.mixture.noise)
        zeta_PR = noise.keyed(CODE, np.arange(self.mixture.ranks_CADR.shape[-1]))
        for c in drawn:
            p = chosen_P == c
            draw_PK = base_PK[p] + zeta_PR[p] @ items.rank_CNR[c].T
            if base_PN is not None and error_PN is not None:
                draw_PN = base_PN[p] + zeta_PR[p] @ self._rows.rank_CNR[c].T + error_PN[p]
                same_KN = items.arm_N[:, None] == self._rows.arm_N
                cross_KN = np.where(same_KN, items.base_ND @ self._rows.base_ND.T, 0.0)
                cross_KN += items.rank_CNR[c] @ self._rows.rank_CNR[c].T
                draw_PK -= draw_PN @ self._inverse_CNN[c] @ cross_KN.T
            deviation_PK[p] += self.scale * draw_PK
        return Scores(mean_K, deviation_PK)

    def _base(self, rows: Rows, noise: Noise) -> Floats:
        """The shared part q·ξ of a prior draw at these rows, (P, N)."""
        arms, dimension = self.mixture.factor_ADD.shape[:2]
        theta_PAD = noise.theta(arms, dimension)
        if arms == 1:
            return theta_PAD[:, 0] @ rows.base_ND.T
        result: Floats = np.einsum("pnd,nd->pn", theta_PAD[:, rows.arm_N], rows.base_ND)
        return result


def systematic(shares_C: Floats, draws: int, offset: float) -> NDArray[np.int64]:
    """Systematic sampling: each of `draws` gets a category, counts within one of draws·share (Kitagawa 1996)."""
    edges_C = np.cumsum(shares_C)
    places = (np.arange(draws) + offset) / draws * edges_C[-1]
    return np.asarray(np.minimum(np.searchsorted(edges_C, places, side="right"), len(shares_C) - 1))
