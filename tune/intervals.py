"""Intervals of a ratio Σ above / Σ below, by user.

Bernstein and the sequence ask for which values v the mean of above − v·below may be 0 (Fieller 1954), which is right
whatever both sums share; the answer is between the roots of a quadratic.

Shapes: U users, R resamples.
"""

import numpy as np

from actors.features.features import Floats
from cluster.errors import EvidenceError
from cluster.statistics import Interval, bootstrap_by_user, ratio_error, sequence_half_width, tuned_rho
from tune.totals import Sums

__all__ = ["Interval", "bernstein", "bootstrap", "sequence"]

TUNED_AT = 1_000
"""Users at which the confidence sequence is narrowest; fixed beforehand, so that looks at any time hold together."""


def bootstrap(sums: Sums, alpha: float, resamples: int, seed: int) -> Interval:
    """Users drawn with replacement (Efron 1979; Field & Welsh 2007)."""
    value, _ = ratio_error(sums.above_U, sums.below_U)
    drawn_R = bootstrap_by_user(sums.above_U[:, None], sums.below_U[:, None], resamples, seed)[:, 0]
    low, high = np.quantile(drawn_R, [alpha / 2, 1 - alpha / 2])
    return Interval(value, float(low), float(high))


def sequence(sums: Sums, alpha: float) -> Interval:
    """Asymptotic confidence sequence of users in the order of their arrival (Waudby-Smith et al. 2024)."""
    users = len(sums.above_U)
    scale = float(sequence_half_width(users, 1.0, alpha, tuned_rho(TUNED_AT, alpha)))
    low, high = between(sums.above_U, sums.below_U, scale, 0.0)
    return Interval(sums.value, low, high)


def bernstein(sums: Sums, alpha: float) -> Interval:
    """Empirical Bernstein (Maurer & Pontil 2009), each side at alpha/2, with what clipping left out at its worst.

    The numbers of events of the users are taken as given.

    Raises:
        EvidenceError: the method's terms have no range.
    """
    most = _greatest_weight(sums)
    missing_U = sums.count_U - sums.weight_U
    doubly = sums.method != "clipped_ips"
    width = 1 + 2 * most if doubly else max(most, 1.0)
    low, _ = _bernstein(sums.above_U - doubly * missing_U, sums, alpha, width)
    _, high = _bernstein(sums.above_U + missing_U, sums, alpha, width)
    return Interval(sums.value, low, high)


def _greatest_weight(sums: Sums) -> float:
    if sums.parameter is None or sums.parameter == np.inf:
        raise EvidenceError(
            f"{sums.method} has no bound on what one event adds, so no Bernstein interval holds; "
            "use clipped_ips, switch_dr or dros, or another interval"
        )
    return float(np.sqrt(sums.parameter) / 2) if sums.method == "dros" else sums.parameter


def _bernstein(above_U: Floats, sums: Sums, alpha: float, width: float) -> tuple[float, float]:
    users, log = len(above_U), float(np.log(4 / alpha))
    if users < 2:
        return 0.0, 1.0
    slack = width * float(sums.count_U.max()) * 7 * log / (3 * (users - 1))
    return between(above_U, sums.count_U, float(np.sqrt(2 * log / users)), slack)


def between(above_U: Floats, below_U: Floats, scale: float, slack: float) -> tuple[float, float]:
    """Least and greatest v in [0, 1] with |mean of above − v·below| ≤ scale · deviation + slack."""
    above, below = float(above_U.mean()), float(below_U.mean())
    if len(above_U) < 2:
        return 0.0, 1.0
    (saa, sab), (_, sbb) = np.cov(above_U, below_U)
    square = below**2 - scale**2 * sbb
    if square <= 0:
        return 0.0, 1.0
    ends = []
    for sign in (-1.0, 1.0):
        shifted = above + sign * slack
        half = shifted * below - scale**2 * sab
        root = max(half**2 - square * (shifted**2 - scale**2 * saa), 0.0)
        ends.append((half + sign * np.sqrt(root)) / square)
    return float(np.clip(ends[0], 0.0, 1.0)), float(np.clip(ends[1], 0.0, 1.0))
