"""How values of any type become numbers and levels."""

import json
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from actors.features.columns import (
    Column,
    Reader,
    attribute_table,
    context_table,
    fit_reader,
    infer,
    level_of,
    number_of,
)
from cluster.records import EVENTS, USERS, encode


@pytest.mark.parametrize(
    ("value", "number", "level"),
    [
        (True, 1.0, "true"),
        (False, 0.0, "false"),
        (3, 3.0, "3"),
        (2.5, 2.5, "2.5"),
        ("2.5", 2.5, "2.5"),
        ("red", None, "red"),
        ("", None, ""),
        (None, None, None),
        (math.nan, None, None),
        (math.inf, None, None),
        ("nan", None, "nan"),
        (10**400, None, None),
        (-1e101, None, None),
        ([1], None, None),
        ({"a": 1}, None, None),
    ],
)
def test_numbers_and_levels(value: Any, number: float | None, level: str | None) -> None:
    found = number_of(value)
    assert math.isnan(found) if number is None else found == number
    assert level_of(value) == level


def test_kinds_of_columns() -> None:
    """A list by majority; a number at 95 %; numeric text only where it takes more values than levels are kept."""
    assert infer("n", [(1, 50), (2.5, 46), ("x", 4)], 100, 5) == Column("n", "number")
    assert infer("n", [(1, 50), (2.5, 44), ("x", 6)], 100, 5) == Column("n", "category", ("1", "2.5", "x"))
    assert infer("b", [(True, 50), (False, 50)], 100, 5) == Column("b", "number")
    texts = [(str(i), 10) for i in range(6)]
    assert infer("t", texts, 60, 5) == Column("t", "number")
    assert infer("t", texts, 60, 6) == Column("t", "category", ("0", "1", "2", "3", "4", "5"))
    assert infer("l", [(["a", "b"], 6), (["a"], 3), ("a", 1)], 10, 5) == Column("l", "list", ("a", "b"))
    assert infer("c", [(7, 100)], 100, 5) is None
    assert infer("c", [("only", 100)], 100, 5) is None
    assert infer("c", [(None, 100)], 100, 5) is None
    assert infer("c", [(7, 60)], 100, 5) == Column("c", "number")


def test_levels_that_are_kept_by_hand() -> None:
    """Two rows at least, the commonest first, ties by text; the rest share `other`; absent rows are `missing`."""
    column = infer("c", [("b", 5), ("a", 5), ("d", 4), ("e", 2), ("once", 1), (None, 3)], 20, 3)
    assert column == Column("c", "category", ("a", "b", "d"), other=True, missing=True)
    assert column.names == ["c=a", "c=b", "c=d", "c=(other)", "c=(missing)"]
    codes = [column.codes(value) for value in ("a", "d", "e", "never", None, [1], 5)]
    assert codes == [[0], [2], [3], [3], [4], [4], [3]]


def test_lists_by_hand() -> None:
    column = Column("l", "list", ("a", "b", "3"), other=True, missing=True)
    values = (["b", "a", "a"], [3, "zzz"], [], None, "a", ["zzz", None])
    assert [column.codes(value) for value in values] == [[0, 1], [2, 3], [4], [4], [4], [3]]


def test_tables_of_maps_even_sliced() -> None:
    contexts = [{"a": 1, "l": ["x", "y"]}, {}, {"a": None, "b": "t"}, {"b": "t", "a": 2}]
    column = pa.array(
        [encode(c) for c in contexts[:2]] + [None] + [encode(c) for c in contexts[2:]], EVENTS.field("context").type
    )
    for start, chosen in ((0, [0, 1, None, 2, 3]), (1, [1, None, 2, 3]), (3, [2, 3])):
        table = context_table(pa.chunked_array([column[start:]]))
        for row, which in enumerate(chosen):
            expected = {} if which is None else contexts[which]
            found = {name: values[index[row]] for name, (index, values) in table.items() if index[row] >= 0}
            assert found == expected
    texts = pa.array([[("age", "31"), ("town", '"York"'), ("free", "York, UK")]], USERS.field("attributes").type)
    assert {n: values for n, (_, values) in attribute_table(texts).items()} == {
        "age": [31], "town": ["York"], "free": ["York, UK"],
    }  # fmt: skip


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.floats(-2, 2), st.sampled_from(["a", "b", "c", "1"])
)
rows = st.lists(
    st.dictionaries(st.sampled_from(["p", "q", "r"]), st.one_of(scalars, st.lists(scalars, max_size=3))), max_size=30
)


@given(rows=rows, limit=st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_a_row_and_a_table_read_alike(rows: list[dict[str, Any]], limit: int) -> None:
    pairs = pa.array([[(k, json.dumps(v)) for k, v in row.items()] for row in rows], EVENTS.field("context").type)
    table = context_table(pairs)
    reader = fit_reader(table, len(rows), limit)
    numbers_BN, on_BL = reader.read_table(table, len(rows))
    assert numbers_BN.shape == (len(rows), len(reader.number_names))
    assert on_BL.shape == (len(rows), len(reader.code_names))
    for b, row in enumerate(rows):
        numbers, codes = reader.read(row)
        np.testing.assert_array_equal(numbers_BN[b], numbers)
        assert np.flatnonzero(on_BL[b]).tolist() == sorted(set(codes))


def test_codes_count_through_all_columns() -> None:
    reader = Reader((Column("a", "category", ("x", "y")), Column("n", "number"), Column("b", "category", ("u",), True)))
    assert reader.read({"a": "y", "b": "w", "n": 2}) == ([2.0], [1, 3])
    assert reader.code_names == ["a=x", "a=y", "b=u", "b=(other)"]
