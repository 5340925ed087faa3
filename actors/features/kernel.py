"""A Gaussian kernel on landmark rows: a linear model on it is the Gaussian process, exact where the landmarks are.

Nyström features (Williams & Seeger 2001): k(x, Z) L⁻ᵀ with k(x, z) = exp(−|x − z|²/2σ²), Z the landmarks and
k(Z, Z) = LLᵀ. Landmarks are picked one by one, each the row that those before say least of (pivoted Cholesky; Fine &
Scheinberg 2001), until every row is known: of few rows, or of rows that repeat, nothing is lost. σ is half the median
distance between fit rows, as of the waves (`fourier.py`), and all together weigh as much as the features that they
read.

Shapes: N rows, D base features (column 0 is 1), R of them read, P rows of the pool, W landmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.dense import times
from actors.features.features import Floats, Ints
from actors.features.fourier import bandwidth

POOL = 1_500
"""Fit rows among which landmarks are picked."""
KNOWN = 1e-4
"""What may be left of a row's k(x, x) = 1 when the landmarks are enough."""


@dataclass(frozen=True)
class Kernel:
    """exp([x, x²] @ inner_2RW + offset_W) @ whiten_WW: one product for all squared distances."""

    read_R: Ints
    inner_2RW: Floats
    offset_W: Floats
    whiten_WW: Floats

    @property
    def size(self) -> int:
        return len(self.offset_W)

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"landmark[{w}]" for w in range(self.size))

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> lifted_NW."""
        x_NR = base_ND.take(self.read_R, axis=1)
        near_NW = times(np.concatenate([x_NR, x_NR**2], axis=1), self.inner_2RW)
        near_NW += self.offset_W
        return times(np.exp(near_NW, out=near_NW), self.whiten_WW)


def fit_kernel(base_ND: Floats, read_R: Ints, width: int, seed: int) -> Kernel | None:
    """At most `width` landmarks among these rows, by these features; None where all rows are the same."""
    rng = np.random.default_rng(seed)
    x_NR = base_ND[:, read_R]
    sigma = bandwidth(x_NR, rng)
    x_PR = x_NR[np.sort(rng.permutation(len(x_NR))[:POOL])]
    if not np.ptp(x_PR, axis=0).any():
        return None
    picked_W, root_WW = _landmarks(x_PR, sigma, width)
    mark_WR = x_PR[picked_W]
    inner_2RW = np.concatenate([mark_WR / sigma**2, np.full_like(mark_WR, -0.5 / sigma**2)], axis=1).T
    weight = np.sqrt(min(len(picked_W), len(read_R)))
    whiten_WW = weight * np.linalg.inv(root_WW).T
    return Kernel(read_R, inner_2RW, -0.5 * (mark_WR**2).sum(axis=1) / sigma**2, whiten_WW)


def _landmarks(x_PR: Floats, sigma: float, width: int) -> tuple[Ints, Floats]:
    """Which rows, and the Cholesky factor of their kernel."""
    square_P = (x_PR**2).sum(axis=1)
    left_P, picked = np.ones(len(x_PR)), []
    root_WP = np.zeros((min(width, len(x_PR)), len(x_PR)))
    for w, root_P in enumerate(root_WP):
        best = int(np.round(left_P, 9).argmax())
        if left_P[best] < KNOWN:
            break
        distance_P = np.maximum(square_P + square_P[best] - 2 * x_PR @ x_PR[best], 0.0)
        root_P[:] = np.exp(-0.5 * distance_P / sigma**2) - root_WP[:w, best] @ root_WP[:w]
        root_P /= np.sqrt(left_P[best])
        left_P -= root_P**2
        left_P[best] = 0.0
        picked.append(best)
    return np.array(picked, np.int64), np.tril(root_WP[: len(picked), picked].T)
