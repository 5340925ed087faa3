"""Random Fourier features: a linear model on them is a Gaussian process with the Gaussian kernel.

Rahimi & Recht 2007: cos(ωᵀx + b), ω ~ N(0, I/σ²), b uniform on [0, 2π), directions orthogonal in blocks (Yu et al.
2016). σ is half the median distance between fit rows (the median heuristic; Gretton et al. 2012). All waves together
weigh as much as the features that they read: each has a mean square of R/W, at most 1.

Shapes: N rows, D base features (column 0 is 1), R of them read, W waves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.dense import times
from actors.features.features import Floats, Ints

PAIRS = 2_000
WIDTH = 0.5


@dataclass(frozen=True)
class Fourier:
    """amplitude·cos(x_R @ weights_RW + phase_W)."""

    read_R: Ints
    weights_RW: Floats
    phase_W: Floats
    amplitude: float

    @property
    def size(self) -> int:
        return len(self.phase_W)

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"wave[{w}]" for w in range(self.size))

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> waves_NW."""
        wave_NW = times(base_ND.take(self.read_R, axis=1), self.weights_RW)
        wave_NW += self.phase_W
        np.cos(wave_NW, out=wave_NW)
        wave_NW *= self.amplitude
        return wave_NW


def fit_fourier(base_ND: Floats, read_R: Ints, width: int, seed: int) -> Fourier:
    """`width` waves of these features, at the bandwidth of these rows."""
    rng = np.random.default_rng(seed)
    r = len(read_R)
    blocks = [np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(-(-width // r))]
    turned_RW = np.concatenate(blocks, axis=1)[:, :width]
    length_W = np.sqrt(rng.chisquare(r, width)) / bandwidth(base_ND[:, read_R], rng)
    phase_W = rng.uniform(0.0, 2 * np.pi, width)
    return Fourier(read_R, turned_RW * length_W, phase_W, float(np.sqrt(2 * min(1.0, r / width))))


def bandwidth(rows_NR: Floats, rng: np.random.Generator) -> float:
    """Half the median distance between PAIRS pairs of rows that differ; 1 where all rows are the same."""
    left, right = rng.integers(0, len(rows_NR), (2, PAIRS))
    distance = np.sqrt(((rows_NR[left] - rows_NR[right]) ** 2).sum(axis=1))
    apart = distance[distance > 1e-9]
    return WIDTH * float(np.median(apart)) if len(apart) else 1.0
