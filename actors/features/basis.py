"""Numbers -> features on which a linear model does well.

A column is centred at its median and scaled by its interquartile range; one with heavy tails goes through
sign(z)·log(1+|z|). Then come a clipped linear term, hinges max(0, z - knot) at quantiles of the distinct
values (a linear spline; Hastie, Tibshirani & Friedman 2009, §5.2), products of two columns, an indicator of
each value that holds at least 5 % of the rows, and an indicator of missing. Every term but the indicators has
mean 0 and variance 1 on the fit rows; a missing number is 0 in all of them.

Shapes: B rows, N number columns, T linear terms, H hinges, Q products, S = T + H + Q, P points, M indicators
of missing, F features in this order.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints

KNOTS = (0.1, 0.3, 0.5, 0.7, 0.9)
POINT_SHARE = 0.05
HEAVY = 8.0
CLIP = 5.0
PRODUCT_COLUMNS = 24


@dataclass(frozen=True)
class Basis:
    """`features(numbers_BN)` is the map; `select` keeps some of its columns."""

    center_N: Floats
    scale_N: Floats
    log_N: NDArray[np.bool_]
    linear_T: Ints
    hinge_H: Ints
    knot_H: Floats
    left_Q: Ints
    right_Q: Ints
    mean_S: Floats
    deviation_S: Floats
    point_P: Ints
    value_P: Floats
    missing_M: Ints

    @property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """T, H, Q, P, M."""
        return len(self.linear_T), len(self.hinge_H), len(self.left_Q), len(self.point_P), len(self.missing_M)

    def features(self, numbers_BN: Floats) -> Floats:
        """numbers_BN (NaN missing) -> features_BF."""
        t, h, q, p, m = self.sizes
        s = t + h + q
        missing_BN = np.isnan(numbers_BN)
        z_BN = self.standard(numbers_BN)
        features_BF = np.empty((len(numbers_BN), s + p + m))
        smooth_BS = features_BF[:, :s]
        smooth_BS[:, :t] = z_BN[:, self.linear_T]
        if h:
            np.maximum(z_BN[:, self.hinge_H] - self.knot_H, 0.0, out=smooth_BS[:, t : t + h])
        if q:
            np.multiply(z_BN[:, self.left_Q], z_BN[:, self.right_Q], out=smooth_BS[:, t + h :])
        smooth_BS -= self.mean_S
        smooth_BS /= self.deviation_S
        if missing_BN.any():
            smooth_BS[np.isnan(smooth_BS)] = 0.0
        if p:
            features_BF[:, s : s + p] = numbers_BN[:, self.point_P] == self.value_P
        if m:
            features_BF[:, s + p :] = missing_BN[:, self.missing_M]
        return features_BF

    def standard(self, numbers_BN: Floats) -> Floats:
        """numbers_BN -> z_BN within ±CLIP; missing gives NaN."""
        z_BN = (numbers_BN - self.center_N) / self.scale_N
        if self.log_N.any():
            z_BN = np.where(self.log_N, np.copysign(np.log1p(np.abs(z_BN)), z_BN), z_BN)
        return np.minimum(np.maximum(z_BN, -CLIP), CLIP)

    def names(self, columns: Sequence[str]) -> list[str]:
        """A name for each feature, from the names of the columns (N)."""
        return (
            [columns[n] for n in self.linear_T]
            + [f"{columns[n]}>{knot:.3g}" for n, knot in zip(self.hinge_H, self.knot_H, strict=True)]
            + [f"{columns[n]}×{columns[m]}" for n, m in zip(self.left_Q, self.right_Q, strict=True)]
            + [f"{columns[n]}={value:.12g}" for n, value in zip(self.point_P, self.value_P, strict=True)]
            + [f"{columns[n]}=(missing)" for n in self.missing_M]
        )

    def select(self, keep_F: NDArray[np.bool_]) -> "Basis":
        """The same map with only these features."""
        linear, hinge, product, point, missing = np.split(keep_F, np.cumsum(self.sizes)[:-1])
        smooth = np.concatenate([linear, hinge, product])
        return replace(
            self,
            linear_T=self.linear_T[linear],
            hinge_H=self.hinge_H[hinge],
            knot_H=self.knot_H[hinge],
            left_Q=self.left_Q[product],
            right_Q=self.right_Q[product],
            mean_S=self.mean_S[smooth],
            deviation_S=self.deviation_S[smooth],
            point_P=self.point_P[point],
            value_P=self.value_P[point],
            missing_M=self.missing_M[missing],
        )


def fit_basis(numbers_BN: Floats, curved: bool = True) -> Basis:
    """The whole basis of these columns; a column without two distinct values has no linear term.

    Args:
        numbers_BN: the fit rows, NaN for missing.
        curved: with hinges, points and products (of the first PRODUCT_COLUMNS columns that vary).
    """
    columns = [_fit_column(column[~np.isnan(column)]) for column in numbers_BN.T]
    varying = [n for n, c in enumerate(columns) if c.varies]
    pairs = list(itertools.combinations_with_replacement(varying[:PRODUCT_COLUMNS], 2)) if curved else []
    pairs = [(n, m) for n, m in pairs if n != m or columns[n].knots]
    hinges = [(n, knot) for n, c in enumerate(columns) for knot in c.knots if curved]
    points = [(n, value) for n, c in enumerate(columns) for value in c.points if curved]
    smooth = len(varying) + len(hinges) + len(pairs)
    basis = Basis(
        center_N=np.array([c.center for c in columns]),
        scale_N=np.array([c.scale for c in columns]),
        log_N=np.array([c.log for c in columns], np.bool_),
        linear_T=np.array(varying, np.int64),
        hinge_H=np.array([n for n, _ in hinges], np.int64),
        knot_H=np.array([knot for _, knot in hinges], np.float64),
        left_Q=np.array([n for n, _ in pairs], np.int64),
        right_Q=np.array([m for _, m in pairs], np.int64),
        mean_S=np.zeros(smooth),
        deviation_S=np.ones(smooth),
        point_P=np.array([n for n, _ in points], np.int64),
        value_P=np.array([value for _, value in points], np.float64),
        missing_M=np.flatnonzero(np.isnan(numbers_BN).any(axis=0)),
    )
    return _standardised(basis, numbers_BN)


def _standardised(basis: Basis, numbers_BN: Floats) -> Basis:
    """The basis with the mean and deviation of its smooth terms over the rows that have them."""
    missing_BN = np.isnan(numbers_BN)
    smooth_BS = basis.features(numbers_BN)[:, : len(basis.mean_S)]
    absent_BS = np.concatenate(
        [missing_BN[:, basis.linear_T], missing_BN[:, basis.hinge_H],
         missing_BN[:, basis.left_Q] | missing_BN[:, basis.right_Q]], axis=1,
    )  # fmt: skip
    count_S = np.maximum((~absent_BS).sum(axis=0), 1)
    mean_S = smooth_BS.sum(axis=0) / count_S
    smooth_BS -= mean_S
    smooth_BS[absent_BS] = 0.0
    variance_S = (smooth_BS**2).sum(axis=0) / count_S
    return replace(basis, mean_S=mean_S, deviation_S=np.where(variance_S > 1e-12, np.sqrt(variance_S), 1.0))


@dataclass(frozen=True)
class _ColumnFit:
    center: float
    scale: float
    log: bool
    varies: bool
    knots: list[float]
    points: list[float]


def _fit_column(x_B: Floats) -> _ColumnFit:
    values, counts = np.unique(x_B, return_counts=True)
    if not len(values):
        return _ColumnFit(0.0, 1.0, False, False, [], [])
    center = float(np.median(x_B))
    low, high = np.quantile(x_B, [0.25, 0.75])
    away = np.abs(x_B - center)
    scale = float((high - low) / 1.349) or float(np.median(away[away > 0])) if len(values) > 1 else 1.0
    scale = max(scale, 1e-100)
    log = bool(np.quantile(away / scale, 0.999) > HEAVY)
    z = np.clip((values - center) / scale if not log else _signed_log((values - center) / scale), -CLIP, CLIP)
    few = len(values) <= 2
    knots = [] if few else sorted({float(k) for k in np.quantile(z, KNOTS)} - {float(z[0]), float(z[-1])})
    share = counts / len(x_B)
    points = [] if few else [float(v) for v in values[share >= POINT_SHARE]]
    return _ColumnFit(center, scale, log, len(values) > 1, knots, points)


def _signed_log(z: Floats) -> Floats:
    return np.copysign(np.log1p(np.abs(z)), z)
