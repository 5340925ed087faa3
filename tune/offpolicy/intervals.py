"""Intervals of a ratio Σ above / Σ below, by user.

Bernstein and the sequence ask for which values v the mean of above − v·below may be 0 (Fieller 1954), which is right
whatever both sums share; the answer is between the roots of a quadratic.

Shapes: U users, R resamples.
"""

import numpy as np
from scipy import special

from actors.features.features import Floats
from cluster.errors import EvidenceError
from cluster.statistics import Interval, bootstrap_by_user, ratio_error, sequence_half_width, tuned_rho
from tune.offpolicy.totals import Sums

__all__ = ["Interval", "bernstein", "bootstrap", "linear", "paired", "sequence", "studentised"]

TUNED_AT = 1_000
"""Users at which the confidence sequence is narrowest; fixed beforehand, so that looks at any time hold together."""


def bootstrap(sums: Sums, alpha: float, resamples: int, seed: int) -> Interval:
    """By users drawn with replacement."""
    return studentised(sums.above_U, sums.below_U, alpha, resamples, seed)


def studentised(above_U: Floats, below_U: Floats, alpha: float, resamples: int, seed: int) -> Interval:
    """The studentised bootstrap of Σ above / Σ below (Efron 1979; Hall 1988), never narrower than Student's interval.

    Every resample has a standard error of its own, so that a resample that missed the few users with much weight
    counts as the rare thing it is. Where users do not differ at all, or resamples say nothing of an end, the end is 0
    or 1.
    """
    value, error = ratio_error(above_U, below_U)
    if not 0 < error < np.inf:
        return Interval(value, 0.0, 1.0)
    users = len(above_U)
    sums_UM = np.stack([above_U, above_U**2, above_U * below_U, below_U**2, np.ones(users)], axis=1)
    ratio_R, aa_R, ab_R, bb_R, inverse_R = bootstrap_by_user(sums_UM, below_U[:, None], resamples, seed).T
    with np.errstate(divide="ignore", invalid="ignore"):
        below_R = users / inverse_R
        spread_R = np.maximum(aa_R - 2 * ratio_R * ab_R + ratio_R**2 * bb_R, 0.0) * users / (users - 1)
        student_R = (ratio_R - value) / np.sqrt(spread_R / below_R)
    student_R = np.where(np.isnan(student_R), -np.inf, student_R)
    least = float(special.stdtrit(users - 1, 1 - alpha / 2))
    below, above = np.quantile(student_R, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    reach = max(least, float(above)), max(least, -float(below))
    low, high = np.clip([value - error * reach[0], value + error * reach[1]], 0.0, 1.0)
    return Interval(value, float(low), float(high))


def paired(one: Sums, other: Sums, alpha: float, resamples: int, seed: int) -> Interval:
    """The difference of two policies' values on the same users, bounds by the bootstrap above, within [−1, 1].

    Each value is replaced by its linear part, (above − value · below) / mean below, exact where both divide by counts.
    """
    difference = one.value - other.value
    if not np.isfinite(difference):
        return Interval(difference, -1.0, 1.0)
    if np.array_equal(one.above_U, other.above_U) and np.array_equal(one.weight_U, other.weight_U):
        return Interval(0.0, 0.0, 0.0)  # the same policy
    linear_U = linear(one) - linear(other)
    halved = studentised((linear_U + difference + 1) / 2, np.ones(len(linear_U)), alpha, resamples, seed)
    return Interval(difference, 2 * halved.low - 1, 2 * halved.high - 1)


def linear(sums: Sums) -> Floats:
    """What each user moves the value by, times their number; of mean 0, (U,)."""
    return np.asarray((sums.above_U - sums.value * sums.below_U) / sums.below_U.mean())


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
