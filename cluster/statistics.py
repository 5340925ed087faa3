"""What every yes or no rests on: intervals, resampling by user, tests that may be looked at any time, and error
rates over several tests.

The unit of a value is the *user* (or whatever is independent), never the event. Shapes: N values, U users, R
resamples, M quantities or tests, A arms.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from cluster.errors import EvidenceError

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


class Interval(NamedTuple):
    """An estimate and its bounds."""

    value: float
    low: float
    high: float


def normal_interval(values_N: Floats, alpha: float = 0.05) -> Interval:
    """mean ± z·s/√N, two-sided at error alpha for many values (central limit theorem).

    Raises:
        EvidenceError: fewer than two values, or one that is not finite.
    """
    mean, error = _mean_error(values_N)
    half = float(special.ndtri(1 - alpha / 2)) * error
    return Interval(mean, mean - half, mean + half)


def student_interval(values_N: Floats, alpha: float = 0.05) -> Interval:
    """mean ± t·s/√N with N − 1 degrees of freedom, exact for normal values (Student 1908).

    Raises:
        EvidenceError: fewer than two values, or one that is not finite.
    """
    mean, error = _mean_error(values_N)
    half = float(special.stdtrit(len(values_N) - 1, 1 - alpha / 2)) * error
    return Interval(mean, mean - half, mean + half)


def bernstein_interval(values_N: Floats, low: float, high: float, alpha: float = 0.05) -> Interval:
    """Two-sided bounds for independent values in [low, high], right at every N and for every distribution.

    Empirical Bernstein: with r = high − low, half = r·(√(2·V·ln(4/alpha)/N) + 7·ln(4/alpha)/(3·(N − 1))), V the
    variance of the values scaled to [0, 1] (Maurer & Pontil 2009, theorem 4, on either side at alpha/2).

    Raises:
        EvidenceError: fewer than two values, or one outside [low, high].
    """
    mean, error = _mean_error(values_N)
    if values_N.min() < low or values_N.max() > high:
        raise EvidenceError(
            f"values from {values_N.min():g} to {values_N.max():g} do not lie in [{low:g}, {high:g}]; "
            "give the range that the values can take"
        )
    n, log = len(values_N), float(np.log(4 / alpha))
    half = error * np.sqrt(2 * log) + (high - low) * 7 * log / (3 * (n - 1))
    return Interval(mean, max(low, mean - half), min(high, mean + half))


def _mean_error(values_N: Floats) -> tuple[float, float]:
    if len(values_N) < 2 or not np.isfinite(values_N).all():
        raise EvidenceError(f"an interval needs two finite values or more, found {len(values_N)}; collect more users")
    return float(values_N.mean()), float(values_N.std(ddof=1) / np.sqrt(len(values_N)))


def bootstrap_interval(totals_U: Floats, counts_U: Floats, resamples: int, seed: int, alpha: float = 0.05) -> Interval:
    """Σ totals / Σ counts with percentile bounds, users drawn with replacement (Efron 1979; Field & Welsh 2007)."""
    value, _ = ratio_error(totals_U, counts_U)
    drawn_RM = bootstrap_by_user(totals_U[:, None], counts_U[:, None], resamples, seed)
    low, high = np.quantile(drawn_RM[:, 0], [alpha / 2, 1 - alpha / 2])
    return Interval(value, float(low), float(high))


def tuned_rho(users: float, alpha: float) -> float:
    """The mixture scale ρ that makes `sequence_half_width` least at this number of users.

    x = users·ρ² solves x = ln(1 + x) − 2·ln alpha: x = −W₋₁(−alpha²/e) − 1 with Lambert's W (Waudby-Smith et al.
    2024, appendix).
    """
    x = -float(special.lambertw(-(alpha**2) / np.e, -1).real) - 1
    return float(np.sqrt(x / users))


def sequence_half_width(count: Floats | float, deviation: Floats | float, alpha: float, rho: float) -> Floats:
    """Half width of the asymptotic confidence sequence of a mean, valid at all looks together.

    With n = count values of standard deviation s: s·√(2·(n·ρ² + 1)/(n²·ρ²) · ln(√(n·ρ² + 1)/alpha))
    (Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas 2024, arXiv:2103.06476). Asymptotic: the error rate holds from a
    first look at enough users on, not from the first user.
    """
    mixed = np.asarray(count) * rho**2 + 1
    return np.asarray(deviation) * np.sqrt(2 * mixed * np.log(np.sqrt(mixed) / alpha)) / (np.asarray(count) * rho)


def sequence_lower_width(count: Floats | float, deviation: Floats | float, alpha: float, rho: float) -> Floats:
    """Width below the mean of the one-sided sequence: ln(1 + √(n·ρ² + 1)/(2·alpha)) in place of the logarithm (the
    same paper, appendix); where it leaves 0 out, `sequence_e_value` is at least 1/alpha."""
    mixed = np.asarray(count) * rho**2 + 1
    log = np.log1p(np.sqrt(mixed) / (2 * alpha))
    return np.asarray(deviation) * np.sqrt(2 * mixed * log) / (np.asarray(count) * rho)


def confidence_sequence(values_N: Floats, alpha: float, rho: float) -> tuple[Floats, Floats, Floats]:
    """Running mean_N, low_N and high_N of values in the order of their arrival; the first bounds are infinite."""
    count_N = np.arange(1.0, len(values_N) + 1)
    mean_N = np.cumsum(values_N) / count_N
    centred_N = values_N - values_N[:1].sum()
    square_N = np.cumsum(centred_N**2) - np.cumsum(centred_N) ** 2 / count_N
    deviation_N = np.sqrt(np.maximum(square_N, 0) / np.maximum(count_N - 1, 1))
    half_N = sequence_half_width(count_N, deviation_N, alpha, rho)
    half_N[:1] = np.inf
    return mean_N, mean_N - half_N, mean_N + half_N


def sequence_e_value(mean: float, deviation: float, count: int, rho: float) -> float:
    """Evidence at any time against "the mean is at most 0", for `e_benjamini_hochberg`; asymptotic as above.

    The half-normal mixture 2/√(nρ² + 1) · exp(ρ²S²/(2(nρ² + 1))) · Φ(ρS/√(nρ² + 1)), S = n·mean/s, is a
    supermartingale that starts at 1 where the mean is at most 0 (Robbins 1970).
    """
    if count < 2 or deviation <= 0:
        return 1.0
    mixed = count * rho**2 + 1
    score = rho * count * mean / deviation / np.sqrt(mixed)
    log = np.log(2) - np.log(mixed) / 2 + score**2 / 2 + float(special.log_ndtr(score))
    return float(np.exp(np.minimum(log, 700.0)))


def e_benjamini_hochberg(e_values_M: Floats, alpha: float) -> NDArray[np.bool_]:
    """Which of M null hypotheses to reject at false discovery rate alpha, however the e-values depend.

    The k largest, for the greatest k with k·e₍k₎ ≥ M/alpha (Wang & Ramdas 2022).
    """
    order = np.argsort(-e_values_M, kind="stable")
    m = len(e_values_M)
    enough = np.flatnonzero(np.arange(1, m + 1) * e_values_M[order] >= m / alpha)
    reject_M = np.zeros(m, np.bool_)
    reject_M[order[: enough[-1] + 1 if len(enough) else 0]] = True
    return reject_M


def sample_ratio_e_value(counts_A: Floats, shares_A: Floats, concentration: float = 100.0) -> float:
    """Evidence at any time that users are not assigned in the intended shares; alarm at 1/alpha or more.

    The Dirichlet(concentration · shares) mixture of multinomial likelihoods over that of the shares: a martingale
    that starts at 1 when the shares are right (Lindon & Malek 2022). Count first exposures of users only.

    Raises:
        EvidenceError: shares that are not positive or do not sum to 1, or counts that do not fit them.
    """
    if counts_A.shape != shares_A.shape or (shares_A <= 0).any() or abs(shares_A.sum() - 1) > 1e-9:
        raise EvidenceError(f"shares {shares_A} must be positive, sum to 1 and be as many as counts {counts_A}")
    prior_A = concentration * shares_A
    log = special.gammaln(prior_A.sum()) - special.gammaln(prior_A.sum() + counts_A.sum())
    log += float((special.gammaln(prior_A + counts_A) - special.gammaln(prior_A) - counts_A * np.log(shares_A)).sum())
    return float(np.exp(np.minimum(log, 700.0)))
