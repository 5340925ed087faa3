"""Intervals, sequences and e-values: worked numbers, identities, and error rates by simulation with a fixed seed.

Where a rate is measured over S simulations, the assertion allows four standard errors √(p(1 − p)/S), so that a right
procedure fails once in 30,000 seeds.
"""

from itertools import product
from math import comb, factorial

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import integrate, optimize, stats

from cluster import statistics
from cluster.errors import EvidenceError


def slack(rate: float, simulations: int) -> float:
    return 4 * float(np.sqrt(rate * (1 - rate) / simulations))


def covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    return float(((low <= truth) & (truth <= high)).mean())


def test_intervals_on_worked_numbers() -> None:
    """1, 2, 3, 4: mean 2.5, s = √(5/3), standard error 0.645497; z = 1.959964, t(3) = 3.182446."""
    values = np.array([1.0, 2.0, 3.0, 4.0])
    normal, student = statistics.normal_interval(values), statistics.student_interval(values)
    assert normal == pytest.approx((2.5, 2.5 - 1.959964 * 0.6454972, 2.5 + 1.959964 * 0.6454972), rel=1e-6)
    assert student == pytest.approx((2.5, 2.5 - 3.182446 * 0.6454972, 2.5 + 3.182446 * 0.6454972), rel=1e-6)


def test_bernstein_on_worked_numbers() -> None:
    """0, 0, 1, 1 a thousand times: V = 0.25·4000/3999, L = ln(4/0.05) = 4.3820266; √(2·V·L/4000) + 7·L/11997
    = 0.0234071 + 0.0025568 in [0, 1]. With four of them the bounds are the range."""
    values = np.array([0.0, 0.0, 1.0, 1.0] * 1_000)
    assert statistics.bernstein_interval(values, 0.0, 1.0) == pytest.approx((0.5, 0.4740361, 0.5259639), abs=1e-6)
    assert statistics.bernstein_interval(values[:4], -0.5, 1.5) == (0.5, -0.5, 1.5)
    wide = statistics.bernstein_interval(values, -3.0, 2.0)
    assert wide.high - wide.value == pytest.approx(0.0234071 + 5 * 0.0025568, abs=1e-6)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [1.0, np.inf]])
def test_too_little_evidence_is_refused(values: list[float]) -> None:
    for interval in (statistics.normal_interval, statistics.student_interval):
        with pytest.raises(EvidenceError, match="two finite values"):
            interval(np.array(values))
    with pytest.raises(EvidenceError, match="do not lie in"):
        statistics.bernstein_interval(np.array([0.0, 2.0]), 0.0, 1.0)


def test_student_covers_at_five_values_where_the_normal_interval_does_not() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(4_000, 5))
    student = np.array([statistics.student_interval(row) for row in draws])
    normal = np.array([statistics.normal_interval(row) for row in draws])
    assert abs(covered(student[:, 1], student[:, 2], 3.0) - 0.95) <= slack(0.95, 4_000)
    assert covered(normal[:, 1], normal[:, 2], 3.0) < 0.9


def test_bernstein_covers_rare_rewards() -> None:
    """100 rewards of rate 2 %: the normal interval misses far more than 5 % (all zeros), this one does not."""
    draws = (np.random.default_rng(1).random((4_000, 100)) < 0.02).astype(float)
    bounds = np.array([statistics.bernstein_interval(row, 0.0, 1.0) for row in draws])
    plain = np.array([statistics.normal_interval(row) for row in draws])
    assert covered(bounds[:, 1], bounds[:, 2], 0.02) >= 0.95 - slack(0.95, 4_000)
    assert covered(plain[:, 1], plain[:, 2], 0.02) < 0.9


def test_bootstrap_by_user_covers_where_events_are_alike_within_users() -> None:
    """60 users with 1 to 40 events at a rate of their own: by user 95 % (a percentile interval may lose 3), by event
    far less."""
    rng = np.random.default_rng(2)
    by_user, by_event = [], []
    for s in range(400):
        counts = rng.integers(1, 41, 60).astype(float)
        totals = rng.binomial(counts.astype(int), rng.beta(1, 3, 60)).astype(float)
        by_user.append(statistics.bootstrap_interval(totals, counts, 300, s))
        events = np.repeat([1.0, 0.0], [int(totals.sum()), int((counts - totals).sum())])
        by_event.append(statistics.normal_interval(events))
    users, events_ = np.array(by_user), np.array(by_event)
    assert covered(users[:, 1], users[:, 2], 0.25) >= 0.92 - slack(0.92, 400)
    assert covered(events_[:, 1], events_[:, 2], 0.25) < 0.7
    assert statistics.bootstrap_interval(totals, counts, 300, 7) == statistics.bootstrap_interval(
        totals, counts, 300, 7
    )


def test_sequence_width_on_worked_numbers() -> None:
    """n = 3, ρ = 1, s = 1, alpha = 0.05: √(2·4·ln(2/0.05))/3 = √29.51104/3 = 1.810803; one side ln(1 + 2/0.1)."""
    assert statistics.sequence_half_width(3, 1.0, 0.05, 1.0) == pytest.approx(np.sqrt(8 * np.log(40)) / 3)
    assert statistics.sequence_half_width(3, 1.0, 0.05, 1.0) == pytest.approx(1.810803, rel=1e-6)
    assert statistics.sequence_lower_width(3, 1.0, 0.05, 1.0) == pytest.approx(np.sqrt(8 * np.log(21)) / 3)
    assert statistics.sequence_half_width(3, 2.0, 0.05, 1.0) == pytest.approx(2 * 1.810803, rel=1e-6)


@pytest.mark.parametrize(("users", "alpha"), [(50, 0.05), (10_000, 0.05), (30_000, 0.01)])
def test_the_tuned_scale_is_the_best_one(users: float, alpha: float) -> None:
    def width(log_rho: float) -> float:
        return float(statistics.sequence_half_width(users, 1.0, alpha, np.exp(log_rho)))

    best = optimize.minimize_scalar(width, bounds=(-12, 2), method="bounded", options={"xatol": 1e-10})
    assert statistics.tuned_rho(users, alpha) == pytest.approx(np.exp(best.x), rel=1e-4)


def test_running_bounds_are_those_of_each_look() -> None:
    values = 1e6 + np.random.default_rng(3).normal(size=50)
    mean, low, high = statistics.confidence_sequence(values, 0.05, 0.3)
    assert (low[0], high[0]) == (-np.inf, np.inf)
    for n in (2, 10, 50):
        half = statistics.sequence_half_width(n, values[:n].std(ddof=1), 0.05, 0.3)
        assert mean[n - 1] == pytest.approx(values[:n].mean(), rel=1e-12)
        assert high[n - 1] - low[n - 1] == pytest.approx(2 * half, rel=1e-6)


def clicks(rng: np.random.Generator, simulations: int, users: int, lift: float = 0.0) -> np.ndarray:
    """Per-user difference scores: 20 events a user, rates between users, assigned to old or new by a coin."""
    rate = np.clip(rng.beta(2, 38, (simulations, users)), 0, 1)
    new = rng.random((simulations, users)) < 0.5
    totals = rng.binomial(20, np.clip(rate * np.where(new, 1 + lift, 1.0), 0, 1))
    return np.where(new, 2.0, -2.0) * (totals - 1.0)


def test_a_look_after_every_user_keeps_the_error_rate() -> None:
    """No difference, looks from the 100th to the 3,000th user: the sequence errs in at most 5 %, a repeated
    normal interval in more than 20 %."""
    scores = clicks(np.random.default_rng(4), 600, 3_000)
    rho = statistics.tuned_rho(1_000, 0.05)
    wrong = naive = 0
    for row in scores:
        mean, low, high = statistics.confidence_sequence(row, 0.05, rho)
        wrong += bool(((low > 0) | (high < 0))[99:].any())
        half = (high - mean) / statistics.sequence_half_width(np.arange(1.0, 3_001), 1.0, 0.05, rho)
        naive += bool((np.abs(mean) > 1.96 * half / np.sqrt(np.arange(1, 3_001)))[99:].any())
    assert wrong / 600 <= 0.05 + slack(0.05, 600)
    assert naive / 600 > 0.2


def test_the_sequence_sees_a_lift() -> None:
    """+40 % on a rate of 5 % with 6,000 users in order: found in nearly all runs."""
    rho = statistics.tuned_rho(3_000, 0.05)
    found = [
        bool((statistics.confidence_sequence(row, 0.05, rho)[1] > 0)[99:].any())
        for row in clicks(np.random.default_rng(5), 60, 6_000, 0.4)
    ]
    assert np.mean(found) >= 0.9


def test_e_value_of_a_mean_is_the_mixture_integral() -> None:
    """∫ 2·φ(λ; 0, ρ²)·exp(λS − nλ²/2) dλ over λ > 0, by quadrature."""
    for mean, n, rho in ((0.3, 20, 0.5), (-0.2, 50, 0.1), (0.0, 5, 1.0)):
        value, _ = integrate.quad(
            lambda x, s=n * mean, n=n, rho=rho: 2 * stats.norm.pdf(x, 0, rho) * np.exp(x * s - n * x * x / 2),
            0,
            20 * rho,
        )
        assert statistics.sequence_e_value(mean * 3, 3.0, n, rho) == pytest.approx(value, rel=1e-8)
    assert statistics.sequence_e_value(1.0, 0.0, 9, 1.0) == 1.0
    assert np.isfinite(statistics.sequence_e_value(1e9, 1.0, 10_000, 1.0))


@given(st.integers(2, 100_000), st.floats(1e-3, 3.0), st.floats(0.001, 0.3))
@settings(max_examples=200, deadline=None)
def test_the_one_sided_sequence_is_backed_by_the_e_value(n: int, rho: float, alpha: float) -> None:
    """At the one-sided bound Φ·(1/alpha + 2/√m) lies in [1/alpha, 1/alpha + 2/√m], m = nρ² + 1."""
    at_bound = statistics.sequence_e_value(float(statistics.sequence_lower_width(n, 1.0, alpha, rho)), 1.0, n, rho)
    assert (1 - 1e-9) / alpha <= at_bound <= 1 / alpha + 2 / np.sqrt(n * rho**2 + 1)
    assert statistics.sequence_lower_width(n, 1.0, alpha, rho) < statistics.sequence_half_width(n, 1.0, alpha, rho)


def test_e_values_of_means_rarely_exceed_their_bound() -> None:
    """Under no difference the chance of ever reaching 20 after the 100th user is at most 1/20."""
    rho, hits = statistics.tuned_rho(1_000, 0.05), 0
    looks = np.arange(100, 2_001, 20)
    for row in clicks(np.random.default_rng(6), 400, 2_000):
        values = [statistics.sequence_e_value(row[:n].mean(), row[:n].std(ddof=1), n, rho) for n in looks.tolist()]
        hits += max(values) >= 20
    assert hits / 400 <= 0.05 + slack(0.05, 400)


def test_e_benjamini_hochberg_on_worked_numbers() -> None:
    """Four e-values at alpha 0.1: k·e₍k₎ must reach 40. 30, 25, 13, 2 give 30, 50, 39, 8: two are rejected."""
    rejected = statistics.e_benjamini_hochberg(np.array([2.0, 25.0, 13.0, 30.0]), 0.1)
    assert rejected.tolist() == [False, True, False, True]
    assert statistics.e_benjamini_hochberg(np.array([2.0, 25.0, 13.4, 30.0]), 0.1).tolist() == [False, True, True, True]
    assert not statistics.e_benjamini_hochberg(np.array([9.0]), 0.1).any()
    assert statistics.e_benjamini_hochberg(np.zeros(0), 0.1).shape == (0,)


def test_false_discoveries_stay_below_alpha_even_when_tests_depend() -> None:
    """40 true nulls share one draw, 10 are false; likelihood ratios of a shift of 3: mean false share <= 0.1."""
    rng, shares = np.random.default_rng(7), []
    for _ in range(2_000):
        z = np.append(np.full(40, rng.normal()), rng.normal(3.0, 1.0, 10))
        rejected = statistics.e_benjamini_hochberg(np.exp(3 * z - 4.5), 0.1)
        shares.append(rejected[:40].sum() / max(rejected.sum(), 1))
    assert np.mean(shares) <= 0.1 + slack(0.1, 2_000)


def test_sample_ratio_on_worked_numbers() -> None:
    """Two equal arms and a uniform prior: s!(n − s)!/(n + 1)!·2ⁿ; three users in one arm give 3!/4!·8 = 2."""
    half = np.array([0.5, 0.5])
    assert statistics.sample_ratio_e_value(np.array([3, 0]), half, 2.0) == pytest.approx(2.0)
    assert statistics.sample_ratio_e_value(np.array([0, 0]), half, 2.0) == pytest.approx(1.0)
    found = statistics.sample_ratio_e_value(np.array([7, 4]), half, 2.0)
    assert found == pytest.approx(factorial(7) * factorial(4) / factorial(12) * 2**11)
    with pytest.raises(EvidenceError, match="sum to 1"):
        statistics.sample_ratio_e_value(np.array([1, 1]), np.array([0.5, 0.6]))


@given(st.floats(0.05, 0.95), st.integers(0, 12), st.floats(1.0, 200.0))
@settings(max_examples=50, deadline=None)
def test_sample_ratio_evidence_has_mean_one_when_the_shares_are_right(
    share: float, n: int, concentration: float
) -> None:
    shares = np.array([share, 1 - share])
    mean = sum(
        comb(n, s) * share**s * (1 - share) ** (n - s)
        * statistics.sample_ratio_e_value(np.array([s, n - s]), shares, concentration)
        for s in range(n + 1)
    )  # fmt: skip
    assert mean == pytest.approx(1.0)


def test_sample_ratio_evidence_of_three_arms_has_mean_one() -> None:
    shares, mean = np.array([0.2, 0.3, 0.5]), 0.0
    for draws in product(range(3), repeat=5):
        counts = np.bincount(draws, minlength=3)
        mean += float(np.prod(shares[list(draws)])) * statistics.sample_ratio_e_value(counts, shares, 10.0)
    assert mean == pytest.approx(1.0)


def test_sample_ratio_alarms_are_rare_when_right_and_sure_when_wrong() -> None:
    """A look after every 25 of 5,000 users at 1/alpha = 100; then 55 : 45 instead of 50 : 50."""
    rng, half = np.random.default_rng(8), np.array([0.5, 0.5])

    def alarm(share: float) -> bool:
        new = np.cumsum(rng.random(5_000) < share)[24::25]
        users = np.arange(25, 5_001, 25)
        return any(
            statistics.sample_ratio_e_value(np.array([s, n - s]), half) >= 100 for s, n in zip(new, users, strict=True)
        )

    assert np.mean([alarm(0.5) for _ in range(200)]) <= 0.01 + slack(0.01, 200)
    assert np.mean([alarm(0.55) for _ in range(50)]) >= 0.95
