"""What every yes or no rests on: resampling by user, and error rates over several tests.

Shapes: U users, R resamples, M quantities measured on the same users.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

_CHUNK = 2**22
"""Numbers of a block of resampling weights: 32 MiB."""


def bootstrap_by_user(totals_UM: Floats, counts_UM: Floats, resamples: int, seed: int) -> Floats:
    """Resampled ratios Σ totals / Σ counts, users drawn with replacement, (R, M).

    The same resample of users serves all M quantities. A resample without any count has the ratio 0.
    """
    users = len(totals_UM)
    rng = np.random.default_rng([seed, 0xB007])
    counts_UM = np.broadcast_to(counts_UM, totals_UM.shape)
    found = []
    for start in range(0, resamples, step := max(1, _CHUNK // max(users, 1))):
        size = min(step, resamples - start)
        drawn_RU = rng.integers(0, users, size=(size, users))
        drawn_RU += users * np.arange(size)[:, None]
        times_RU = np.bincount(drawn_RU.ravel(), minlength=size * users).reshape(size, users).astype(float)
        below_RM = times_RU @ counts_UM
        above_RM = times_RU @ totals_UM
        found.append(np.divide(above_RM, below_RM, out=np.zeros_like(above_RM), where=below_RM > 0))
    return np.concatenate(found) if found else np.empty((0, totals_UM.shape[1]))


def ratio_error(totals_U: Floats, counts_U: Floats) -> tuple[float, float]:
    """Σ totals / Σ counts and its standard error between users (delta method, U/(U−1) corrected)."""
    below = float(counts_U.sum())
    if len(totals_U) < 2 or below <= 0:
        return (float(totals_U.sum()) / below if below > 0 else 0.0), float("inf")
    value = float(totals_U.sum()) / below
    residual_U = totals_U - value * counts_U
    return value, float(np.sqrt(len(residual_U) / (len(residual_U) - 1) * (residual_U @ residual_U)) / below)


def holm(p_values_M: Floats) -> Floats:
    """Holm's adjusted p-values: reject where adjusted <= alpha, at familywise error alpha (Holm 1979)."""
    m = len(p_values_M)
    order = np.argsort(p_values_M, kind="stable")
    stepped = np.maximum.accumulate((m - np.arange(m)) * p_values_M[order])
    adjusted = np.empty(m)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
