"""Joint draws of the scores of items that share parameters in groups: those of one provider, or of one cluster.

Items of an arm share its θ ~ N(μ, LLᵀ), hence their scores are N(Φμ, α²ΦLLᵀΦᵀ); arms are independent. Few items of an
arm are drawn directly, by the Cholesky factor of their covariance: as many normals as items, where θ takes one for each
feature and arm. Of more than BLOCK items of an arm the parameters are drawn.

Shapes: K items (sorted by arm), U arms that have any of them, N blocks, G items of a block, H pairs of particles,
A arms, D features.
"""

from dataclasses import dataclass

import numpy as np

from actors.bandits.noise import ITEM, PARAMETER, Noise
from actors.bandits.posterior import Gaussian, Scores
from actors.features.features import Floats, Ints, Keys

BLOCK = 32
JITTER = 1e-10
"""Of an item's variance, added to it: items that say the same have singular covariances."""


@dataclass(frozen=True)
class Groups:
    """Items by arm. order_K: the items; arms_U, edges_U: arms, and where each begins in that order, and the end."""

    order_K: Ints
    arms_U: list[int]
    edges_U: list[int]

    @classmethod
    def of(cls, arm_K: Ints) -> "Groups":
        order_K = np.argsort(arm_K, kind="stable")
        sorted_K = arm_K[order_K]
        first_U = np.flatnonzero(np.diff(sorted_K, prepend=-1))
        return cls(order_K, sorted_K[first_U].tolist(), [*first_U.tolist(), len(arm_K)])

    def places(self) -> Ints:
        """Each item's place in blocks of BLOCK places, arms whole, (K,); -1 for items of an arm that has more."""
        place_K, block, room = np.full(len(self.order_K), -1), -1, 0
        for start, end in zip(self.edges_U, self.edges_U[1:], strict=False):
            if end - start > BLOCK:
                continue
            if end - start > room:
                block, room = block + 1, BLOCK
            first = BLOCK * (block + 1) - room
            place_K[start:end] = range(first, first + end - start)
            room -= end - start
        return place_K


def scores(belief: Gaussian, phi_KD: Floats, arm_K: Ints, key_K: Keys, noise: Noise, scale: float) -> Scores:
    """As `Gaussian.scores`, where items of the same arm share its parameters."""
    arm_K = arm_K % len(belief.mean_AD)
    mean_K = np.einsum("kd,kd->k", phi_KD, belief.mean_AD[arm_K])
    groups, sorted_HK = Groups.of(arm_K), np.empty((noise.pairs, len(arm_K)), np.float32)
    order_K, place_K = groups.order_K, groups.places()
    root_KD, single_KD = np.empty(phi_KD.shape, np.float32), phi_KD[order_K].astype(np.float32)
    for arm, start, end in zip(groups.arms_U, groups.edges_U, groups.edges_U[1:], strict=False):
        np.matmul(single_KD[start:end], belief.single_ADD[arm], out=root_KD[start:end])
        if place_K[start] < 0:
            keys_D = np.arange(arm * phi_KD.shape[1], (arm + 1) * phi_KD.shape[1])
            sorted_HK[:, start:end] = noise.keyed(PARAMETER, keys_D) @ root_KD[start:end].T
    few_K = place_K >= 0
    if few_K.any():
        normal_HK = noise.keyed(ITEM, key_K)[:, order_K[few_K]]
        sorted_HK[:, few_K] = _blocks(root_KD[few_K], arm_K[order_K[few_K]], place_K[few_K], normal_HK)
    deviation_HK = np.empty_like(sorted_HK)
    np.multiply(sorted_HK, np.float32(scale), out=sorted_HK)
    deviation_HK[:, order_K] = sorted_HK
    return Scores(mean_K, deviation_HK)


def _blocks(root_KD: Floats, arm_K: Ints, place_K: Ints, normal_HK: Floats) -> Floats:
    """Deviations (H, K) of items in blocks, by the Cholesky factors of their covariances."""
    blocks, pairs = int(place_K[-1]) // BLOCK + 1, len(normal_HK)
    root_XD, arm_X = np.zeros((blocks * BLOCK, root_KD.shape[1])), np.full(blocks * BLOCK, -1)
    root_XD[place_K], arm_X[place_K] = root_KD, arm_K
    root_NGD, arm_NG = root_XD.reshape(blocks, BLOCK, -1), arm_X.reshape(blocks, BLOCK)
    covariance_NGG = np.matmul(root_NGD, root_NGD.swapaxes(1, 2))
    covariance_NGG *= arm_NG[:, :, None] == arm_NG[:, None, :]
    variance_NG = np.einsum("ngg->ng", covariance_NGG)
    variance_NG += JITTER * variance_NG + np.finfo(np.float64).tiny
    factor_NGG = np.linalg.cholesky(covariance_NGG).astype(np.float32)
    normal_HX = np.zeros((pairs, blocks * BLOCK), np.float32)
    normal_HX[:, place_K] = normal_HK
    drawn_NHG = np.matmul(normal_HX.reshape(pairs, blocks, BLOCK).swapaxes(0, 1), factor_NGG.swapaxes(1, 2))
    return np.asarray(drawn_NHG.swapaxes(0, 1).reshape(pairs, -1)[:, place_K])
