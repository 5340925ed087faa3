"""Low-rank maps with a fixed sign and a fixed seed, so that the same data give the same numbers.

Shapes: N rows, H columns, R rank.
"""

from typing import Any

import numpy as np

from actors.features.features import Floats


def truncated_svd(matrix: Any, rank: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """The largest singular triples of a dense or SciPy sparse matrix_NH.

    Small ones are decomposed whole; the others by subspace iteration from a seeded Gaussian start
    (Halko, Martinsson & Tropp 2011, algorithm 4.4; four passes, ten columns more than asked).

    Returns:
        left_NR, singular_R (descending, positive), right_RH; R may be below `rank` for a matrix of low rank.
        In every right vector the entry of greatest size is positive.
    """
    n, h = matrix.shape
    if not rank or not n or not h:
        return np.zeros((n, 0)), np.zeros(0), np.zeros((0, h))
    if min(n, h) <= rank + 10:
        dense = matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
        left, singular, right = np.linalg.svd(dense, full_matrices=False)
    else:
        start = np.random.default_rng(seed).standard_normal((h, rank + 10))
        basis = _orthonormal(matrix @ start)
        for _ in range(4):
            basis = _orthonormal(matrix @ (matrix.T @ basis))
        projected = matrix.T @ basis
        squares, small = np.linalg.eigh(projected.T @ projected)
        singular = np.sqrt(np.maximum(squares[::-1], 0.0))
        small = small[:, ::-1]
        left = basis @ small
        right = (projected @ small / np.maximum(singular, 1e-300)).T
    kept = int((singular[:rank] > 1e-9 * max(float(singular[0]), 1e-300)).sum()) if singular[0] > 0 else 0
    left, singular, right = left[:, :kept], singular[:kept], right[:kept]
    sign = np.sign(right[np.arange(kept), np.abs(right).argmax(axis=1)]) if kept else np.ones(0)
    return left * sign, singular, right * sign[:, None]


def _orthonormal(rows_NR: Floats) -> Floats:
    """An orthonormal basis of the columns, by two rounds of Cholesky QR (Yamamoto et al. 2015).

    Products of tall matrices with small ones only: threaded Householder QR waits where cores are shared.
    """
    for _ in range(2):
        values, axes = np.linalg.eigh(rows_NR.T @ rows_NR)
        rows_NR = rows_NR @ (axes / np.sqrt(np.maximum(values, 1e-14 * max(float(values[-1]), 1e-300))))
    return rows_NR


def principal(rows_NH: Floats, rank: int, weights_N: Floats | None = None) -> tuple[Floats, Floats]:
    """Weighted mean_H and projection_HR on the leading principal axes.

    The projection is scaled by one number so that (rows - mean) @ projection has a mean square of 1 over all
    its entries: leading axes keep more weight than trailing ones, which are mostly noise.
    """
    n, h = rows_NH.shape
    weights = np.ones(n) if weights_N is None else weights_N
    weights = weights / weights.sum()
    mean_H = weights @ rows_NH
    centred_NH = rows_NH - mean_H
    values, axes = np.linalg.eigh((centred_NH * weights[:, None]).T @ centred_NH)
    order = np.argsort(-values)[:rank]
    order = order[values[order] > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)]
    axes_HR = axes[:, order]
    if not len(order):
        return mean_H, np.zeros((h, 0))
    axes_HR = axes_HR * np.sign(axes_HR[np.abs(axes_HR).argmax(axis=0), np.arange(len(order))])
    return mean_H, axes_HR / np.sqrt(values[order].mean())


def aligned(basis_NR: Floats, target_NR: Floats) -> Floats:
    """basis_NR turned by the rotation that brings it nearest to the target (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(basis_NR.T @ target_NR)
    return np.asarray(basis_NR @ (left @ right))
