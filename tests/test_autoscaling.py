"""The scaling rule, worked out by hand."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from serve.autoscaling import policy, wanted


def test_up_at_once_to_load_over_target() -> None:
    assert wanted(33.0, 1, 1, 10, now=0.0, looks=[], target=8.0)[0] == 5  # 33 / 8 = 4.1


def test_never_outside_the_bounds() -> None:
    assert wanted(1_000.0, 1, 1, 4, now=0.0, looks=[])[0] == 4
    assert wanted(0.0, 3, 2, 4, now=100.0, looks=[(0.0, 1), (60.0, 1)])[0] == 2


def test_down_only_after_a_whole_window_of_less_and_to_its_greatest_need() -> None:
    looks: list[tuple[float, int]] = []
    replicas = 5
    seen = []
    for now, load in [(0, 40), (10, 8), (20, 24), (29, 8), (30, 8), (39, 8), (40, 8), (50, 8), (51, 8), (61, 8)]:
        replicas, looks = wanted(load, replicas, 1, 10, float(now), looks, target=8.0, down_after_s=30.0)
        seen.append(replicas)
    #  0: need 5. Until 29 the window is not full. At 30 it holds needs 5, 1, 3, 1, 1; from 40 on 3 is the most; the
    #  look at 20 (need 3) stays as the one from before the window until the look at 29 is 30 s old.
    assert seen == [5, 5, 5, 5, 5, 5, 3, 3, 3, 1]


@given(
    st.lists(st.tuples(st.floats(0.1, 20), st.floats(0, 200)), max_size=60),
    st.integers(1, 3),
    st.integers(3, 9),
)
def test_always_within_bounds_and_never_below_the_need(steps: list[tuple[float, float]], least: int, most: int) -> None:
    now, replicas, looks = 0.0, least, []
    for wait, load in steps:
        now += wait
        replicas, looks = wanted(load, replicas, least, most, now, looks)
        assert least <= replicas <= most
        assert replicas >= min(most, load / 8.0)


def test_the_policy_reads_the_replicas_own_count_first() -> None:
    context = SimpleNamespace(
        aggregated_metrics={"contexts_in_work": {"a": 30.0, "b": 10.0}},
        total_num_requests=2.0,
        target_num_replicas=2,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=9,
        current_time=5.0,
        policy_state={},
    )
    assert policy(context) == (5, {"looks": [(5.0, 5)]})
    context.aggregated_metrics = {}
    assert policy(context)[0] == 2  # need 1, but the window has just begun
