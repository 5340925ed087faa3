"""Joint draws of the scores of items that share parameters in groups: those of one provider, or of one cluster.

Items of an arm share its θ ~ N(μ, LLᵀ), hence their scores are N(Φμ, α²ΦLLᵀΦᵀ); arms are independent. Few items of an
arm are drawn directly, by the Cholesky factor of their covariance: as many normals as items, where θ takes one for each
feature and arm. Of more than BLOCK items of an arm the parameters are drawn.

Shapes: K items (sorted by arm), U arms that have any of them, F items of arms with few, N blocks, G places of a block,
X places of all blocks, H pairs of particles, A arms, D features.
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
            place_K[start:end] = np.arange(first, first + end - start)
            room -= end - start
        return place_K


def scores(belief: Gaussian, phi_KD: Floats, arm_K: Ints, key_K: Keys, noise: Noise, scale: float) -> Scores:
    """As `Gaussian.scores`, where items of the same arm share its parameters."""
    arm_K = arm_K % len(belief.mean_AD)
    mean_K = np.einsum("kd,kd->k", phi_KD, belief.mean_AD[arm_K])
    groups = Groups.of(arm_K)
    order_K, place_K = groups.order_K, groups.places()
    size = BLOCK * (int(place_K.max(initial=-1)) // BLOCK + 1)
    root_XD, single_KD = np.zeros((size, phi_KD.shape[1]), np.float32), phi_KD[order_K].astype(np.float32)
    deviation_KH = np.empty((len(arm_K), noise.pairs), np.float32)
    for arm, start, end in zip(groups.arms_U, groups.edges_U, groups.edges_U[1:], strict=False):
        first = int(place_K[start])
        if first >= 0:
            np.matmul(single_KD[start:end], belief.single_ADD[arm], out=root_XD[first : first + end - start])
        else:
            keys_D = np.arange(arm * phi_KD.shape[1], (arm + 1) * phi_KD.shape[1])
            drawn_DH = noise.keyed(PARAMETER, keys_D).T
            deviation_KH[order_K[start:end]] = single_KD[start:end] @ belief.single_ADD[arm] @ drawn_DH
    few_K = place_K >= 0
    items_F, place_F = (order_K, place_K) if few_K.all() else (order_K[few_K], place_K[few_K])
    if len(items_F):
        normal_FH = noise.keyed(ITEM, key_K).T[items_F]
        deviation_KH[items_F] = _blocks(root_XD, arm_K[items_F], place_F, normal_FH)
    deviation_KH *= np.float32(scale)
    return Scores(mean_K, deviation_KH.T)


def _blocks(root_XD: Floats, arm_F: Ints, place_F: Ints, normal_FH: Floats) -> Floats:
    """Deviations (F, H) of items in these places of blocks, by the Cholesky factors of their covariances."""
    arm_X, normal_XH = np.full(len(root_XD), -1), np.zeros((len(root_XD), normal_FH.shape[1]), np.float32)
    arm_X[place_F], normal_XH[place_F] = arm_F, normal_FH
    root_NGD, arm_NG = root_XD.astype(np.float64).reshape(-1, BLOCK, root_XD.shape[1]), arm_X.reshape(-1, BLOCK)
    covariance_NGG = np.matmul(root_NGD, root_NGD.swapaxes(1, 2))
    covariance_NGG *= arm_NG[:, :, None] == arm_NG[:, None, :]
    variance_NG = np.einsum("ngg->ng", covariance_NGG)
    variance_NG += JITTER * variance_NG + np.finfo(np.float64).tiny
    factor_NGG = np.linalg.cholesky(covariance_NGG).astype(np.float32)
    drawn_NGH = np.matmul(factor_NGG, normal_XH.reshape(-1, BLOCK, normal_XH.shape[1]))
    return np.asarray(drawn_NGH.reshape(normal_XH.shape)[place_F])
