"""The random numbers of one decision, each a pure function of the decision's seed and a key.

A number depends on nothing else, so that an item's noise is the same in every candidate list, a slot sees the
particles of the slot before, and a replay needs the seed alone.

Shapes: B decisions, P particles, H half of them, N keys, A parameter rows, D features, R rank.
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
_WORD = np.uint64(32)
_HALF, _UNIT, _TURN = np.float32(0.5), np.float32(2.0**-32), np.float32(2.0 * math.pi * 2.0**-32)
_MINUS_TWO = np.float32(-2.0)

ITEM, ROW, CODE, CANDIDATE, CHOICE, TIE, THETA, PARAMETER = range(1, 9)
"""Streams: two numbers of different streams are independent."""


class Noise:
    """Standard normals, in single precision, for the P particles of the decision with this seed."""

    def __init__(self, seed: int, particles: int):
        self.seed = seed & _MASK
        self.particles = particles
        self._theta: dict[tuple[int, int], Floats] = {}
        self._keyed: dict[tuple[int, bytes], Floats] = {}

    def theta(self, arms: int, dimension: int) -> Floats:
        """(P, A, D) coordinates of parameters; members that share a feature map share them."""
        key = (arms, dimension)
        if key not in self._theta:
            drawn = _normals(self._words(THETA, _numbers(arms * dimension)), self.particles)
            self._theta[key] = drawn.reshape(self.particles, arms, dimension)
        return self._theta[key]

    def keyed(self, stream: int, keys_N: Keys | Ints) -> Floats:
        """(P, N) normals, one column per key; shared, so they must not be changed."""
        key = (stream, keys_N.tobytes())
        if key not in self._keyed:
            self._keyed[key] = _normals(self._words(stream, keys_N), self.particles)
        return self._keyed[key]

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
    is returned for all of them (B, P, D), and `keyed(ITEM, its keys)` unless `keys` is None."""
    parts: list[list[Words]] = [[noise._words(THETA, _numbers(dimension)) for noise in noises]]
    if keys is not None:
        parts.append([noise._words(ITEM, keys_N) for noise, keys_N in zip(noises, keys, strict=True)])
    words_BN = np.concatenate([np.concatenate(part).reshape(len(noises), -1) for part in parts], axis=1)
    drawn_BPN = _normals(words_BN, noises[0].particles)
    theta_BPD = drawn_BPN[:, :, :dimension]
    for b, noise in enumerate(noises):
        noise._theta[1, dimension] = theta_BPD[b, :, None]
        if keys is not None:
            noise._keyed[ITEM, keys[b].tobytes()] = drawn_BPN[b, :, dimension:]
    return theta_BPD


def _normals(words: Words, particles: int) -> Floats:
    """(P, N) of words (N,), with axes before for axes before: Box-Muller on SplitMix64, in single precision, which
    takes a quarter of the time of double."""
    words_HN = _steps((particles + 1) // 2) + _mix(words)[..., None, :]
    spare_HN = _mix_in_place(words_HN)
    np.right_shift(words_HN, _WORD, out=spare_HN)
    radius_HN = spare_HN.astype(np.float32)
    radius_HN += _HALF
    radius_HN *= _UNIT
    np.log(radius_HN, out=radius_HN)
    radius_HN *= _MINUS_TWO
    np.sqrt(radius_HN, out=radius_HN)
    angle_HN = words_HN.astype(np.uint32).astype(np.float32)
    angle_HN *= _TURN
    half = words_HN.shape[-2]
    drawn_PN = np.empty((*words.shape[:-1], 2 * half, words.shape[-1]), np.float32)
    np.multiply(np.cos(angle_HN), radius_HN, out=drawn_PN[..., :half, :])
    np.multiply(np.sin(angle_HN), radius_HN, out=drawn_PN[..., half:, :])
    return drawn_PN[..., :particles, :]


@lru_cache(maxsize=64)
def _steps(count: int) -> Words:
    return np.arange(1, count + 1, dtype=np.uint64)[:, None] * _GOLDEN


@lru_cache(maxsize=64)
def _numbers(count: int) -> Words:
    return np.arange(count, dtype=np.uint64)


def _mix(words: Words) -> Words:
    """SplitMix64's finaliser (Steele, Lea, Flood 2014)."""
    mixed = words.copy()
    _mix_in_place(mixed)
    return mixed


def _mix_in_place(words: Words) -> Words:
    """The same, changing `words`; returns an array of their shape that is free to use."""
    spare = words >> np.uint64(30)
    words ^= spare
    words *= np.uint64(0xBF58476D1CE4E5B9)
    np.right_shift(words, np.uint64(27), out=spare)
    words ^= spare
    words *= np.uint64(0x94D049BB133111EB)
    np.right_shift(words, np.uint64(31), out=spare)
    words ^= spare
    return spare


def _scramble(seed: int, key: int) -> int:
    """The same finaliser for one Python integer."""
    z = (seed + key * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
