"""Gaussian posteriors over the parameters of a linear reward, r = θᵀφ + e, e ~ N(0, σ²).

A leading arm axis holds A independent posteriors; joint features are the case A = 1. The last row is never
learned from by a known item: it is the prior that an unknown item (index -1) gets.

Shapes: N rows (or blocks of items), G items of a block, K items, P particles, A arms, D features. Rewards are scaled to
[0, 1] by their declared range.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg.lapack import dtrtri

from actors.bandits.noise import ITEM, PARAMETER, Noise
from actors.features.features import Floats, Ints, Keys
from cluster.errors import ModelError

CHUNK, BAND = 512, 16
"""Contexts and triangle rows of one product in batched draws: what fits a core's cache."""
BLOCK = 32
"""Items whose scores are drawn by one Cholesky factor; where more share an arm, its parameters are drawn."""
JITTER = 1e-10
"""Of an item's variance, added to it: items that say the same have singular covariances."""


@dataclass(frozen=True)
class Scores:
    """What a member thinks of K items: means, and joint deviations from them in each particle.

    mean_K, deviation_PK.
    """

    mean_K: Floats
    deviation_PK: Floats


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
            theta_PD = noise.theta(1, self.mean_AD.shape[1])[:, 0] @ (scale * self.factor_ADD[0].T)
            return Scores(phi_KD @ self.mean_AD[0], theta_PD @ phi_KD.T)
        mean_K, spread_K = self.moments(phi_KD, arm_K)
        return Scores(mean_K, noise.keyed(ITEM, key_K) * (scale * spread_K).astype(np.float32))

    def jointly(self, phi_KD: Floats, arm_K: Ints, key_K: Keys, noise: Noise, scale: float) -> Scores:
        """As `scores`, where items of the same arm share its draw of θ: s ~ N(Φμ, α²ΦLLᵀΦᵀ); arms are independent.

        Few items of an arm are drawn directly, by the Cholesky factor of their covariance: as many normals as items,
        where θ takes one for each feature and arm.
        """
        items, arm_K = len(arm_K), arm_K % len(self.mean_AD)
        order_K = np.argsort(arm_K, kind="stable")
        firsts = np.flatnonzero(np.diff(arm_K[order_K], prepend=-1))
        root_KD, mean_K = np.empty(phi_KD.shape), np.empty(items)
        groups = np.split(order_K, firsts[1:])
        for group_K in groups:
            phi_GD, arm = phi_KD[group_K], int(arm_K[group_K[0]])
            root_KD[group_K], mean_K[group_K] = phi_GD @ self.factor_ADD[arm], phi_GD @ self.mean_AD[arm]
        deviation_PK = np.empty((noise.particles, items), np.float32)
        for group_K in groups:
            if len(group_K) > BLOCK:
                dimension = phi_KD.shape[1]
                keys_D = arm_K[group_K[0]] * dimension + np.arange(dimension)
                deviation_PK[:, group_K] = noise.keyed(PARAMETER, keys_D) @ root_KD[group_K].T
        blocks_NG = packed([group_K for group_K in groups if len(group_K) <= BLOCK])
        if len(blocks_NG):
            there_NG = blocks_NG >= 0
            factor_NGG = _factors(root_KD, arm_K, blocks_NG)
            normal_NPG = (noise.keyed(ITEM, key_K)[:, blocks_NG] * there_NG).swapaxes(0, 1)
            drawn_NPG = np.matmul(normal_NPG, factor_NGG.swapaxes(1, 2))
            deviation_PK[:, blocks_NG[there_NG]] = drawn_NPG.swapaxes(0, 1)[:, there_NG]
        deviation_PK *= np.float32(scale)
        return Scores(mean_K, deviation_PK)

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
    def _bands(self) -> list[tuple[int, Floats]]:
        """(first feature, rows of R), bands of the triangle R with RᵀR = LLᵀ: the zeros below are not multiplied."""
        upper_ADD = np.asarray(np.linalg.qr(self.factor_ADD.swapaxes(1, 2), mode="r"), np.float32)
        starts = range(0, upper_ADD.shape[-1], BAND)
        return [(d, np.ascontiguousarray(upper_ADD[:, d : d + BAND, d:])) for d in starts]


def packed(groups: Sequence[Ints]) -> Ints:
    """Items of groups, of BLOCK at most each, in rows of BLOCK with groups whole, (N, BLOCK); -1 where one has room."""
    rows: list[list[Ints]] = []
    room = 0
    for group in groups:
        if len(group) > room:
            rows, room = [*rows, []], BLOCK
        rows[-1].append(group)
        room -= len(group)
    blocks_NG = np.full((len(rows), BLOCK), -1)
    for block_G, row in zip(blocks_NG, rows, strict=True):
        items = np.concatenate(row)
        block_G[: len(items)] = items
    return blocks_NG


def _factors(root_KD: Floats, arm_K: Ints, blocks_NG: Ints) -> Floats:
    """Cholesky factors of the items' covariances, those of different arms 0, in single precision."""
    there_NG = blocks_NG >= 0
    root_NGD = root_KD[blocks_NG] * there_NG[:, :, None]
    arm_NG = np.where(there_NG, arm_K[blocks_NG], -1)
    covariance_NGG = np.matmul(root_NGD, root_NGD.swapaxes(1, 2))
    covariance_NGG *= arm_NG[:, :, None] == arm_NG[:, None, :]
    diagonal_NG = np.einsum("ngg->ng", covariance_NGG)
    diagonal_NG += JITTER * diagonal_NG + np.finfo(np.float64).tiny
    return np.asarray(np.linalg.cholesky(covariance_NGG), np.float32)


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
