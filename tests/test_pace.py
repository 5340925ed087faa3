"""Where a decision is made, by hand-made time lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.decisions.pace import TRY_AGAIN_S, Pace, Stopwatch


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_not_known_goes_beside_and_what_is_short_stays_here() -> None:
    pace = Pace(Clock())
    assert pace.way("shop", 100, 1, 250) == "beside"
    pace.took("shop", 100, 0.5)
    assert pace.way("shop", 100, 1, 250) == "here"
    assert pace.way("shop", 100, 100, 250) == "here"  # a few at a time:
    assert pace.at_once("shop", 100) == 10  # 5 ms
    assert pace.way("shop", 100, 501, 250) == "beside"  # would be late
    pace.took("slow", 100, 5.1)
    assert pace.way("slow", 100, 1, 250) == "beside"
    assert pace.at_once("slow", 100) == 1
    assert pace.way("other", 100, 1, 250) == "beside"
    assert pace.way("shop", 1_000, 1, 250) == "beside"
    assert pace.way("shop", 127, 1, 250) == "here"  # the same power of two


def test_a_shorter_time_is_believed_at_once_and_a_longer_one_by_and_by() -> None:
    pace = Pace(Clock())
    for ms, expected in ((4.0, 4.0), (1.0, 1.0), (11.0, 2.0), (12.0, 3.0)):  # 1 + 10 %·10, 2 + 10 %·10
        pace.took("shop", 8, ms)
        assert pace.expected_ms("shop", 8) == pytest.approx(expected)


def test_what_would_be_late_is_not_begun_and_now_and_then_tried() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.took("shop", 8, 300.0)
    assert pace.way("shop", 8, 1, 400) == "beside"
    ways = []
    for _ in range(40):
        ways.append(pace.way("shop", 8, 1, 250))
        clock.now += TRY_AGAIN_S / 8
    assert [i for i, way in enumerate(ways) if way == "beside"] == [0, 8, 16, 24, 32]
    assert set(ways) == {"not", "beside"}


def test_it_recovers_once_decisions_are_fast_again() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.took("shop", 8, 1_000.0)
    seconds = 0
    while pace.way("shop", 8, 1, 250) != "here":
        pace.took("shop", 8, 1.0)
        clock.now, seconds = clock.now + TRY_AGAIN_S, seconds + 1
    assert seconds == 1


def test_one_that_was_given_up_is_not_begun_again_at_once() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.took("shop", 8, 1.0)
    pace.missed("shop", 8, 250.0)
    assert pace.expected_ms("shop", 8) == 500.0
    assert pace.way("shop", 8, 1, 250) == "not"
    clock.now += TRY_AGAIN_S
    assert pace.way("shop", 8, 1, 250) == "beside"
    pace.missed("shop", 8, 10.0)
    assert pace.expected_ms("shop", 8) == 500.0


def test_what_was_given_up_once_is_not_held_against_the_next() -> None:
    """One hiccup: 500 ms is a guess, and the first time that is known takes its place."""
    clock = Clock()
    pace = Pace(clock)
    pace.took("shop", 8, 1.0)
    pace.missed("shop", 8, 250.0)
    pace.took("shop", 8, 1.0)
    assert pace.expected_ms("shop", 8) == 1.0
    assert pace.way("shop", 8, 1, 250) == "here"


@pytest.mark.parametrize(
    ("wall", "process", "own", "ms"),
    [
        (0.010, 0.008, 0.001, 3.0),  # other threads computed for 7 of 10 ms
        (0.050, 0.001, 0.001, 50.0),  # it slept
        (0.010, 0.030, 0.005, 5.0),  # others computed on other cores at the same time
    ],
)
def test_the_time_of_other_threads_is_not_counted(wall: float, process: float, own: float, ms: float) -> None:
    times = iter([(1.0, 2.0, 3.0), (1.0 + wall, 2.0 + process, 3.0 + own)])
    assert Stopwatch(lambda: next(times)).ms() == pytest.approx(ms)


def test_a_spent_budget_begins_nothing() -> None:
    assert Pace(Clock()).way("shop", 8, 1, 0.0) == "not"


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=30), st.integers(1, 1_000), st.floats(0.1, 1e4))
def test_nothing_long_stays_here_and_nothing_that_fits_is_refused(times: list[float], n: int, left_ms: float) -> None:
    pace = Pace(Clock())
    for ms in times:
        pace.took("shop", 8, ms)
    expected = pace.expected_ms("shop", 8) or 0
    way = pace.way("shop", 8, n, left_ms)
    assert min(times) * 0.999 <= expected <= max(times) * 1.001
    assert (way == "here") == (expected <= 5.0 and n * expected <= left_ms)
    assert way != "not" or n * expected > left_ms
    assert pace.at_once("shop", 8) * expected <= max(5.0, expected)


def test_the_least_recent_are_forgotten() -> None:
    pace = Pace(Clock())
    for n in range(5_000):
        pace.took(n, 8, 1.0)
    assert pace.expected_ms(0, 8) is None
    assert pace.expected_ms(4_999, 8) == 1.0
