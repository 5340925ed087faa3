"""A generated member: a mixture of priors for one user's task, conditioned on that user's short history.

Candidate c says θ = m_c + Lξ + V_cζ with independent standard normal ξ, ζ, so Σ_c = LLᵀ + V_cV_cᵀ; L is shared.
A row (φ, arm) then has mean m_c[arm]ᵀφ and kernel k_c(i, j) = [arm_i = arm_j] q_iᵀq_j + p_ciᵀp_cj with
q = L[arm]ᵀφ and p_c = V_c[arm]ᵀφ, and everything is a Gaussian process over few points:

    μ(φ) = mean(φ) + k(φ, Φ_u) G⁻¹ (r − mean(Φ_u)),   G = k(Φ_u, Φ_u) + σ²I,

joint draws by Matheron's rule (Wilson et al. 2020), a prior draw corrected by the same G⁻¹: actors.bandits.conditioned.

With a decoder, users without a history, or all, get priors made of their own context instead (the generator's head):
actors.bandits.own.

Shapes: C candidates, A arms, D features, R rank, H width of a context code, X context features, N history rows.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from actors.bandits.conditioned import Conditioned, Evidence, Rows, based
from actors.bandits.decoder import Decoder
from actors.bandits.history import History
from actors.bandits.own import Known, Own
from actors.features.features import Floats, Ints
from cluster.errors import ModelError

LEAST_VARIANCE = 0.01
"""Of members saved before it was fitted."""

Personal: TypeAlias = Literal["unknown", "all"]
"""Whose priors the decoder makes of their own context: of users without a history, or of all."""


def reward_scale(mean_N: Floats, least_variance: float) -> Floats:
    """√(m(1 − m)): the standard deviation of a reward in [0, 1] of mean m, up to a dispersion (at most 1).

    A click at m = 0.3 has ten times the variance of one at 0.02. With one σ² for both, the variance between users
    takes up the difference, and a user's history is believed more than it should be. `least_variance` is for means that
    a linear model puts below what clicks do happen (actors.generator.clicks).
    """
    mean_N = np.clip(mean_N, 0.0, 1.0)
    return np.sqrt(np.maximum(mean_N * (1 - mean_N), least_variance))


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
    noise · max(m(1 − m), least_variance), which is done by dividing the row and its reward by `reward_scale(m)`.

    encoder_HX maps context features to a code; prototypes_CH are the codes that candidates were made for; a
    user's similarity to a candidate is their cosine, and `temperature` is τ_c. names_C are the candidates' ids.
    `exploration` scales the member's deviations beside α: a prior's spread is between users, and how much of it is
    worth exploring depends on how often a user comes back (0 for tasks of one row).

    decoder: makes priors of a context's own code, for users that `personal` says; None has the candidates for all.
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
    decoder: Decoder | None = None
    personal: Personal = "unknown"
    least_variance: float = LEAST_VARIANCE

    def __post_init__(self) -> None:
        c, a, d = self.means_CAD.shape
        if self.factor_ADD.shape != (a, d, d) or self.ranks_CADR.shape[:3] != (c, a, d):
            raise ModelError(
                f"{self.name}: means {self.means_CAD.shape} do not fit factor {self.factor_ADD.shape} "
                f"and ranks {self.ranks_CADR.shape}"
            )
        if len(self.names_C) != c or len(self.prototypes_CH) != c:
            raise ModelError(f"{self.name}: {c} candidates need as many names and prototypes")
        if self.decoder is not None:
            self.decoder.check(self.name, len(self.encoder_HX), (a, d))
        arrays = (self.means_CAD, self.factor_ADD, self.ranks_CADR, self.encoder_HX, self.prototypes_CH)
        if not (
            all(np.isfinite(array).all() for array in arrays)
            and min(self.noise, self.temperature, self.least_variance) > 0
        ):
            raise ModelError(
                f"{self.name}: parameters must be finite, noise, temperature and least variance above 0; generate again"
            )

    def condition(
        self, history: History, context_X: Floats, scale: float = 1.0, code_H: Floats | None = None
    ) -> Conditioned:
        """The posterior after `history`; deviations of its scores are scaled by `scale` (α).

        Args:
            code_H: the context's code where it is known; the encoder makes one of `context_X` otherwise.
        """
        code_H = self.encoder_HX @ context_X if code_H is None else code_H
        scale *= self.exploration
        if self.decoder is not None and (self.personal == "all" or not len(history)):
            own = Own(self, self.decoder, code_H)
            return Conditioned(own, own.logits_S, history, scale)
        return Conditioned(self, self.similarity(code_H) / self.temperature, history, scale)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_evidence", "_known")}

    @cached_property
    def _evidence(self) -> "WeakKeyDictionary[History, Evidence]":
        return WeakKeyDictionary()

    @cached_property
    def _known(self) -> "WeakKeyDictionary[History, Known]":
        return WeakKeyDictionary()

    def evidence(self, history: History) -> Evidence:
        """What a history says to the candidates, kept as long as the history lives; no decision changes it."""
        found = self._evidence.get(history)
        if found is None:
            found = self._evidence[history] = self._weighed(self.scaled(history))
        return found

    def known(self, history: History) -> Known:
        """What a history says whatever the code of a context is, kept in the same way."""
        found = self._known.get(history)
        if found is None:
            assert self.decoder is not None
            found = self._known[history] = Known.of(self.decoder, self.factor_ADD, self.noise, self.scaled(history))
        return found

    def _weighed(self, history: History) -> Evidence:
        rows = self.project(history.phi_ND, history.arm_N)
        root_CNN = np.linalg.cholesky(rows.kernel(rows) + self.noise * np.eye(len(history)))
        half_CNN = np.linalg.inv(root_CNN)
        inverse_CNN: Floats = np.matmul(half_CNN.swapaxes(-1, -2), half_CNN)
        error_CN = history.reward_N - rows.mean_CN
        solved_CN: Floats = np.matmul(inverse_CNN, error_CN[:, :, None])[:, :, 0]
        size_C = 2 * np.log(np.diagonal(root_CNN, axis1=1, axis2=2)).sum(-1)
        fit_C = np.einsum("cn,cn->c", error_CN, solved_CN)
        return Evidence(rows, inverse_CNN, solved_CN, -0.5 * (fit_C + size_C + len(history) * np.log(2 * np.pi)))

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
            decoder=None if self.decoder is None else self.decoder.moved(shift_AD),
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
        return reward_scale(np.einsum("...d,...d->...", phi_ND, self.base_AD[arm_N]), self.least_variance)

    def similarity(self, code_H: Floats) -> Floats:
        """Cosine of a context's code with each prototype, (C,)."""
        length = np.linalg.norm(code_H) * np.linalg.norm(self.prototypes_CH, axis=1)
        result: Floats = self.prototypes_CH @ code_H / np.maximum(length, 1e-12)
        return result

    def project(self, phi_ND: Floats, arm_N: Ints) -> Rows:
        """Prior means and kernel coordinates of rows."""
        base_ND = based(self.factor_ADD, phi_ND, arm_N)
        if len(self.factor_ADD) == 1:
            mean_CN = np.matmul(self.means_CAD[:, 0], phi_ND.T)
            return Rows(mean_CN, base_ND, np.matmul(phi_ND, self.ranks_CADR[:, 0]), arm_N)
        mean_CN = np.einsum("cnd,nd->cn", self.means_CAD[:, arm_N], phi_ND)
        return Rows(mean_CN, base_ND, np.einsum("cndr,nd->cnr", self.ranks_CADR[:, arm_N], phi_ND), arm_N)
