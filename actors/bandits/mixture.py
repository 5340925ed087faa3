"""A generated member: a mixture of priors for one user's task, conditioned on that user's short history.

Candidate c says θ = m_c + Lξ + V_cζ with independent standard normal ξ, ζ, so Σ_c = LLᵀ + V_cV_cᵀ; L is shared.
A row (φ, arm) then has mean m_c[arm]ᵀφ and kernel k_c(i, j) = [arm_i = arm_j] q_iᵀq_j + p_ciᵀp_cj with
q = L[arm]ᵀφ and p_c = V_c[arm]ᵀφ, and everything is a Gaussian process over few points:

    μ(φ) = mean(φ) + k(φ, Φ_u) G⁻¹ (r − mean(Φ_u)),   G = k(Φ_u, Φ_u) + σ²I,

joint draws by Matheron's rule (Wilson et al. 2020): a prior draw, corrected by the same G⁻¹.

Shapes: C candidates, A arms, D features, R rank, H width of a context code, X context features, N history rows,
K items, P particles.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from actors.bandits.history import History
from actors.bandits.noise import CANDIDATE, CODE, ROW, Noise
from actors.bandits.posterior import Scores
from actors.bandits.weights import softmax
from actors.features.features import Features, Floats, Ints
from cluster.errors import ModelError

LEAST_VARIANCE = 0.01


def reward_scale(mean_N: Floats) -> Floats:
    """√(m(1 − m)): the standard deviation of a reward in [0, 1] of mean m, up to a dispersion (at most 1).

    A click at m = 0.3 has ten times the variance of one at 0.02. With one σ² for both, the variance between users
    takes up the difference, and a user's history is believed more than it should be.
    """
    mean_N = np.clip(mean_N, 0.0, 1.0)
    return np.sqrt(np.maximum(mean_N * (1 - mean_N), LEAST_VARIANCE))


@dataclass(frozen=True)
class Follow:
    """Where μ₀ of generated priors comes from: `scale` times the mean of the shared member `name`, mean_AD so far."""

    name: str
    mean_AD: Floats
    scale: float


@dataclass(frozen=True)
class Mixture:
    """means_CAD, factor_ADD (L), ranks_CADR (V_c), noise: σ².

    base_AD: where it is given, `noise` is a dispersion: a history's row of mean m = base[arm]ᵀφ has the variance
    noise · m(1 − m), which is done by dividing the row and its reward by `reward_scale(m)`.

    encoder_HX maps context features to a code; prototypes_CH are the codes that candidates were made for; a
    user's similarity to a candidate is their cosine, and `temperature` is τ_c. names_C are the candidates' ids.
    `exploration` scales the member's deviations beside α: a prior's spread is between users, and how much of it is
    worth exploring depends on how often a user comes back (0 for tasks of one row).
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
    exploration: float = 1.0
    base_AD: Floats | None = None
    follow: Follow | None = None

    def __post_init__(self) -> None:
        c, a, d = self.means_CAD.shape
        if self.factor_ADD.shape != (a, d, d) or self.ranks_CADR.shape[:3] != (c, a, d):
            raise ModelError(
                f"{self.name}: means {self.means_CAD.shape} do not fit factor {self.factor_ADD.shape} "
                f"and ranks {self.ranks_CADR.shape}"
            )
        if len(self.names_C) != c or len(self.prototypes_CH) != c:
            raise ModelError(f"{self.name}: {c} candidates need as many names and prototypes")
        arrays = (self.means_CAD, self.factor_ADD, self.ranks_CADR, self.encoder_HX, self.prototypes_CH)
        if not (all(np.isfinite(array).all() for array in arrays) and self.noise > 0 and self.temperature > 0):
            raise ModelError(f"{self.name}: parameters must be finite, noise and temperature above 0; generate again")

    def condition(self, history: History, context_X: Floats, scale: float = 1.0) -> "Conditioned":
        """The posterior after `history`; deviations of its scores are scaled by `scale` (α)."""
        return Conditioned(self, history, context_X, scale * self.exploration)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_evidence"}

    @cached_property
    def _evidence(self) -> "WeakKeyDictionary[History, Evidence]":
        return WeakKeyDictionary()

    def evidence(self, history: History) -> "Evidence":
        """What a history says, kept as long as the history lives."""
        found = self._evidence.get(history)
        if found is None:
            found = self._evidence[history] = Evidence(self, history)
        return found

    def following(self, mean_AD: Floats) -> "Mixture":
        """The same shifts from what the followed member has learned by now: m_c + a(μ_t − μ₀).

        A prior that stays where the log left it falls behind a pooled model that learns. A user's own few rows are
        then in μ_t as well as in the history; among the thousands that a pooled posterior counts that is no matter.
        """
        if self.follow is None:
            return self
        shift_AD = self.follow.scale * (mean_AD - self.follow.mean_AD)
        return replace(
            self,
            means_CAD=self.means_CAD + shift_AD,
            base_AD=None if self.base_AD is None else self.base_AD + shift_AD,
            follow=replace(self.follow, mean_AD=mean_AD),
        )

    def scaled(self, history: History) -> History:
        """The history with rows and rewards divided by their standard deviation up to `noise`."""
        if self.base_AD is None:
            return history
        scale_N = self.scale(history.phi_ND, history.arm_N)
        return History(history.phi_ND / scale_N[:, None], history.arm_N, history.reward_N / scale_N)

    def scale(self, phi_ND: Floats, arm_N: Ints) -> Floats:
        """What a row and its reward are divided by; φ may have axes before the last."""
        if self.base_AD is None:
            return np.ones(phi_ND.shape[:-1])
        return reward_scale(np.einsum("...d,...d->...", phi_ND, self.base_AD[arm_N]))

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


class Evidence:
    """What one history says to every candidate: rows, G⁻¹, likelihoods. It does not depend on the decision."""

    def __init__(self, mixture: Mixture, history: History):
        history = mixture.scaled(history)
        self.rows = mixture.project(history.phi_ND, history.arm_N)
        root_CNN = np.linalg.cholesky(self.rows.kernel(self.rows) + mixture.noise * np.eye(len(history)))
        half_CNN = np.linalg.inv(root_CNN)
        self.inverse_CNN: Floats = np.matmul(half_CNN.swapaxes(-1, -2), half_CNN)
        error_CN = history.reward_N - self.rows.mean_CN
        self.solved_CN: Floats = np.matmul(self.inverse_CNN, error_CN[:, :, None])[:, :, 0]
        size_C = 2 * np.log(np.diagonal(root_CNN, axis1=1, axis2=2)).sum(-1)
        fit_C = np.einsum("cn,cn->c", error_CN, self.solved_CN)
        self.log_likelihood_C: Floats = -0.5 * (fit_C + size_C + len(history) * np.log(2 * np.pi))
        """log N(r_u; Φ_u m_c, G_c)."""


class Conditioned:
    """A mixture after one user's history: responsibilities_C, and joint draws of the scores of any items."""

    def __init__(self, mixture: Mixture, history: History, context_X: Floats, scale: float):
        self.mixture, self.scale = mixture, scale
        self.evidence = mixture.evidence(history) if len(history) else None
        logits_C = mixture.similarity(context_X) / mixture.temperature
        if self.evidence is not None:
            logits_C = logits_C + self.evidence.log_likelihood_C
        self.responsibilities_C = softmax(logits_C)

    def means(self, features: Features) -> Floats:
        """Posterior means of the K items under each candidate, (C, K)."""
        return self._means(self.mixture.project(features.phi_KD, features.arm_K))

    def _means(self, items: Rows) -> Floats:
        if self.evidence is None:
            return items.mean_CN
        cross_CKN = items.kernel(self.evidence.rows)
        moved_CK: Floats = np.matmul(cross_CKN, self.evidence.solved_CN[:, :, None])[:, :, 0]
        return items.mean_CN + moved_CK

    def scores(self, features: Features, noise: Noise) -> Scores:
        """Mixture means and joint deviations: each particle draws its candidate, then θ."""
        items = self.mixture.project(features.phi_KD, features.arm_K)
        mean_CK = self._means(items)
        mean_K = self.responsibilities_C @ mean_CK
        chosen_P = systematic(self.responsibilities_C, noise.particles, noise.uniform(CANDIDATE))
        draw_PK = self._prior_draw(items, chosen_P, noise)
        if self.evidence is not None:
            draw_PK -= self._correction(self.evidence, items, chosen_P, noise)
        return Scores(mean_K, self.scale * (mean_CK[chosen_P] - mean_K + draw_PK))

    def _prior_draw(self, rows: Rows, chosen_P: Ints, noise: Noise) -> Floats:
        """q·ξ + p·ζ at these rows, each particle under its candidate, (P, N)."""
        arms, dimension = self.mixture.factor_ADD.shape[:2]
        theta_PAD = noise.theta(arms, dimension)
        if arms == 1:
            draw_PN = theta_PAD[:, 0] @ rows.base_ND.T
        else:
            draw_PN = np.einsum("pnd,nd->pn", theta_PAD[:, rows.arm_N], rows.base_ND)
        zeta_PR = noise.keyed(CODE, np.arange(rows.rank_CNR.shape[-1]))
        for c in np.unique(chosen_P):
            draw_PN[chosen_P == c] += zeta_PR[chosen_P == c] @ rows.rank_CNR[c].T
        return draw_PN

    def _correction(self, evidence: Evidence, items: Rows, chosen_P: Ints, noise: Noise) -> Floats:
        """Matheron: what the draw at the history's rows, observed with noise, moves the draw at the items."""
        draw_PN = self._prior_draw(evidence.rows, chosen_P, noise)
        draw_PN += np.sqrt(self.mixture.noise) * noise.keyed(ROW, np.arange(draw_PN.shape[1]))
        cross_CKN = items.kernel(evidence.rows)
        moved_PK = np.empty((len(chosen_P), len(items.arm_N)))
        for c in np.unique(chosen_P):
            moved_PK[chosen_P == c] = draw_PN[chosen_P == c] @ evidence.inverse_CNN[c] @ cross_CKN[c].T
        return moved_PK


def systematic(shares_C: Floats, draws: int, offset: float) -> NDArray[np.int64]:
    """Systematic sampling: each of `draws` gets a category, counts within one of draws·share (Kitagawa 1996)."""
    edges_C = np.cumsum(shares_C)
    places = (np.arange(draws) + offset) / draws * edges_C[-1]
    return np.asarray(np.minimum(np.searchsorted(edges_C, places, side="right"), len(shares_C) - 1))
