"""Drift on planted streams: what moved is told, and what only looks like it is not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cluster.config import DriftSettings
from tune.drift.detect import Found, detect
from tune.drift.stream import Stream

DAYS, EVENTS, USERS, D = 42.0, 9_000, 900, 6
CHANGE = 0.6
"""Share of the time after which planted changes begin."""


def stream(seed: int, weekend: float = 0.0, effect: float = 0.08, **moved: Any) -> Stream:
    """Clicks with P = 0.25 + θᵀφ + the user's own taste + weekend.

    moved: from CHANGE on, `level` adds to P, `turned` turns the first so many of θ, `choices` makes half of φ follow θ
    as a policy that learned would, `context` shifts what contexts say.
    """
    rng = np.random.default_rng(seed)
    user_N = rng.choice(USERS, EVENTS, p=stats.zipf.pmf(np.arange(1, USERS + 1), 1.5) ** 0.4 / _norm())
    share_N = np.sort(rng.random(EVENTS))
    second_N = DAYS * 86_400 * share_N
    late_N = share_N >= CHANGE
    theta_D = 0.08 * rng.standard_normal(D)
    theta_D[0] = 0.0
    phi_ND = rng.choice([-1.0, 1.0], (EVENTS, D))
    phi_ND[:, 0] = 1.0
    if moved.get("choices"):
        follows_N = late_N & (rng.random(EVENTS) < 0.5)
        phi_ND[follows_N, 1:] = np.sign(theta_D[1:])
    turned_D = np.where(np.arange(D) < moved.get("turned", 0), -theta_D, theta_D)
    turned_ND = np.where(late_N[:, None], turned_D, theta_D)
    taste_U = effect * rng.standard_normal(USERS)
    day_N = np.asarray(second_N // 86_400 % 7, np.int64)
    chance_N = 0.25 + (turned_ND * phi_ND).sum(axis=1) + taste_U[user_N] + weekend * (day_N >= 5)
    chance_N = np.clip(chance_N + moved.get("level", 0.0) * late_N, 0.01, 0.99)
    context_NX = rng.standard_normal((EVENTS, 4)) + moved.get("context", 0.0) * late_N[:, None] * np.eye(4)[2]
    context_NX[:, 0] = day_N >= 5
    reward_N = (rng.random(EVENTS) < chance_N).astype(float)
    half_N = rng.integers(2, size=USERS)[user_N]
    return Stream(phi_ND, np.zeros(EVENTS, np.int64), context_NX, reward_N, user_N, half_N, second_N, 1)


def _norm() -> float:
    return float((stats.zipf.pmf(np.arange(1, USERS + 1), 1.5) ** 0.4).sum())


def found(**moved: Any) -> Found:
    return detect(stream(1, **moved), DriftSettings())


@pytest.mark.parametrize(
    ("moved", "signal"),
    [({"level": -0.12}, "down"), ({"level": 0.15}, "up"), ({"turned": D}, "shape"), ({"context": 0.6}, "context")],
)
def test_what_moved_is_told_and_when(moved: dict[str, Any], signal: str) -> None:
    drift = found(**moved).drift
    assert drift is not None
    assert drift.signal == signal
    assert drift.turned == (signal == "shape")
    at_s, day_s = CHANGE * DAYS * 86_400, 86_400
    assert at_s < drift.alarm_s < at_s + 7 * day_s
    assert abs(drift.since_s - at_s) < 4 * day_s
    assert drift.first_s <= drift.since_s <= drift.last_s <= drift.alarm_s


def test_a_turn_of_some_choices_is_one() -> None:
    """Three of five features say the opposite, two what they said."""
    drift = found(turned=4).drift
    assert drift is not None
    assert drift.turned


@pytest.mark.parametrize("usual", [{"choices": True}, {"weekend": 0.15}])
def test_choices_that_moved_and_weekends_are_no_drift(usual: dict[str, Any]) -> None:
    """What is chosen, and so what it earns, changes as a policy learns; and weekends come again."""
    assert found(**usual).drift is None


def test_false_alarms_on_streams_without_a_change() -> None:
    """24 years of traffic (as many starts as 24 streams of six weeks, at α such that a year's share is 0.05).

    Users differ (standard deviation 0.08 of a click rate of 0.25), and come often. At the stated rate, more than 4
    of 24 alarm with a probability below 0.01.
    """
    alpha = 0.05 * 365.25 / DAYS
    alarms = sum(detect(stream(seed), DriftSettings(alpha=alpha)).drift is not None for seed in range(24))
    assert alarms <= stats.binom.isf(0.01, 24, 0.05)


def test_rare_rewards_raise_no_alarm() -> None:
    """One reward in 200: many a block has none, which must not look like certainty."""
    rng = np.random.default_rng(3)
    rare = replace(stream(2), reward_N=(rng.random(EVENTS) < 0.005).astype(float))
    assert detect(rare, DriftSettings()).drift is None


def test_asking_again_later_is_no_second_look() -> None:
    """The evidence of a longer stream begins with that of a shorter one, to the bit."""
    whole = stream(5)
    long, short = detect(whole, DriftSettings()), detect(whole.take(slice(0, 6_000)), DriftSettings())
    n = len(short.second_T)
    assert 10 < n < len(long.second_T)
    np.testing.assert_array_equal(short.z_TS, long.z_TS[:n])
    np.testing.assert_array_equal(short.log_evidence_T, long.log_evidence_T[:n])


def test_parameters_per_item() -> None:
    """With arms, an item that lost what it earned is told; the others' posteriors do not move."""
    plain = stream(7)
    rng = np.random.default_rng(7)
    arm_N = rng.integers(5, size=EVENTS)
    late_N = plain.second_N >= CHANGE * DAYS * 86_400
    chance_N = np.where(late_N, 0.1 + 0.08 * (4 - arm_N), 0.1 + 0.08 * arm_N)  # the same on the whole
    reward_N = (rng.random(EVENTS) < chance_N).astype(float)
    arms = replace(plain, phi_ND=np.ones((EVENTS, 1)), arm_N=arm_N, reward_N=reward_N, arms=6)
    drift = detect(arms, DriftSettings()).drift
    assert drift is not None
    assert drift.signal == "shape"


def test_too_short_a_stream_has_no_look() -> None:
    short = detect(stream(1).take(slice(0, 900)), DriftSettings())
    assert short.drift is None
    assert len(short.second_T) == 0
    assert short.facts()["looks"] == 0
