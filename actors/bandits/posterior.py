"""Gaussian posteriors over the parameters of a linear reward, r = θᵀφ + e, e ~ N(0, σ²).

A leading arm axis holds A independent posteriors; joint features are the case A = 1. The last row is never
learned from by a known item: it is the prior that an unknown item (index -1) gets.

Shapes: N rows, K items, H pairs of particles, P = 2H, A arms, D features. Rewards are scaled to [0, 1] by their
declared range.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dtrtri

from actors.bandits.noise import ITEM, Noise
from actors.features.features import Floats, Ints, Keys
from cluster.errors import ModelError

CHUNK, BAND = 512, 16
"""Contexts and triangle rows of one product in batched draws: what fits a core's cache."""


@dataclass(frozen=True)
class Scores:
    """What a member thinks of K items: means, and joint deviations from them in each particle.

    mean_K. deviation_HK: in the first particle of each pair. other_HK: in the second; None where it is the negative.
    """

    mean_K: Floats
    deviation_HK: Floats
    other_HK: Floats | None = None

    @property
    def deviation_PK(self) -> Floats:
        """In all particles: the first ones of the pairs, then the second ones."""
        return np.concatenate([self.deviation_HK, -self.deviation_HK if self.other_HK is None else self.other_HK])


@dataclass(frozen=True)
class Gaussian:
    """N(mean, LLᵀ) for each arm: mean_AD, factor_ADD (L)."""

    mean_AD: Floats
    factor_ADD: Floats

    def scores(self, phi_KD: Floats, arm_K: Ints, key_K: Keys, noise: Noise, scale: float) -> Scores:
        """Joint draws of the scores of K items, deviations scaled by `scale` (α).

        Joint features draw θ_p = μ + αLξ_p. With arms, items are independent given the context, and their
        scores are drawn directly, in single precision: s_k ~ N(μ_kᵀφ, α²‖L_kᵀφ‖²), the same law (docs/law.md).
        """
        if len(self.mean_AD) == 1:
            theta_HD = noise.theta(1, self.mean_AD.shape[1])[:, 0] @ (scale * self.factor_ADD[0].T)
            return Scores(phi_KD @ self.mean_AD[0], theta_HD @ phi_KD.T)
        mean_K, spread_K = self.moments(phi_KD, arm_K)
        return Scores(mean_K, noise.keyed(ITEM, key_K) * (scale * spread_K).astype(np.float32))

    def moments(self, phi_KD: Floats, arm_K: Ints) -> tuple[Floats, Floats]:
        """Means and standard deviations of the K scores, (K,) each."""
        if phi_KD.shape[1] == 1:
            return phi_KD[:, 0] * self.mean_AD[arm_K, 0], np.abs(phi_KD[:, 0] * self.factor_ADD[arm_K, 0, 0])
        if phi_KD.strides[0] == 0 and 2 * len(arm_K) >= len(self.mean_AD):
            # One context for all items: all arms at once cost less than gathering most of their factors.
            mean_K, root_KD = (self.mean_AD @ phi_KD[0])[arm_K], np.matmul(phi_KD[0], self.factor_ADD)[arm_K]
        else:
            mean_K = np.einsum("kd,kd->k", phi_KD, self.mean_AD[arm_K])
            root_KD = np.matmul(phi_KD[:, None, :], self.factor_ADD[arm_K])[:, 0]
        return mean_K, np.sqrt(np.einsum("kd,kd->k", root_KD, root_KD))

    def draw(self, phi_BD: Floats, rng: np.random.Generator) -> Floats:
        """One independent draw of every arm's score in each of B contexts, (A, B).

        The exact law of scores under drawn parameters, s ~ N(μ_aᵀφ, ‖L_aᵀφ‖²), at one normal a score, for those who
        choose by Thompson sampling and need no propensities. Spreads are in single precision.
        """
        score_AB: Floats = self.mean_AD @ phi_BD.T
        for start in range(0, len(phi_BD), CHUNK):
            part = slice(start, start + CHUNK)
            part_DB = np.ascontiguousarray(phi_BD[part].T, np.float32)
            variance_AB = np.zeros((len(score_AB), part_DB.shape[1]), np.float32)
            for first, rows_AED in self._bands:
                root_AEB = np.matmul(rows_AED.reshape(-1, rows_AED.shape[-1]), part_DB[first:])
                root_AEB = root_AEB.reshape(*rows_AED.shape[:2], -1)
                variance_AB += np.einsum("aeb,aeb->ab", root_AEB, root_AEB)
            score_AB[:, part] += rng.standard_normal(variance_AB.shape, np.float32) * np.sqrt(variance_AB)
        return score_AB

    @cached_property
    def single_ADD(self) -> Floats:
        """L in single precision."""
        return self.factor_ADD.astype(np.float32)

    @cached_property
    def _bands(self) -> list[tuple[int, Floats]]:
        """(first feature, rows of R), bands of the triangle R with RᵀR = LLᵀ: the zeros below are not multiplied."""
        upper_ADD = np.asarray(np.linalg.qr(self.factor_ADD.swapaxes(1, 2), mode="r"), np.float32)
        starts = range(0, upper_ADD.shape[-1], BAND)
        return [(d, np.ascontiguousarray(upper_ADD[:, d : d + BAND, d:])) for d in starts]


@dataclass
class Statistics:
    """Sufficient statistics in natural form; arrays change in place.

    prior_precision_ADD (Λ₀), prior_shift_AD (Λ₀μ₀), data_precision_ADD (Σφφᵀ/σ²), data_shift_AD (Σφr/σ²),
    noise: σ².
    """

    prior_precision_ADD: Floats
    prior_shift_AD: Floats
    data_precision_ADD: Floats
    data_shift_AD: Floats
    noise: float

    @classmethod
    def start(cls, precision_ADD: Floats, shift_AD: Floats, noise: float) -> "Statistics":
        """No data yet. Raises ModelError unless the prior is finite, proper and of one shape."""
        if precision_ADD.shape != (*shift_AD.shape, shift_AD.shape[-1]):
            raise ModelError(f"precision {precision_ADD.shape} does not fit shift {shift_AD.shape}")
        if not (np.isfinite(precision_ADD).all() and np.isfinite(shift_AD).all() and noise > 0):
            raise ModelError("a prior must be finite and its noise variance above zero; refit the pooled prior")
        return cls(precision_ADD, shift_AD, np.zeros_like(precision_ADD), np.zeros_like(shift_AD), noise)

    def learn(self, phi_D: Floats, arm: int, reward: float) -> None:
        """Rank-one update by one outcome."""
        scaled_D = phi_D / self.noise
        self.data_precision_ADD[arm] += scaled_D[:, None] * phi_D
        self.data_shift_AD[arm] += scaled_D * reward

    def learn_batch(self, phi_ND: Floats, arm_N: Ints, reward_N: Floats) -> None:
        """The same for many rows, by one matrix product per arm (equal up to rounding)."""
        for arm in np.unique(arm_N):
            rows_ND = phi_ND[arm_N == arm]
            self.data_precision_ADD[arm] += rows_ND.T @ rows_ND / self.noise
            self.data_shift_AD[arm] += rows_ND.T @ reward_N[arm_N == arm] / self.noise

    def forget(self, keep: float) -> None:
        """Shrink toward the prior: the data count `keep` of what they did."""
        self.data_precision_ADD *= keep
        self.data_shift_AD *= keep

    @property
    def precision_ADD(self) -> Floats:
        return self.prior_precision_ADD + self.data_precision_ADD

    @property
    def shift_AD(self) -> Floats:
        return self.prior_shift_AD + self.data_shift_AD

    def gaussian(self) -> Gaussian:
        return gaussian(self.precision_ADD, self.shift_AD)

    def again(self, before: Gaussian | None, arms: Iterable[int]) -> Gaussian:
        """The posterior, of which only these arms are others than `before` (all where it is None).

        Each arm is factored by itself: it has the same bits whichever others are.
        """
        if before is None:
            before, arms = Gaussian(self.data_shift_AD, self.data_precision_ADD), range(len(self.data_shift_AD))
        mean_AD, factor_ADD = before.mean_AD.copy(), before.factor_ADD.copy()
        for arm in arms:
            one = slice(arm, arm + 1)
            made = gaussian(
                self.prior_precision_ADD[one] + self.data_precision_ADD[one],
                self.prior_shift_AD[one] + self.data_shift_AD[one],
            )
            mean_AD[arm], factor_ADD[arm] = made.mean_AD[0], made.factor_ADD[0]
        return Gaussian(mean_AD, factor_ADD)


def gaussian(precision_ADD: Floats, shift_AD: Floats) -> Gaussian:
    """The posterior N(Λ⁻¹b, Λ⁻¹), factored. Raises ModelError where Λ is not positive definite."""
    try:
        root_ADD = np.linalg.cholesky(precision_ADD)
    except np.linalg.LinAlgError as error:
        raise ModelError("a precision is not positive definite; its prior must be") from error
    # L⁻ᵀ is the inverse of a triangle: a sixth of the work of a general one.
    factor_ADD = np.stack([np.ascontiguousarray(dtrtri(root_DD.T)[0]) for root_DD in root_ADD])
    half_AD = np.einsum("aed,ae->ad", factor_ADD, shift_AD)
    return Gaussian(np.einsum("ade,ae->ad", factor_ADD, half_AD), factor_ADD)
