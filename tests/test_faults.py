from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest

from cluster.faults import Faults, event_faults, repeated, row_faults
from cluster.records import EVENTS, ITEMS, conform

NAN, INF = float("nan"), float("inf")
GOOD = {
    "event_id": "e0",
    "timestamp": datetime(2025, 1, 1, tzinfo=UTC),
    "client_id": "c",
    "item_id": "a",
    "candidates": ["a", "b"],
    "propensity": 0.5,
    "reward": 1.0,
}
CATALOGUE = conform(pa.table({"item_id": ["a", "b"]}), ITEMS, "items")


def reasons(*rows: dict[str, Any], items: pa.Table | None = None) -> list[str | None]:
    schema = pa.schema([field.with_nullable(True) for field in EVENTS])
    told = [GOOD | {"event_id": f"e{i}"} | row for i, row in enumerate(rows)]
    return list(event_faults(pa.Table.from_pylist(told, schema=schema), items).reason_N)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"event_id": None}, "event_id: expected a value, found none"),
        ({"timestamp": None}, "timestamp: expected a value, found none"),
        ({"item_id": None}, "item_id: expected a value, found none"),
        ({"reward": None}, "reward: expected a finite number, found none"),
        ({"reward": NAN}, "reward: expected a finite number, found nan"),
        ({"reward": -INF}, "reward: expected a finite number, found -inf"),
        ({"propensity": 0.0}, "propensity: expected above 0 and at most 1, found 0.0"),
        ({"propensity": 1.01}, "propensity: expected above 0 and at most 1, found 1.01"),
        ({"propensity": NAN}, "propensity: expected above 0 and at most 1, found nan"),
        ({"candidates": []}, "candidates: expected at least one item, found none"),
        ({"candidates": ["b"]}, "item_id: expected one of the candidates, found 'a'"),
        ({"candidates": ["a", None]}, "candidates: expected item ids, found null among them"),
        ({"candidates": ["a", "b", "a"]}, "candidates: expected each item once, found ['a', 'b', 'a']"),
        ({"item_id": "z", "candidates": None}, "item_id: expected an item of the catalogue, found 'z'"),
        ({"candidates": ["a", "z"]}, "candidates: expected items of the catalogue, found ['a', 'z']"),
    ],
)
def test_a_fault_is_told_and_its_neighbours_stand(fault: dict[str, Any], reason: str) -> None:
    assert reasons({}, fault, {}, items=CATALOGUE) == [None, reason, None]


@pytest.mark.parametrize("fine", [{"propensity": None}, {"propensity": 1.0}, {"candidates": None}, {"reward": -3.5}])
def test_what_the_contract_allows(fine: dict[str, Any]) -> None:
    assert reasons(fine, items=CATALOGUE) == [None]


def test_any_item_will_do_without_a_catalogue() -> None:
    assert reasons({"item_id": "z", "candidates": ["z"]}) == [None]


def test_the_first_of_equal_ids_stands() -> None:
    found = reasons({"event_id": "x"}, {"event_id": "x"}, {"event_id": "y"}, {"event_id": "x"})
    assert found == [
        None,
        *["event_id: expected once for each item and reward kind, found again, found 'x'"],
        None,
        found[3],
    ]
    assert found[3] is not None


def test_outcomes_of_one_decision_and_places_of_a_page_share_an_id() -> None:
    rows = [{"event_id": "x", "reward_kind": kind, "item_id": item} for kind in ("click", "purchase") for item in "ab"]
    assert reasons(*rows) == [None] * 4
    assert reasons(*rows, rows[0])[-1] is not None


def test_the_first_reason_stands() -> None:
    faults = Faults(2)
    faults.add([True, False], "one")
    faults.add([True, True], "two")
    assert list(faults.reason_N) == ["one", "two"]
    assert not faults.good_N.any()


def test_a_long_value_is_cut_in_the_reason() -> None:
    faults = Faults(1)
    faults.add([True], "text: expected less", pa.array(["x" * 1000]))
    assert len(faults.reason_N[0]) < 120


def test_nulls_do_not_repeat() -> None:
    assert repeated(pa.chunked_array([["a", None], ["a", None]])).tolist() == [False, False, True, False]


def test_items_with_the_same_id_or_no_price() -> None:
    table = pa.table({"item_id": ["a", "a", None, "b", "c", "d"], "price": [1.0, 1.0, 1.0, NAN, -1.0, None]})
    assert [r is None for r in row_faults(table, "item_id").reason_N] == [True, False, False, False, False, True]
