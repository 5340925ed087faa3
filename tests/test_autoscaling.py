"""The scaling rule on time lines worked out by hand."""

import math
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from serve.autoscaling import Memory, Policy, Signals, wanted


def line(*looks: tuple[float, Signals], replicas: int = 1, most: int = 10, target_p95_ms: float = 100.0) -> list[int]:
    """The number of replicas after each (time, signals), one by one."""
    memory, numbers = Memory(), []
    for now, signals in looks:
        replicas, memory = wanted(signals, replicas, 1, most, now, memory, target_p95_ms)
        numbers.append(replicas)
    return numbers


def test_up_at_once_to_load_over_target() -> None:
    assert line((0.0, Signals(33.0))) == [5]  # 33 / 8 = 4.1


def test_never_outside_the_bounds() -> None:
    assert wanted(Signals(1_000.0), 1, 1, 4, 0.0, Memory())[0] == 4
    assert wanted(Signals(0.0), 3, 2, 4, 100.0, Memory(((0.0, 1), (60.0, 1))))[0] == 2
    assert wanted(Signals(0.0), 9, 1, 4, 0.0, Memory())[0] == 4  # the bound came down below what there is


def test_down_only_after_a_whole_window_of_less_and_to_its_greatest_need() -> None:
    loads = [(0, 40), (10, 8), (20, 24), (29, 8), (30, 8), (39, 8), (40, 8), (50, 8), (51, 8), (61, 8)]
    #  0: need 5. Until 29 the window is not full. At 30 it holds needs 5, 1, 3, 1, 1; from 40 on 3 is the most; the
    #  look at 20 (need 3) stays as the one from before the window until the look at 29 is 30 s old.
    assert line(*((float(at), Signals(load)) for at, load in loads), replicas=5) == [5, 5, 5, 5, 5, 5, 3, 3, 3, 1]


def test_slow_calls_add_one_replica_at_a_time_and_see_what_it_does() -> None:
    slow = Signals(load=6.0, p95_ms=180.0)
    # A step at 0, the next when 20 s have settled it. At 50 calls are quick enough, but above 75 ms none is given up.
    # From 60 on the need is 1; at 80 the window still begins with the 3 of 50, at 91 it begins with the 1 of 60.
    quick, easy = Signals(load=6.0, p95_ms=80.0), Signals(load=6.0, p95_ms=60.0)
    looks = [(0, slow), (10, slow), (19, slow), (20, slow), (30, slow), (50, quick), (60, easy), (80, easy), (91, easy)]
    assert line(*((float(at), signals) for at, signals in looks)) == [2, 2, 2, 3, 3, 3, 3, 3, 1]


def test_slow_calls_with_idle_replicas_are_not_for_want_of_replicas() -> None:
    assert line((0.0, Signals(load=0.9, p95_ms=5_000.0))) == [1]
    assert line((0.0, Signals(load=1.0, p95_ms=5_000.0))) == [2]
    assert line((0.0, Signals(load=1.0, p95_ms=5_000.0)), replicas=2) == [2]


def test_a_learner_far_behind_is_not_given_more_to_learn_for_latency_but_a_queue_is_served() -> None:
    behind = Signals(load=7.0, p95_ms=500.0, lag_s=31.0)
    assert line((0.0, behind), (25.0, Signals(7.0, 500.0, 30.0))) == [1, 2]
    assert line((0.0, Signals(load=20.0, p95_ms=500.0, lag_s=31.0))) == [3]


def test_without_a_target_latency_counts_for_nothing() -> None:
    assert line((0.0, Signals(7.0, 9_999.0)), target_p95_ms=math.inf) == [1]


@given(
    st.lists(
        st.tuples(st.floats(0.1, 20), st.floats(0, 200), st.floats(0, 300), st.sampled_from([0.0, 60.0])), max_size=60
    ),
    st.integers(1, 3),
    st.integers(3, 9),
)
def test_always_within_bounds_never_below_the_queues_need_and_by_one_for_latency(
    steps: list[tuple[float, float, float, float]], least: int, most: int
) -> None:
    now, replicas, memory = 0.0, least, Memory()
    for wait, load, p95_ms, lag_s in steps:
        now += wait
        before = replicas
        replicas, memory = wanted(Signals(load, p95_ms, lag_s), replicas, least, most, now, memory, 100.0)
        assert least <= replicas <= most
        assert replicas >= min(most, load / 8.0)
        assert replicas <= max(before + 1, math.ceil(load / 8.0), least)
        assert len(memory.looks) <= 302  # at most one look each tenth of a second


def test_the_policy_reads_what_replicas_report() -> None:
    context = SimpleNamespace(
        aggregated_metrics={"contexts_in_work": {"a": 30.0, "b": 10.0}},
        total_num_requests=2.0,
        target_num_replicas=2,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=9,
        current_time=5.0,
        policy_state={},
    )
    policy = Policy(target_p95_ms=100.0)
    assert policy(context) == (5, {"memory": Memory(((5.0, 5),))})
    context.aggregated_metrics = {"contexts_in_work": {"a": 1.0, "b": 1.0}, "p95_ms": {"a": 20.0, "b": 130.0}}
    assert policy(context)[0] == 3  # the slower replica counts
    context.aggregated_metrics["lag_s"] = {"a": 100.0, "b": 0.0}
    assert policy(context)[0] == 2
    context.aggregated_metrics = {}
    assert policy(context)[0] == 2  # need 1, but the window has just begun
