"""Products of two features of the base row.

A product is centred on the fit rows and scaled down to deviation 1, never up: one of rare indicators stays rare.

Shapes: N rows, D base features, Q products, A arms.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats, Ints
from actors.features.screening import gains

POOL_BYTES = 96 * 2**20


@dataclass(frozen=True)
class Quadratic:
    left_Q: Ints
    right_Q: Ints
    mean_Q: Floats
    deviation_Q: Floats

    @property
    def size(self) -> int:
        return len(self.left_Q)

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        pairs = zip(self.left_Q, self.right_Q, strict=True)
        return tuple(f"{base[n]}²" if n == m else f"{base[n]}×{base[m]}" for n, m in pairs)

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> products_NQ."""
        product_NQ = base_ND.take(self.left_Q, axis=1)
        product_NQ *= base_ND.take(self.right_Q, axis=1)
        product_NQ -= self.mean_Q
        product_NQ /= self.deviation_Q
        return product_NQ


def fit_quadratic(base_ND: Floats, arm_N: Ints, reward_N: Floats, room: int) -> Quadratic:
    """All products that vary on the fit rows; of more than `room`, those that explain most of the reward."""
    pairs = list(itertools.combinations_with_replacement(range(1, base_ND.shape[1]), 2))
    left_Q, right_Q = np.array(pairs, np.int64).reshape(-1, 2).T
    rows = slice(0, max(100, POOL_BYTES // (8 * max(len(pairs), 1))))
    base_ND, arm_N, reward_N = base_ND[rows], arm_N[rows], reward_N[rows]
    product_NQ = base_ND[:, left_Q] * base_ND[:, right_Q]
    few_D = np.array([len(np.unique(column)) <= 2 for column in base_ND.T])
    kept = np.flatnonzero((product_NQ.std(axis=0) > 1e-6) & ~((left_Q == right_Q) & few_D[left_Q]))
    if len(kept) > room:
        gain_Q = gains(base_ND, product_NQ[:, kept], arm_N, reward_N)
        kept = np.sort(kept[np.argsort(-np.round(gain_Q, 9), kind="stable")[:room]])
    mean_Q, deviation_Q = product_NQ[:, kept].mean(axis=0), product_NQ[:, kept].std(axis=0)
    return Quadratic(left_Q[kept], right_Q[kept], mean_Q, np.maximum(deviation_Q, 1.0))
