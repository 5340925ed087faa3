"""Guessed and mapped columns, and expressions on the right side of a mapping."""

from itertools import groupby

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SchemaError
from cluster.importers.expressions import Expression
from cluster.importers.imported import Options
from cluster.importers.names import nearest, plain
from cluster.importers.roles import Role, Roles, resolve
from cluster.importers.source import Source
from cluster.records import QUARANTINE

ROLES = (
    Role("timestamp", ("time",)),
    Role("client_id"),
    Role("user_id", ("customer_id",)),
    Role("candidates"),
    Role("propensity", ("pscore",)),
    Role("item_id", ("item",), required=True),
    Role("reward", ("click",), required=True),
)


def source(*columns: str) -> Source:
    table = pa.table({name: ["x", "y"] for name in columns})
    rows = np.arange(2)
    return Source(("log.csv",), table, rows * 0, rows + 1, QUARANTINE.empty_table(), True, "", name="log.csv")


def roles(*columns: str, maps: tuple[str, ...] = (), exclude: tuple[str, ...] = (), client: str | None = None) -> Roles:
    return resolve(source(*columns), ROLES, Options.parse(maps, exclude, client))


def test_usual_names_are_known_whatever_their_case_and_punctuation() -> None:
    found = roles("Customer ID", "ITEM", "Click", "device")
    assert found.report() == {"user_id": "Customer ID", "item_id": "ITEM", "reward": "Click", "context": "device"}


def test_our_own_name_goes_before_a_usual_one() -> None:
    found = roles("click", "reward", "item")
    assert (str(found.expressions["reward"]), found.context) == ("reward", ("click",))


def test_a_mapping_goes_before_a_guess_and_its_column_is_not_guessed_again() -> None:
    found = roles("item", "click", "score", maps=("reward=score", "user_id=click"))
    assert found.report() == {"user_id": "click", "item_id": "item", "reward": "score", "context": ""}


def test_excluded_columns_are_neither_guessed_nor_context() -> None:
    assert roles("item", "click", "time", "age", exclude=("time", "age")).report() == {
        "item_id": "item",
        "reward": "click",
        "context": "",
    }


def test_columns_of_an_expression_remain_context() -> None:
    found = roles("item", "click", "age", maps=("user_id=run(age)",))
    assert (str(found.expressions["user_id"]), found.context) == ("run(age)", ("age",))


def test_the_client_column() -> None:
    assert str(roles("item", "click", "Land", client="Land").expressions["client_id"]) == "Land"


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (("item", "clik"), {}, "log.csv: no column for reward; the nearest is 'clik'; say --map reward=clik"),
        (("item", "zzz"), {}, "no column for reward; columns: zzz; say --map reward=COLUMN"),
        (("item", "Y"), {"maps": ("reward=y2",)}, "--map reward=y2: no column 'y2'; did you mean 'Y'?"),
        (("item", "Y"), {"maps": ("rewrd=Y",)}, "--map rewrd=Y: unknown name 'rewrd'; did you mean 'reward'?"),
        (("item", "Y"), {"maps": ("qqqq=Y",)}, "unknown name 'qqqq'; known: timestamp, client_id"),
        (("item", "Y"), {"maps": ("reward",)}, "--map reward: expected ours=theirs"),
        (("item", "click", "age"), {"exclude": ("agee",)}, "no column 'agee'; did you mean 'age'?"),
        (("item", "click", "land"), {"client": "Lnd"}, "no column 'Lnd'; did you mean 'land'?"),
        (("item", "click", "age"), {"maps": ("user_id=run(agee)",)}, "no column 'agee'; did you mean 'age'?"),
        (("item", "click"), {"maps": ("user_id=run()",)}, "run() and join() take columns"),
        (("item", "click"), {"maps": ("user_id=join()",)}, "run() and join() take columns"),
        (("item", "7", "1.5"), {}, "a name is a number: does the first line hold the names of the columns?"),
        (("item", *(f"x{i}" for i in range(60))), {}, "x39 and 20 more; say --map reward=COLUMN"),
        (("item", "click"), {"maps": ("user_id=first(itme,2)",)}, "no column 'itme'; did you mean 'item'?"),
        (("item", "click"), {"maps": ("user_id=first(item,0)",)}, "no column 'first(item,0)'"),
        (("item", "click"), {"maps": ("timestamp=row(item)",)}, "row() and all() take none"),
        (("item", "click"), {"maps": ("user_id=all()",)}, "all() is for candidates only"),
    ],
)
def test_what_cannot_be_meant(columns: tuple[str, ...], options: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(SchemaError) as error:
        roles(*columns, **options)  # type: ignore[arg-type]
    assert message in str(error.value)


def test_a_column_that_looks_misspelt_is_named() -> None:
    (note,) = roles("item", "click", "propensty").notes
    assert note == "column 'propensty' is read as context; if it is the propensity, say --map propensity=propensty"


@pytest.mark.parametrize(
    ("text", "values"),
    [("b", [1, 1, 2]), ("row()", [0, 1, 2]), ("'web shop'", ["web shop"] * 3), ('"x"', ["x"] * 3)],
)
def test_expressions(text: str, values: list[object]) -> None:
    table = pa.table({"a": ["x", "x", "y"], "b": [1, 1, 2]})
    assert Expression.parse(text, table.column_names, "ours").evaluate(table).to_pylist() == values


def test_columns_joined() -> None:
    table = pa.table({"Date": ["31/12/2010", "1/1/2011", None], "Time": ["08:26", None, "9:00"], "shop": [1, 2, 3]})
    assert Expression.parse("join(Date, Time)", table.column_names, "timestamp").evaluate(table).to_pylist() == [
        "31/12/2010 08:26",
        None,
        None,
    ]
    said = roles("item", "click", "Date", "Time", maps=("timestamp=join(Date,Time)",))
    assert (str(said.expressions["timestamp"]), said.context) == ("join(Date,Time)", ())
    found = Expression.parse("join(shop,Date)", table.column_names, "user_id")
    assert (str(found), found.evaluate(table).to_pylist()[0]) == ("join(shop,Date)", "1 31/12/2010")


@given(st.lists(st.tuples(st.sampled_from(["x", "y", None]), st.sampled_from([0, 1, None])), min_size=1, max_size=30))
def test_a_run_ends_where_a_column_changes(rows: list[tuple[str | None, int | None]]) -> None:
    half = len(rows) // 2
    table = pa.concat_tables(
        pa.table({"a": pa.array([a for a, _ in part], pa.string()), "b": pa.array([b for _, b in part], pa.int8())})
        for part in (rows[:half], rows[half:])
    )
    found = Expression.parse("run(a, b)", table.column_names, "user_id").evaluate(table).to_pylist()
    runs = [len(list(group)) for _, group in groupby(rows)]
    assert found == [f"run-{i}" for i, length in enumerate(runs, 1) for _ in range(length)]


def test_the_first_characters_of_a_column_of_any_type() -> None:
    table = pa.table({"code": ["85123A", None, "7"], "number": [8512, 71, None]})
    found = Expression.parse("first(code, 2)", table.column_names, "provider_id")
    assert (str(found), found.evaluate(table).to_pylist()) == ("first(code,2)", ["85", None, "7"])
    assert Expression.parse("first(number,3)", table.column_names, "x").evaluate(table).to_pylist() == [
        "851",
        "71",
        None,
    ]
    said = roles("item", "click", maps=("user_id=first(item,2)",))
    assert (str(said.expressions["item_id"]), str(said.expressions["user_id"])) == ("item", "first(item,2)")


def test_names_alike() -> None:
    assert plain("User ID") == plain("userId") == "userid"
    assert nearest("rewrad", ["reward", "user"]) == "reward"
    assert nearest("zzz", ["reward", "user"]) is None
