"""A Gaussian kernel on landmark rows: a linear model on it is the Gaussian process, exact where the landmarks are.

Nyström features (Williams & Seeger 2001): k(x, Z) L⁻ᵀ with Z the landmarks and k(Z, Z) = LLᵀ. Landmarks are picked one
by one, each the row that those before say least of (pivoted Cholesky; Fine & Scheinberg 2001), until every row is
known: of few rows, or of rows that repeat, nothing is lost.

k(x, z) = exp(−|x − z|²/2σ²), σ half the median distance between fit rows, as of the waves (`fourier.py`). Of ENOUGH
rows or more, half of k is this and half the same with features scaled by how much they matter (`relevance.py`), so that
a few levels that decide are not lost among many that do not, and nothing is staked on them alone. All landmarks
together weigh as much as the features that they read.

Shapes: N rows, D base features (column 0 is 1), R of them read, S scales of theirs, P rows of the pool, W landmarks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.dense import times
from actors.features.features import Floats, Ints
from actors.features.fourier import bandwidth
from actors.features.relevance import relevance

POOL = 1_500
"""Fit rows among which landmarks are picked."""
KNOWN = 1e-4
"""What may be left of a row's k(x, x) = 1 when the landmarks are enough."""
ENOUGH, ROWS = 200, 400
"""Rows from which on, and at most how many of which, the evidence scales features."""


@dataclass(frozen=True)
class Kernel:
    """Σ_s exp([x, x²] @ inner_SRW + offset_SW) @ whiten_WW: one product for all squared distances of a scale."""

    read_R: Ints
    inner_SRW: Floats
    offset_SW: Floats
    whiten_WW: Floats

    @property
    def size(self) -> int:
        return len(self.whiten_WW)

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"landmark[{w}]" for w in range(self.size))

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> lifted_NW."""
        x_NR = base_ND.take(self.read_R, axis=1)
        both_NR = np.concatenate([x_NR, x_NR**2], axis=1)
        near_NW = np.zeros((len(base_ND), self.size))
        for inner_RW, offset_W in zip(self.inner_SRW, self.offset_SW, strict=True):
            near_NW += np.exp(times(both_NR, inner_RW) + offset_W)
        return times(near_NW, self.whiten_WW)


def fit_kernel(
    base_ND: Floats, read_R: Ints, arm_N: Ints, reward_N: Floats, opposite: bool, width: int, seed: int
) -> Kernel | None:
    """At most `width` landmarks among these rows, by these features; None where all rows are the same.

    Args:
        opposite: the arms are two items that differ by the kernel, as in `pair.py`; else each arm is for itself.
    """
    rng = np.random.default_rng(seed)
    x_NR = base_ND[:, read_R]
    scale_SR = np.full((1, len(read_R)), 1 / bandwidth(x_NR, rng))
    x_PR = x_NR[np.sort(rng.permutation(len(x_NR))[:POOL])]
    if not np.ptp(x_PR, axis=0).any():
        return None
    rewarded = np.flatnonzero((arm_N >= 0) & np.isfinite(reward_N))
    if len(rewarded) >= ENOUGH:
        rows = np.sort(rng.permutation(rewarded)[:ROWS])
        own_R = _relevance(x_NR[rows] * scale_SR, arm_N[rows], reward_N[rows], opposite)
        scale_SR = np.concatenate([scale_SR, scale_SR * own_R])
    picked_W, root_WW = _landmarks([x_PR * scale_R for scale_R in scale_SR], width)
    mark_WR, square_SR = x_PR[picked_W], scale_SR**2
    half_SRW = np.repeat(-0.5 * square_SR[..., None], len(mark_WR), axis=2)
    inner_SRW = np.concatenate([square_SR[..., None] * mark_WR.T, half_SRW], axis=1)
    whiten_WW = np.sqrt(min(len(picked_W), len(read_R))) / len(scale_SR) * np.linalg.inv(root_WW).T
    return Kernel(read_R, inner_SRW, -0.5 * square_SR @ (mark_WR**2).T, whiten_WW)


def _relevance(x_NR: Floats, arm_N: Ints, reward_N: Floats, opposite: bool) -> Floats:
    """Factors (R,) of the features, by what these rows earned beside the mean of their arm."""
    place_N, count_A = np.unique(arm_N, return_inverse=True, return_counts=True)[1:]
    mean_A = np.bincount(place_N, weights=reward_N) / count_A
    same_NN = arm_N[:, None] == arm_N
    alike_NN = np.where(same_NN, 1.0, -1.0 if opposite else 0.0)
    return relevance(x_NR, reward_N - mean_A[place_N], alike_NN)


def _landmarks(x_SPR: Sequence[Floats], width: int) -> tuple[Ints, Floats]:
    """Which rows of the pool, and the Cholesky factor of their kernel, the mean over the scales."""
    pool = len(x_SPR[0])
    left_P, picked = np.ones(pool), []
    root_WP = np.zeros((min(width, pool), pool))
    for w, root_P in enumerate(root_WP):
        best = int(np.round(left_P, 9).argmax())
        if left_P[best] < KNOWN:
            break
        near_SP = [np.exp(-0.5 * ((x_PR - x_PR[best]) ** 2).sum(axis=1)) for x_PR in x_SPR]
        root_P[:] = np.mean(near_SP, axis=0) - root_WP[:w, best] @ root_WP[:w]
        root_P /= np.sqrt(left_P[best])
        left_P -= root_P**2
        left_P[best] = 0.0
        picked.append(best)
    return np.array(picked, np.int64), np.tril(root_WP[: len(picked), picked].T)
