"""Differences to the log, paired by user, against an enumeration, another formula, and their coverage."""

import math

import numpy as np
import pytest

from cluster.statistics import confidence_sequence, tuned_rho
from tune.log import Log
from tune.offpolicy.intervals import TUNED_AT
from tune.offpolicy.totals import Totals
from tune.whatif.answers import Bounds, answer, on_policy


def totals(method: str, log: Log, policy_NK: np.ndarray, q_NK: np.ndarray | None = None) -> Totals:
    found = Totals([method])
    found.add(log.user_N, log, policy_NK, q_NK)
    return found


def log_of(action: list[int], reward: list[float], user: list[int], propensity: float = 0.5) -> Log:
    n = len(action)
    return Log(np.array(action), np.array(reward), np.full(n, propensity), np.array(user), np.ones((n, 2), bool))


LOG = log_of([0, 1, 0, 1, 0], [1.0, 0.0, 0.0, 1.0, 1.0], [0, 0, 1, 2, 2])
FIRST = np.array([[1.0, 0.0]] * 5)


def test_a_difference_worked_by_hand() -> None:
    """ρ = 2, 0, 2, 0, 2: ips (2 + 0 + 0 + 0 + 2)/5, snips 4/6; the log's mean is 3/5."""
    assert answer(totals("ips", LOG, FIRST), "ips", Bounds()).difference == pytest.approx(4 / 5 - 3 / 5)
    assert answer(totals("snips", LOG, FIRST), "snips", Bounds()).difference == pytest.approx(4 / 6 - 3 / 5)


def test_a_sequence_of_differences_is_that_of_the_means_of_users() -> None:
    """One event a user: the difference is the mean of ρr − r, whose sequence another function knows."""
    rng = np.random.default_rng(4)
    action_N = rng.integers(2, size=400)
    log = log_of(action_N.tolist(), rng.random(400).tolist(), list(range(400)))
    policy = np.tile([0.8, 0.2], (400, 1))
    values_N = (policy[0][action_N] / 0.5 - 1) * log.reward_N
    _, low_N, high_N = confidence_sequence(values_N, 0.05, tuned_rho(TUNED_AT, 0.05))
    found = answer(totals("ips", log, policy), "ips", Bounds("sequence"))
    assert (found.difference_low, found.difference_high) == pytest.approx((low_N[-1], high_N[-1]))


@pytest.mark.parametrize("method", ["ips", "snips"])
def test_the_logging_policy_differs_from_the_log_by_nothing(method: str) -> None:
    found = answer(totals(method, LOG, np.full((5, 2), 0.5)), method, Bounds())
    assert (found.difference, found.difference_low, found.difference_high) == (0.0, 0.0, 0.0)
    own = on_policy(totals(method, LOG, FIRST), Bounds())
    assert (own.value, own.events, own.users) == (0.6, 5, 3)
    assert (found.value, found.low, found.high) == pytest.approx((own.value, own.low, own.high))


def test_bernstein_has_no_interval_of_a_difference() -> None:
    found = Totals(["clipped_ips"], {"clipped_ips": 2.0})
    found.add(LOG.user_N, LOG, FIRST)
    told = answer(found, "clipped_ips", Bounds("bernstein"))
    assert told.difference == pytest.approx(0.2)
    assert math.isnan(told.difference_low)
    assert math.isnan(told.difference_high)


def test_where_nothing_is_claimed_there_is_no_difference() -> None:
    second = log_of([0, 0], [1.0, 0.0], [0, 1])
    found = answer(totals("ips", second, np.array([[0.0, 1.0]] * 2)), "ips", Bounds())
    assert math.isnan(found.value)
    assert math.isnan(found.difference)
    assert not found.supported
    assert "no support" in found.note


def test_a_difference_scales_without_the_least_reward() -> None:
    found = answer(totals("ips", LOG, FIRST), "ips", Bounds()).scaled(-1.0, 3.0)
    assert found.value == pytest.approx(-1 + 4 * 0.8)
    assert found.difference == pytest.approx(4 * 0.2)


def test_pairing_by_user_covers_and_is_narrower() -> None:
    """300 logs of users with rates of their own, a policy that is truly better by 0.06: of 300 intervals at 95 %, 271
    or fewer would hold the truth with probability below 0.001 (binomial) if the rate were 95 %."""
    held, narrower = 0, 0
    policy = np.array([0.8, 0.2])
    for seed in range(300):
        rng = np.random.default_rng(seed)
        users, each = 150, 6
        user_N = np.repeat(np.arange(users), each)
        rate_N = rng.uniform(0.1, 0.7, users)[user_N]
        action_N = rng.integers(2, size=users * each)
        reward_N = (rng.random(users * each) < rate_N + np.where(action_N == 0, 0.1, -0.1)).astype(float)
        log = log_of(action_N.tolist(), reward_N.tolist(), user_N.tolist())
        found = answer(totals("ips", log, np.tile(policy, (len(user_N), 1))), "ips", Bounds(resamples=300))
        held += found.difference_low <= 0.06 <= found.difference_high
        narrower += found.difference_high - found.difference_low < found.high - found.low
    assert held > 271
    assert narrower == 300
