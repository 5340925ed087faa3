"""The random numbers of one decision, each a pure function of the decision's seed and a key.

A number depends on nothing else, so that an item's noise is the same in every candidate list, a slot sees the
particles of the slot before, and a replay needs the seed alone.

Shapes: P particles, N keys, A parameter rows, D features, R rank.
"""

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints, Keys

Words: TypeAlias = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1
HALF, UNIT = np.float32(0.5), np.float32(2.0**-32)

ITEM, ROW, CODE, CANDIDATE, CHOICE, TIE = range(1, 7)
"""Streams: two numbers of different streams are independent."""


class Noise:
    """Standard normals for the P particles of the decision with this seed."""

    def __init__(self, seed: int, particles: int):
        self.seed = seed & _MASK
        self.particles = particles
        self._theta: dict[tuple[int, int], Floats] = {}
        self._keyed: dict[tuple[int, bytes], Floats] = {}

    def theta(self, arms: int, dimension: int) -> Floats:
        """(P, A, D) coordinates of parameters; members that share a feature map share them."""
        key = (arms, dimension)
        if key not in self._theta:
            stream = np.random.Generator(np.random.Philox(key=[self.seed, 0]))
            drawn = stream.standard_normal((self.particles, arms, dimension), np.float32)  # half the time of double
            self._theta[key] = drawn.astype(np.float64)
        return self._theta[key]

    def keyed(self, stream: int, keys_N: Keys | Ints) -> Floats:
        """(P, N) normals, one column per key (Box-Muller on SplitMix64, in single precision, a quarter of the time of
        double); shared, so they must not be changed."""
        key = (stream, keys_N.tobytes())
        if key not in self._keyed:
            half = (self.particles + 1) // 2
            words = np.arange(1, half + 1, dtype=np.uint64)[:, None] * _GOLDEN
            words = _mix(words + _mix(keys_N.astype(np.uint64) ^ np.uint64(_scramble(self.seed, stream)))[None])
            radius = np.sqrt(np.float32(-2.0) * np.log(((words >> np.uint64(32)).astype(np.float32) + HALF) * UNIT))
            angle = words.astype(np.uint32).astype(np.float32) * np.float32(2.0 * math.pi) * UNIT
            drawn = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[: self.particles]
            self._keyed[key] = drawn.astype(np.float64)
        return self._keyed[key]

    def uniforms(self, stream: int, keys_N: Keys) -> Floats:
        """(N,) numbers in [0, 1], one per 64-bit hash, by multiply-add hashing (Dietzfelbinger 1996)."""
        stem = _scramble(self.seed, stream)
        return np.asarray((keys_N * np.uint64(stem | 1) + np.uint64(_scramble(stem, 1))) * 2.0**-64)

    def uniform(self, stream: int, key: int = 0) -> float:
        """A number in [0, 1)."""
        return (_scramble(_scramble(self.seed, stream), key + 1) >> 11) * 2.0**-53


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _scramble(seed: int, key: int) -> int:
    """The same finaliser for one Python integer."""
    z = (seed + key * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
