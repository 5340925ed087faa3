"""Figures of a drive against numbers worked out by hand, and intervals by their coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tune import results
from tune.results import Played


def played(rewards: list[float], expected: list[float] | None = None) -> Played:
    n = len(rewards)
    return Played(["a"] * n, np.array(rewards), np.array(expected or rewards), np.full(n, 0.5))


def test_a_figure_by_hand() -> None:
    """Users earn 1 of 2 and 2 of 2: 3/4; residuals −0.5 and 0.5; error √(2/1 · 0.5)/4 = 0.25; t(1 df) = 12.7062."""
    found = results.figure(np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 1, 1]))
    assert found.per_1000 == pytest.approx(750)
    assert found.low == pytest.approx(750 - 250 * 12.7062, rel=1e-5)
    assert found.high == pytest.approx(750 + 250 * 12.7062, rel=1e-5)


def test_one_user_allows_no_interval() -> None:
    assert results.figure(np.array([1.0, 0.0]), np.array([4, 4])).interval == [None, None]
    assert results.figure(np.array([]), np.array([], np.int64)).per_1000 == 0


def test_a_difference_is_paired() -> None:
    """Two policies that earn the same in every situation differ by nothing, with certainty."""
    user_N = np.array([0, 1, 2, 0, 1, 2])
    same = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    found = results.differences(
        {"ensemble": played(same), "uniform": played(same), "best_predefined": played([0.0] * 6)}, user_N
    )
    assert found["uniform"]["reward_per_1000"] == 0
    assert found["uniform"]["interval"] == [0, 0]
    assert found["best_predefined"]["reward_per_1000"] == pytest.approx(1000 * 4 / 6)
    assert set(found) == {"uniform", "best_predefined"}


def test_intervals_by_user_cover_where_those_by_event_would_not() -> None:
    """400 repeats, 40 users of 25 equal rewards each: 95 % intervals miss 20 times; 35 or more, once in 10^3."""
    rng = np.random.default_rng(0)
    user_N = np.repeat(np.arange(40), 25)
    missed = 0
    for _ in range(400):
        values = np.repeat(rng.random(40) < 0.5, 25).astype(float)
        found = results.figure(values, user_N)
        assert found.low is not None
        assert found.high is not None
        missed += not found.low <= 500 <= found.high
    assert missed < 35


def test_a_curve_is_the_mean_of_prefixes() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    found = results.curve(values, np.arange(6), points=3)
    assert found["decisions"] == [2, 4, 6]
    assert found["mean"] == pytest.approx([500, 500, 4000 / 6])
    assert results.curve(values[:1], np.zeros(1, np.int64), points=10)["decisions"] == [1]
    assert results.curve(values[:0], np.zeros(0, np.int64))["mean"] == []


def test_generated_weight_is_a_mean_over_decisions() -> None:
    models = [{"linear": 0.2, "generated/a": 0.8}, {"linear": 1.0, "generated/a": 0.0}]
    assert results.generated_weight(models, ["generated/a"]) == pytest.approx(0.4)
    assert results.generated_weight(models, []) == 0
    assert results.generated_weight([], ["generated/a"]) == 0


def test_weights_over_time_by_hand() -> None:
    models = [{"x": 1.0, "y": 0.0}, {"x": 0.5, "y": 0.5}, {"x": 0.0, "y": 1.0}]
    found = results.weights_over_time(models, np.array([0.0, 1.0, 10.0]), ["x", "y"], points=5)
    assert found["seconds"] == [1.0, 9.0]
    assert found["weights"] == [[0.75, 0.25], [0.0, 1.0]]


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1)), min_size=1, max_size=60),
    st.floats(-3, 3),
    st.floats(0.1, 5),
)
def test_figures_move_with_the_reward(rows: list[tuple[int, float]], shift: float, scale: float) -> None:
    """A reward in other units has the same figures in those units."""
    user_N, value_N = np.array([u for u, _ in rows]), np.array([v for _, v in rows])
    before, after = results.figure(value_N, user_N), results.figure(shift + scale * value_N, user_N)
    assert after.per_1000 == pytest.approx(1000 * shift + scale * before.per_1000, abs=1e-6)
    if before.low is not None and before.high is not None:
        assert after.high is not None
        assert after.low is not None
        assert after.high - after.low == pytest.approx(scale * (before.high - before.low), abs=1e-5)


def test_a_summary_has_realised_and_expected_reward() -> None:
    found = results.summary({"uniform": played([1.0, 0.0], [0.6, 0.2])}, np.array([0, 1]))
    assert found["uniform"]["reward_per_1000"] == pytest.approx(500)
    assert found["uniform"]["expected_per_1000"] == pytest.approx(400)
