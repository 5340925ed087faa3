"""Rules on items against a plain reading of each item, and what they refuse."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import RequestError
from cluster.records import ITEMS, encode
from serve.decisions.columns import Columns, Part
from serve.decisions.eligible import eligible, open_at
from serve.messages import Condition

START = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b}


def columns(items: list[dict[str, Any]], more: list[dict[str, Any]] | None = None) -> Columns:
    made = Columns(Part(table(items)))
    for one in more or []:
        made = made.followed(table([one]))
    return made


def table(items: list[dict[str, Any]]) -> pa.Table:
    rows = [
        {"item_id": f"i{n}", **item, "attributes": encode(item.get("attributes", {}))} for n, item in enumerate(items)
    ]
    return pa.Table.from_pylist(rows, ITEMS)


def kept(found: Columns, *conditions: tuple[str, str, Any]) -> list[int]:
    rules = [Condition.model_validate({"field": field, "op": op, "value": value}) for field, op, value in conditions]
    return [int(row) for row in np.flatnonzero(eligible(found, rules, 0))]


def holds(item: dict[str, Any], field: str, op: str, value: Any) -> bool:
    """One condition, read from the item itself."""
    name = field.removeprefix("attributes.")
    has = (item.get("attributes", {}) if field.startswith("attributes.") else item).get(name)
    if field == "created_at":
        value = (
            [datetime.fromisoformat(one) for one in value] if isinstance(value, list) else datetime.fromisoformat(value)
        )
    if op in ORDER:
        number = has if not isinstance(has, str | bool | list) else None
        return number is not None and ORDER[op](number, value)
    values = value if isinstance(value, list) else [value]
    mine = has if isinstance(has, list) else [has]
    found = any(one == other and type(one) is type(other) for one in mine for other in values if one is not None)
    return found != (op in ("!=", "not_in"))


moments = st.integers(0, 3).map(lambda days: START + timedelta(days=days, microseconds=days))
texts = st.sampled_from(["red", "green", "", "1", "true"])
numbers = st.sampled_from([0.0, 1.0, 2.5, -3.0])
ITEM = st.fixed_dictionaries(
    {},
    optional={
        "category": texts,
        "price": numbers,
        "created_at": moments,
        "attributes": st.fixed_dictionaries(
            {},
            optional={
                "size": numbers,
                "tags": st.lists(texts, max_size=3),
                "sale": st.booleans(),
                "any": texts | numbers,
            },
        ),
    },
)


def condition(field: str, values: st.SearchStrategy[Any], ordered: bool) -> st.SearchStrategy[tuple[str, str, Any]]:
    one = st.tuples(st.just(field), st.sampled_from(["==", "!=", *(ORDER if ordered else ())]), values)
    many = st.tuples(st.just(field), st.sampled_from(["in", "not_in"]), st.lists(values, max_size=3))
    return one | many


CONDITION = (
    condition("category", texts, False)
    | condition("price", numbers, True)
    | condition("created_at", moments.map(datetime.isoformat), True)
    | condition("attributes.size", numbers, True)
    | condition("attributes.tags", texts, False)
    | condition("attributes.sale", st.booleans(), False)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(ITEM, min_size=1, max_size=8), st.lists(ITEM, max_size=3), st.lists(CONDITION, min_size=1, max_size=3))
def test_what_is_kept_is_what_each_item_says(items: list[Any], more: list[Any], conditions: list[Any]) -> None:
    whole = items + more
    expected = [n for n, item in enumerate(whole) if all(holds(item, *one) for one in conditions)]
    found = columns(items, more)
    assert kept(found, *conditions) == expected
    assert kept(found, *conditions) == expected  # from the masks that are kept


def test_texts_flags_and_numbers_are_not_the_same() -> None:
    values = [1, 1.0, True, "1", "true", ["1", "x"], None, 0, False]
    found = columns([{"attributes": {"a": value}} for value in values] + [{}])
    assert kept(found, ("attributes.a", "==", 1)) == [0, 1]
    assert kept(found, ("attributes.a", "==", True)) == [2]
    assert kept(found, ("attributes.a", "==", "1")) == [3, 5]
    assert kept(found, ("attributes.a", "in", ["true", 0])) == [4, 7]
    assert kept(found, ("attributes.a", "not_in", ["true", 0, 1, True])) == [3, 5, 6, 8, 9]
    assert kept(found, ("attributes.a", ">", 0.5)) == [0, 1]


def test_items_of_a_slice_keep_their_own_attributes() -> None:
    whole = table([{"attributes": {"n": n, "of": "all"}} for n in range(6)])
    found = Columns(Part(whole.slice(2, 3)))
    assert kept(found, ("attributes.n", ">=", 3)) == [1, 2]
    assert kept(found, ("attributes.of", "==", "all")) == [0, 1, 2]


def test_an_attribute_that_no_item_has_is_nothing_and_not_an_error() -> None:
    found = columns([{}, {"attributes": {"b": 1}}])
    assert kept(found, ("attributes.a", "==", "x")) == []
    assert kept(found, ("attributes.a", "!=", "x")) == [0, 1]
    assert kept(found, ("attributes.a", "<", 1)) == []


@pytest.mark.parametrize(
    ("rule", "place", "says"),
    [
        (("colour", "==", "red"), "field", "none of provider_id"),
        (("attributes.", "==", "red"), "field", "attributes.NAME"),
        (("image", "==", "red"), "field", "none of provider_id"),
        (("price", "==", "red"), "value", "price is a number, not a text"),
        (("price", "==", True), "value", "not a flag"),
        (("category", "==", 3), "value", "category is a text"),
        (("category", "<", "red"), "value", "compares numbers"),
        (("price", "in", 3), "value", "needs a list"),
        (("price", "==", [3]), "value", "no list"),
        (("attributes.size", "==", "large"), "value", "attributes.size is a number"),
        (("attributes.tags", "in", ["a", 3]), "value", "attributes.tags is a text"),
        (("created_at", "<", "yesterday"), "value", "no moment"),
        (("created_at", "<", "2026-01-01T00:00:00"), "value", "no moment"),
        (("created_at", "<", 5), "value", "no moment"),
    ],
)
def test_what_does_not_fit_names_its_place(rule: Any, place: str, says: str) -> None:
    found = columns([{"price": 1.0, "category": "red", "attributes": {"size": 3, "tags": ["a"]}}])
    with pytest.raises(RequestError, match=says) as caught:
        eligible(
            found, [Condition(field="price", op=">", value=0), Condition(field=rule[0], op=rule[1], value=rule[2])], 4
        )
    assert caught.value.loc == ("body", "requests", 4, "where", 1, place)


def test_items_expire_at_their_moment() -> None:
    day = 86_400 * 10**6
    at = int(START.timestamp()) * 10**6
    found = columns([{}, {"expires_at": START}, {"expires_at": START + timedelta(days=1)}], [{"expires_at": START}])
    assert open_at(found, at - 1) is None
    assert open_at(found, at).tolist() == [True, False, True, False]  # type: ignore[union-attr]
    assert open_at(found, at + day - 1).tolist() == [True, False, True, False]  # type: ignore[union-attr]
    assert open_at(found, at + day).tolist() == [True, False, False, False]  # type: ignore[union-attr]
    assert open_at(columns([{}, {}]), at) is None


def test_json_of_attributes_is_read_as_it_was_written() -> None:
    found = Columns(Part(table([{"attributes": {"name": "süß", "n": 10**12}}])))
    assert kept(found, ("attributes.name", "==", "süß"), ("attributes.n", "==", 10**12)) == [0]
