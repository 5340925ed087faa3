"""Intervals of ratios: against loops and searches, and how often they hold the truth."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from benchmarks._simulated_logs import World
from benchmarks.estimators import study
from cluster import statistics
from tune.log import Log
from tune.offpolicy import intervals
from tune.offpolicy.estimate import estimate
from tune.offpolicy.totals import Sums, Totals


def sums_of(above: np.ndarray, below: np.ndarray, parameter: float | None = None) -> Sums:
    method = "ips" if parameter is None else "clipped_ips"
    return Sums(method, parameter, above, below, below, below, below, 1.0, 1.0)


def test_the_bootstrap_is_studentised() -> None:
    """Against a loop over as many resamples of its own: quantiles of 20,000 agree to a twentieth of the width."""
    rng = np.random.default_rng(0)
    below = rng.integers(1, 5, 40).astype(float)
    above = below * rng.beta(0.3, 2.0, 40)
    value = above.sum() / below.sum()

    def error(a: np.ndarray, b: np.ndarray) -> float:
        left = a - a.sum() / b.sum() * b
        return float(np.sqrt(40 / 39 * (left @ left)) / b.sum())

    student = []
    for _ in range(20_000):
        rows = rng.integers(0, 40, 40)
        student.append((above[rows].sum() / below[rows].sum() - value) / error(above[rows], below[rows]))
    low, high = np.quantile(student, [0.025, 0.975])
    least = stats.t.isf(0.025, 39)
    expected = value - error(above, below) * max(high, least), value + error(above, below) * max(-low, least)
    found = intervals.bootstrap(sums_of(above, below), 0.05, 20_000, 1)
    assert (found.low, found.high) == pytest.approx(expected, abs=(found.high - found.low) / 20)
    assert -low > least, "the skewed side goes further than Student's"


def test_users_that_do_not_differ_vouch_for_nothing() -> None:
    """No click at all, or one user."""
    assert intervals.bootstrap(sums_of(np.zeros(50), np.ones(50)), 0.05, 100, 0) == (0.0, 0.0, 1.0)
    assert intervals.bootstrap(sums_of(np.array([1.0]), np.array([4.0])), 0.05, 100, 0) == (0.25, 0.0, 1.0)
    assert intervals.sequence(sums_of(np.array([1.0]), np.array([4.0])), 0.05) == (0.25, 0.0, 1.0)


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.5), st.floats(0, 0.1))
@settings(max_examples=60, deadline=None)
def test_between_is_the_set_of_values_not_told_apart(seed: int, scale: float, slack: float) -> None:
    rng = np.random.default_rng(seed)
    below = rng.integers(1, 6, 12).astype(float)
    above = below * rng.random(12)
    low, high = intervals.between(above, below, scale, slack)
    for v in np.linspace(0, 1, 101):
        left = above - v * below
        held = abs(left.mean()) <= scale * left.std(ddof=1) + slack
        near = min(abs(v - low), abs(v - high)) < 1e-9
        assert near or held == (low <= v <= high)


def test_with_one_event_a_user_they_are_the_intervals_of_a_mean() -> None:
    rng = np.random.default_rng(3)
    values, ones = rng.random(400) * 0.5, np.ones(400)
    half = statistics.sequence_half_width(400, values.std(ddof=1), 0.05, statistics.tuned_rho(1_000, 0.05))
    found = intervals.sequence(sums_of(values, ones), 0.05)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half))
    expected = statistics.bernstein_interval(values, 0.0, 3.0)
    found = intervals.bernstein(sums_of(values, ones, parameter=3.0), 0.05)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_bernstein_takes_what_was_clipped_at_its_worst() -> None:
    """A policy that always takes what the log takes in one event of ten: clipped at 2, four fifths are missing. With
    many users the interval goes from 0.2 · 0.5 to that plus 0.8, and the reward may be anything in it."""
    n, rng = 40_000, np.random.default_rng(0)
    taken = (rng.random(n) < 0.1).astype(np.int64)
    log = Log(taken, (rng.random(n) < 0.5) * 1.0, np.where(taken, 0.1, 0.9), np.arange(n), np.ones((n, 2), bool))
    totals = Totals(["clipped_ips", "switch_dr"], {"clipped_ips": 2.0, "switch_dr": 2.0})
    totals.add(log.user_N, log, np.tile([0.0, 1.0], (n, 1)), np.full((n, 2), 0.5))
    found = estimate(totals, "clipped_ips", interval="bernstein")
    assert (found.low, found.high) == pytest.approx((0.1, 0.9), abs=0.02)
    assert found.low < 0.1
    assert found.high > 0.9
    switched = estimate(totals, "switch_dr", interval="bernstein")
    assert (switched.low, switched.high) == (0.0, 1.0), "all weights are above the switch"


def test_a_pair_is_its_difference() -> None:
    rng = np.random.default_rng(1)
    count = rng.integers(1, 5, 60).astype(float)
    one, other = sums_of(count * rng.random(60), count), sums_of(count * rng.random(60), count)
    found = intervals.paired(one, other, 0.05, 500, 2)
    value, error = statistics.ratio_error(one.above_U - other.above_U, count)
    assert found.value == pytest.approx(value)
    assert 0.999 < (found.high - found.value) / (stats.t.isf(0.025, 59) * error) < 1.2
    assert intervals.paired(one, one, 0.05, 500, 2) == (0.0, 0.0, 0.0)


def test_coverage_of_every_estimator_and_kind() -> None:
    """The study of benchmarks.estimators, 160 logs of 100 and 300 users. At 95 % coverage more than 17 misses have
    probability 0.001 (binomial) for each of the bootstrap's and the likelihood's; sequences and Bernstein promise more
    than that at one look. None at all, over the bootstrap's seven together, has less than 0.001."""
    misses: dict[tuple[str, str], int] = {}
    for found in study(160, (100, 300), resamples=300, seed=1):
        for trial in found:
            key = trial.found.method, trial.found.interval
            misses[key] = misses.get(key, 0) + (not trial.covered)
    assert len(misses) == 18
    for (_, kind), number in misses.items():
        assert number <= (17 if kind in ("bootstrap", "likelihood") else 5)
    assert sum(number for (_, kind), number in misses.items() if kind == "bootstrap") > 0


def test_rare_rewards_are_covered_where_percentiles_are_not() -> None:
    """200 logs of 60 users, one reward in 50, weights up to 9. At 95 % coverage more than 20 misses have probability
    0.001 (binomial); fewer than 20 have less than 0.001 at 80 % coverage, which is what percentiles have here."""
    misses = dict.fromkeys(("studentised", "likelihood", "percentile"), 0)
    for number in range(200):
        rng = np.random.default_rng([9, number])
        world = World.draw(rng, 0.02, 1.4)
        log, kind_N = world.log(rng, 60)
        totals = Totals(["ips", "cressie_read"])
        totals.add(log.user_N, log, world.policy_TK[kind_N])
        sums = totals.sums("ips")
        found = {
            "studentised": estimate(totals, "ips", resamples=300),
            "likelihood": estimate(totals, "cressie_read"),
            "percentile": statistics.bootstrap_interval(sums.above_U, sums.below_U, 300, number),
        }
        for name, interval in found.items():
            misses[name] += not interval.low <= world.truth <= interval.high
    assert misses["studentised"] <= 20 < misses["percentile"]
    assert misses["likelihood"] <= 20
