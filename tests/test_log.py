import numpy as np
import pyarrow as pa
import pytest

from cluster import records
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tune import log


def events(**columns: list[object]) -> pa.Table:
    n = len(next(iter(columns.values())))
    values: dict[str, list[object]] = {
        "event_id": [f"e{i}" for i in range(n)],
        "timestamp": list(range(n)),
        "client_id": ["c"] * n,
    } | columns
    return pa.table(
        [
            pa.array(values[field.name], field.type) if field.name in values else pa.nulls(n, field.type)
            for field in records.EVENTS
        ],
        schema=records.EVENTS,
    )


def test_actions_are_columns_of_the_candidates_or_of_the_catalogue() -> None:
    table = events(
        item_id=["b", "b", "c"],
        candidates=[["c", "b"], None, ["c"]],
        reward=[4.0, None, 2.0],
        propensity=[0.5, 0.25, 1.0],
        user_id=["ann", "bob", "ann"],
    )
    found = log.read(table, ["a", "b", "c"], RewardKind(low=0, high=4, default=1))
    np.testing.assert_array_equal(found.action_N, [1, 1, 0])
    np.testing.assert_array_equal(found.reward_N, [1.0, 0.25, 0.5])
    np.testing.assert_array_equal(found.propensity_N, [0.5, 0.25, 1.0])
    np.testing.assert_array_equal(found.user_N, [0, 1, 0])
    np.testing.assert_array_equal(found.mask_NK, [[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    np.testing.assert_array_equal(log.read(chunked, ["a", "b", "c"], RewardKind(high=4)).action_N, found.action_N)


def test_one_missing_propensity_makes_the_log_one_without() -> None:
    table = events(item_id=["a", "a"], propensity=[0.5, None], reward=[1.0, 0.0])
    assert log.read(table, ["a"], RewardKind()).propensity_N is None


def test_a_candidate_that_is_listed_twice_is_refused_with_its_row() -> None:
    lists = [["a", "b"], None, ["b", "a", "b"], ["a", "a"]]
    table = events(item_id=["a"] * 4, candidates=lists, reward=[1.0] * 4)
    with pytest.raises(EvidenceError, match="event 2: candidate b is listed twice; list each item once"):
        log.read(table, ["a", "b"], RewardKind())
    assert len(log.read(table.slice(0, 2), ["a", "b"], RewardKind())) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_id": ["a", "z"]}, "event 1: action -1 is not among"),
        ({"propensity": [0.0, 0.5]}, "event 0: propensity 0.0 of a taken action"),
        ({"propensity": [0.5, float("nan")]}, "event 1: propensity nan"),
        ({"reward": [1.0, float("inf")]}, "event 1: reward inf"),
    ],
)
def test_bad_rows_are_named(change: dict[str, list[object]], message: str) -> None:
    good: dict[str, list[object]] = {"item_id": ["a", "b"], "reward": [0.0, 1.0], "propensity": [0.5, 0.5]}
    with pytest.raises(EvidenceError, match=message):
        log.read(events(**(good | change)), ["a", "b"], RewardKind())


def test_no_events_give_an_empty_log() -> None:
    empty = log.read(records.EVENTS.empty_table(), ["a"], RewardKind())
    assert len(empty) == 0
    assert empty.users == 0
    assert empty.propensity_N is None


def test_taking_rows_numbers_users_anew() -> None:
    table = events(item_id=["a"] * 3, user_id=["x", "y", "z"], reward=[0.0, 1.0, 0.0])
    part = log.read(table, ["a"], RewardKind()).take(np.array([2, 1]))
    np.testing.assert_array_equal(part.user_N, [0, 1])
    np.testing.assert_array_equal(part.reward_N, [0.0, 1.0])
