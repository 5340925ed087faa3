"""The random numbers of one decision, each a pure function of the decision's seed and a key.

A number depends on nothing else, so that an item's noise is the same in every candidate list, a slot sees the
particles of the slot before, and a replay needs the seed alone.

Shapes: B decisions, H pairs of particles, Q half of them, N keys, A parameter rows, D features.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints, Keys

Words: TypeAlias = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1
_HALF, _UNIT, _TURN = np.float32(0.5), np.float32(2.0**-32), np.float32(2.0 * math.pi * 2.0**-32)
_MINUS_TWO = np.float32(-2.0)

ITEM, ROW, CODE, CANDIDATE, CHOICE, TIE, THETA, PARAMETER = range(1, 9)
"""Streams: two numbers of different streams are independent."""


class Noise:
    """Standard normals, in single precision, for the particles of the decision with this seed.

    Particles come in pairs, of which the second has the negatives of the first one's numbers (antithetic variates;
    Hammersley and Morton 1956): what is drawn is drawn for H of the 2H. Each alone has the law that it would have
    among independent ones, so that means over particles are as true, less noisy, and half the work. Of an
    odd number of particles the last pair's second one is not asked.
    """

    def __init__(self, seed: int, particles: int):
        self.seed = seed & _MASK
        self.pairs = (particles + 1) // 2
        self._drawn: dict[tuple[int, bytes], Floats] = {}

    def theta(self, arms: int, dimension: int) -> Floats:
        """(H, A, D) coordinates of parameters; members that share a feature map share them."""
        return self.keyed(THETA, _numbers(arms * dimension)).reshape(self.pairs, arms, dimension)

    def keyed(self, stream: int, keys_N: Keys | Ints) -> Floats:
        """(H, N) normals, one column per key; shared, so they must not be changed."""
        key = (stream, keys_N.tobytes())
        if key not in self._drawn:
            self._drawn[key] = _normals(self._words(stream, keys_N), self.pairs)
        return self._drawn[key]

    def _words(self, stream: int, keys_N: Keys | Ints) -> Words:
        """What `_normals` makes the numbers of these keys from."""
        return keys_N.view(np.uint64) ^ np.uint64(_scramble(self.seed, stream))

    def hashes(self, stream: int, keys_N: Keys) -> Keys:
        """(N,) words, one per 64-bit hash, by multiply-add hashing (Dietzfelbinger 1996)."""
        stem = _scramble(self.seed, stream)
        return np.asarray(keys_N * np.uint64(stem | 1) + np.uint64(_scramble(stem, 1)))

    def uniforms(self, stream: int, keys_N: Keys) -> Floats:
        """The same as numbers in [0, 1]."""
        return np.asarray(self.hashes(stream, keys_N) * 2.0**-64)

    def uniform(self, stream: int, key: int = 0) -> float:
        """A number in [0, 1)."""
        return (_scramble(_scramble(self.seed, stream), key + 1) >> 11) * 2.0**-53


def together(noises: Sequence[Noise], dimension: int, keys: Sequence[Keys] | None) -> Floats:
    """Draw for several decisions at once, with the same bits, what each would draw alone: `theta(1, dimension)`, which
    is returned for all of them (B, H, D), and `keyed(ITEM, its keys)` unless `keys` is None."""
    numbers_D = _numbers(dimension)
    parts: list[list[Words]] = [[noise._words(THETA, numbers_D) for noise in noises]]
    if keys is not None:
        parts.append([noise._words(ITEM, keys_N) for noise, keys_N in zip(noises, keys, strict=True)])
    words_BN = np.concatenate([np.concatenate(part).reshape(len(noises), -1) for part in parts], axis=1)
    drawn_BHN = _normals(words_BN, noises[0].pairs)
    theta_BHD = drawn_BHN[:, :, :dimension]
    for b, noise in enumerate(noises):
        noise._drawn[THETA, numbers_D.tobytes()] = theta_BHD[b]
        if keys is not None:
            noise._drawn[ITEM, keys[b].tobytes()] = drawn_BHN[b, :, dimension:]
    return theta_BHD


def _normals(words: Words, pairs: int) -> Floats:
    """(H, N) of words (N,), with axes before for axes before: Box-Muller on SplitMix64, in single precision, which
    takes a quarter of the time of double."""
    words_QN = _steps((pairs + 1) // 2) + words[..., None, :]
    _mix(words_QN)
    angle_QN, radius_QN = (words_QN.view(np.uint32)[..., half::2].astype(np.float32) for half in (0, 1))
    radius_QN += _HALF
    radius_QN *= _UNIT
    np.log(radius_QN, out=radius_QN)
    radius_QN *= _MINUS_TWO
    np.sqrt(radius_QN, out=radius_QN)
    angle_QN *= _TURN
    quarter = words_QN.shape[-2]
    drawn_HN = np.empty((*words.shape[:-1], 2 * quarter, words.shape[-1]), np.float32)
    np.multiply(np.cos(angle_QN), radius_QN, out=drawn_HN[..., :quarter, :])
    np.multiply(np.sin(angle_QN), radius_QN, out=drawn_HN[..., quarter:, :])
    return drawn_HN[..., :pairs, :]


@lru_cache(maxsize=64)
def _steps(count: int) -> Words:
    return np.arange(1, count + 1, dtype=np.uint64)[:, None] * _GOLDEN


@lru_cache(maxsize=64)
def _numbers(count: int) -> Words:
    return np.arange(count, dtype=np.uint64)


def _mix(words: Words) -> None:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014), in place."""
    spare = words >> np.uint64(30)
    words ^= spare
    words *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(words, np.uint64(27), out=spare)
    words ^= spare
    words *= np.uint64(0x94D049BB133111EB)
    np.right_shift(words, np.uint64(31), out=spare)
    words ^= spare


def _scramble(seed: int, key: int) -> int:
    """The same finaliser for one Python integer."""
    z = (seed + key * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
