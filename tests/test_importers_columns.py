"""Values of any type as those of the contract."""

import json
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.errors import SchemaError
from cluster.faults import Faults
from cluster.importers import columns as typed
from cluster.importers.context import Coded, code, coded_texts, from_column, maps

NOON = datetime(2011, 12, 9, 12, 50, tzinfo=UTC)
NAN, INF = float("nan"), float("inf")


def chunked(values: object, type_: pa.DataType | None = None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, type_)])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([17850, None], ["17850", None]),
        ([17850.0, NAN, None], ["17850", None, None]),
        ([0.5, 1.0], ["0.5", "1"]),
        ([1e20, 3e30, 1.0], ["1e+20", "3e+30", "1"]),  # beyond 64 bits: not one and the same
        (["17850.0", "12.0"], ["17850", "12"]),
        (["1.0", "1.5"], ["1.0", "1.5"]),
        ([" a ", "", "  "], ["a", None, None]),
        ([True, False], ["true", "false"]),
    ],
)
def test_ids(values: list[object], found: list[str | None]) -> None:
    assert typed.texts("id", chunked(values)).to_pylist() == found


def test_ids_of_a_dictionary_column() -> None:
    column = pa.chunked_array([pa.array(["a", "b"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()])
    assert typed.texts("id", column).to_pylist() == ["a", "b", "b"]


@pytest.mark.parametrize("change", [typed.texts, lambda n, c: typed.numbers(n, c, Faults(1))])
def test_a_column_of_another_kind(change) -> None:
    with pytest.raises(SchemaError, match=r"reward: expected a column of .*, found list"):
        change("reward", chunked([[1]]))


def test_times_are_no_numbers() -> None:
    with pytest.raises(SchemaError, match="reward: expected a column of numbers, found timestamp"):
        typed.numbers("reward", chunked([NOON]), Faults(1))


def test_numbers_from_text() -> None:
    faults = Faults(6)
    found = typed.numbers("reward", chunked(["1", " 2.5 ", "true", None, "two", "nan"]), faults)
    assert found.to_pylist() == [1.0, 2.5, 1.0, None, None, None]
    assert list(faults.reason_N) == [None] * 4 + ["reward: expected a number, found 'two'", None]


WRITTEN = {
    "with a mark at each thousand": (["1,234.50", "12", "-7", "$1,000"], [1234.5, 12.0, -7.0, 1000.0]),
    "a decimal comma": (["1.234,50", "12", "-0,5", "3,99 €"], [1234.5, 12.0, -0.5, 3.99]),
    "blanks at each thousand": (["1 234,5", "1\u00a0234 567,25"], [1234.5, 1234567.25]),
    "Swiss": (["1'234.50", "9.5"], [1234.5, 9.5]),
    "a thousand where nothing says else": (["1,234", "12"], [1234.0, 12.0]),
    "no thousand beside a decimal comma": (["1,234", "0,125"], [1.234, 0.125]),
    "as Python writes, where all can be": (["1.234", "12"], [1.234, 12.0]),
    "shares": (["12%", "5.5 %"], [0.12, 0.055]),
    "owed": (["(1,234.00)", "5"], [-1234.0, 5.0]),
    "answers": (["yes", "No", "Y", "f"], [1.0, 0.0, 1.0, 0.0]),
    "missing": (["1", "NA", "-", "\\N", "#N/A", "(null)", "n.a.", "<NA>", ".", "None"], [1.0] + [None] * 9),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_numbers_as_people_write_them(how: str) -> None:
    texts, found = WRITTEN[how]
    faults = Faults(len(texts))
    assert typed.numbers("reward", chunked(texts), faults).to_pylist() == found
    assert faults.good_N.all()


@pytest.mark.parametrize("text", ["1,2,3", "12,34.5", "1.2.3", "1 2", "€", "%", "0,123,456", "maybe"])
def test_what_is_no_number(text: str) -> None:
    faults = Faults(1)
    typed.numbers("reward", chunked([text]), faults)
    assert list(faults.reason_N) == [f"reward: expected a number, found {text!r}"]


def test_an_answer_among_numbers_is_none() -> None:
    faults = Faults(2)
    assert typed.numbers("reward", chunked(["5", "yes"]), faults).to_pylist() == [5.0, None]
    assert faults.good_N.tolist() == [True, False]


def test_people_are_not_called_null_but_an_item_may_be_called_none() -> None:
    words = ["NULL", "none", "-", "u1", " na "]
    assert typed.texts("user_id", chunked(words), typed.MISSING).to_pylist() == [None, None, None, "u1", None]
    assert typed.texts("item_id", chunked(words), typed.NOTHING).to_pylist() == [None, "none", "-", "u1", "na"]


@pytest.mark.parametrize(
    "value",
    [
        "2011-12-09T12:50:00Z",
        "2011-12-09 12:50:00 UTC",
        "2011-12-09 12:50:00.000 GMT",
        "2011-12-09 14:50:00.000 +0200",
        "2011/12/09 12:50",
        "09.12.2011 12:50",
        "09.12.11 12:50:00",
        "9-Dec-2011 12:50",
        "Dec 9, 2011 12:50 PM",
        "December 9, 2011 12:50",
        "09/Dec/2011:12:50:00 +0000",
        "Fri Dec 09 12:50:00 +0000 2011",
        "Fri, 09 Dec 2011 12:50:00 GMT",
        "12/9/2011, 12:50:00 PM",
        "12/9/11 12:50",
        "20111209125000",
        20111209125000,
        "2011-12-09 12:50:00+00:00",
        "2011-12-09 12:50",
        "2011-12-09T14:50:00+02:00",
        NOON.timestamp(),
        int(NOON.timestamp()),
        int(NOON.timestamp() * 1e3),
        int(NOON.timestamp() * 1e6),
        int(NOON.timestamp() * 1e9),
        str(int(NOON.timestamp())),
        NOON,
        NOON.replace(tzinfo=None),
    ],
)
def test_times(value: object) -> None:
    faults = Faults(2)
    assert typed.times("timestamp", chunked([value, None]), faults).to_pylist() == [NOON, None]
    assert faults.good_N.all()


def test_days() -> None:
    found = typed.times("timestamp", chunked([date(2011, 12, 9)]), Faults(1))
    assert found.to_pylist() == [datetime(2011, 12, 9, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("19970101", date(1997, 1, 1)),
        (19970101, date(1997, 1, 1)),
        (19970101.0, date(1997, 1, 1)),
        ("199703", date(1997, 3, 1)),
        (1997, date(1997, 1, 1)),
        ("12/1/97", date(1997, 12, 1)),  # not the year 97
        ("9 Dec 2011", date(2011, 12, 9)),
    ],
)
def test_days_without_a_clock(value: object, day: date) -> None:
    found = typed.times("timestamp", chunked([value, None]), Faults(2))
    assert found.to_pylist() == [datetime(day.year, day.month, day.day, tzinfo=UTC), None]


def test_a_clock_may_be_left_out_at_midnight_and_zones_may_differ() -> None:
    faults = Faults(4)
    texts = ["31/12/2010 8:26", "1/1/2011", "2011-01-02T01:00:00+01:00", "2011-01-02"]
    found = typed.times("t", chunked(texts), faults).to_pylist()
    assert faults.good_N.all()
    assert found == [
        datetime(2010, 12, 31, 8, 26, tzinfo=UTC),
        datetime(2011, 1, 1, tzinfo=UTC),
        datetime(2011, 1, 2, tzinfo=UTC),
        datetime(2011, 1, 2, tzinfo=UTC),
    ]


@settings(deadline=None)
@given(st.lists(st.datetimes(datetime(1970, 1, 2), datetime(2068, 12, 31)), min_size=1, max_size=5))
def test_what_is_written_with_the_day_first_is_read_back_when_a_day_shows_it(times: list[datetime]) -> None:
    told = [when.replace(second=0, microsecond=0, tzinfo=UTC) for when in (*times, datetime(2000, 1, 31))]
    for form in ("%d/%m/%Y %H:%M", "%d-%m-%y %H:%M", "%d.%m.%Y %I:%M %p"):
        found = typed.times("t", chunked([when.strftime(form) for when in told]), Faults(len(told)))
        assert found.to_pylist() == told


def test_month_before_day_unless_that_cannot_be() -> None:
    assert typed.times("t", chunked(["12/1/2010 8:26"]), Faults(1)).to_pylist() == [
        datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    ]
    assert typed.times("t", chunked(["12/1/2010 8:26", "13/1/2010 8:26"]), Faults(2)).to_pylist()[0] == datetime(
        2010, 1, 12, 8, 26, tzinfo=UTC
    )


def test_parts_of_a_second_keep_their_order() -> None:
    texts = ["2021-01-01T00:00:00.900Z", "2021-01-01 00:00:00,1", "1/Jan/2021:01:00:00.5 +0100", "01.01.2021 00:00:00"]
    found = typed.times("t", chunked(texts), Faults(4)).to_pylist()
    assert [moment.microsecond for moment in found] == [900_000, 100_000, 500_000, 0]
    assert {moment.replace(microsecond=0) for moment in found} == {datetime(2021, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("day", ["30.02.2021", "20210230", "31-Apr-21 10:00", "29/02/2021", "2021-02-30", 20210230])
def test_a_day_that_is_not_in_its_month_is_a_fault(day: object) -> None:
    faults = Faults(2)
    leap = 20200229 if isinstance(day, int) else "29.02.2020"
    found = typed.times("t", chunked([day, leap]), faults)
    assert (found[0].as_py(), faults.good_N[0]) == (None, False)
    if len(str(day)) != 8 or isinstance(day, int):
        assert found[1].as_py() == datetime(2020, 2, 29, tzinfo=UTC)


def test_a_text_that_is_no_time() -> None:
    faults = Faults(2)
    found = typed.times("timestamp", chunked(["2011-12-09", "soon"]), faults)
    assert found.to_pylist() == [datetime(2011, 12, 9, tzinfo=UTC), None]
    assert list(faults.reason_N) == [None, "timestamp: expected a date and time, found 'soon'"]


@pytest.mark.parametrize(
    "column",
    [chunked([["a", "b"], None])]
    + [chunked([text, None]) for text in ('["a", "b"]', "['a', 'b']", "['a' 'b']", "('a', 'b')", "[a b]", "[a, b]")]
    + [chunked([text, "NA"]) for text in ("a|b", "a, b", "a;b", "a b")],
)
def test_lists_of_ids(column: pa.ChunkedArray) -> None:
    assert typed.lists("candidates", column, Faults(2)).to_pylist() == [["a", "b"], None]


def test_bars_stand_before_commas_and_blanks() -> None:
    column = chunked(["red lamp|blue, large lamp", "red lamp"])
    assert typed.lists("c", column, Faults(2)).to_pylist() == [["red lamp", "blue, large lamp"], ["red lamp"]]


def test_lists_are_written_as_ids_are() -> None:
    """0.0 and 1.0 in a column of ids are 0 and 1; a word that is in another row's list is an item."""
    assert typed.lists("c", chunked(["[0.0, 1.0]", "2.0|0.0"]), Faults(2)).to_pylist() == [["0", "1"], ["2", "0"]]
    assert typed.lists("c", chunked(["[0.5, 1.0]"]), Faults(1)).to_pylist() == [["0.5", "1.0"]]
    assert typed.lists("c", chunked(["NA|US", "NA", "-"]), Faults(3)).to_pylist() == [["NA", "US"], ["NA"], None]


def test_lists_of_numbers_and_fixed_size() -> None:
    assert typed.lists("c", chunked([[1, 2], [], [3]]), Faults(3)).to_pylist() == [["1", "2"], [], ["3"]]
    fixed = chunked([[1, 2], None], pa.list_(pa.int8(), 2))
    assert typed.lists("c", fixed, Faults(2)).to_pylist() == [["1", "2"], None]


def test_a_list_that_is_not_one() -> None:
    faults = Faults(1)
    typed.lists("candidates", chunked(["[1, 2"]), faults)
    assert list(faults.reason_N) == ["candidates: expected a list of item ids, found '[1, 2'"]


def test_whole_numbers() -> None:
    faults = Faults(3)
    assert typed.integers("position", chunked([1.0, 1.5, None]), faults, pa.int32()).to_pylist() == [1, None, None]
    assert list(faults.reason_N) == [None, "position: expected a whole number, found 1.5", None]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", None], "number"),
        (["1", "?", "NA"], "number"),
        (["007", "8"], "text"),
        (["0.5", "0"], "number"),
        (["True", "false"], "boolean"),
        (["1"] * 199 + ["x"], "number"),
        (["1"] * 50 + ["x"], "text"),
        (["?", ""], "text"),
        (["1,5", "2", "-"], "number"),
        (["1,2", "1,2,3", "2"], "text"),
        (["yes", "no"], "text"),
        (["31/12/2010"], "text"),
    ],
)
def test_the_type_of_a_text_column(values: list[str | None], kind: str) -> None:
    assert typed.guessed(chunked(values)) == kind


def context_of(column: pa.ChunkedArray, text: bool = False) -> tuple[list[dict[str, object]], Faults]:
    faults = Faults(len(column))
    coded = code("x", column, text, faults)
    assert coded is not None
    found = maps({"x": coded}, len(column)).to_pylist()
    return [{key: json.loads(value) for key, value in row} for row in found], faults


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (chunked([1, None], pa.int8()), [{"x": 1}, {}]),
        (chunked([0.1, NAN, None], pa.float32()), [{"x": 0.1}, {}, {}]),
        (chunked([1e300, 1e-7]), [{"x": 1e300}, {"x": 1e-7}]),
        (chunked([True, None]), [{"x": True}, {}]),
        (chunked(['say "é"', None]), [{"x": 'say "é"'}, {}]),
        (chunked([["a"], [], None]), [{"x": ["a"]}, {"x": []}, {}]),
        (chunked([date(2011, 12, 9)]), [{"x": "2011-12-09"}]),
    ],
)
def test_context_values_keep_their_type(column: pa.ChunkedArray, found: list[dict[str, object]]) -> None:
    assert context_of(column)[0] == found


def test_text_columns_take_the_type_of_their_values() -> None:
    assert context_of(chunked(["39", "?", "1.5"]), text=True)[0] == [{"x": 39.0}, {}, {"x": 1.5}]
    assert context_of(chunked(["a", "?"]), text=True)[0] == [{"x": "a"}, {}]
    assert context_of(chunked(["TRUE", "false"]), text=True)[0] == [{"x": True}, {"x": False}]


def test_texts_with_bars_are_lists_where_the_parts_come_again() -> None:
    genres = chunked(["drama|war", "war", "drama | comedy", "comedy|war", None])
    assert context_of(genres, text=True)[0] == [
        {"x": ["drama", "war"]},
        {"x": ["war"]},
        {"x": ["drama", "comedy"]},
        {"x": ["comedy", "war"]},
        {},
    ]
    titles = chunked(["Lamp | red", "Chair", "Table | oak", "Sofa"])
    assert context_of(titles, text=True)[0][0] == {"x": "Lamp | red"}


def test_infinity_and_a_word_among_numbers_are_faults() -> None:
    found, faults = context_of(chunked([1.0, INF]))
    assert (found, list(faults.reason_N)) == ([{"x": 1}, {}], [None, "x: expected a finite number, found inf"])
    found, faults = context_of(chunked(["1"] * 199 + ["abc"]), text=True)
    assert faults.reason_N[-1] == "x: expected a number, found 'abc'"
    assert faults.good_N.sum() == 199


@pytest.mark.parametrize("column", [chunked([[0.5]]), chunked([b"x"]), chunked([{"a": 1}])])
def test_what_a_context_cannot_hold(column: pa.ChunkedArray) -> None:
    assert code("x", column, False, Faults(1)) is None


@given(st.lists(st.tuples(*[st.none() | st.sampled_from(["1", "2", '"a"'])] * 3), max_size=8))
def test_maps_against_a_loop(rows: list[tuple[str | None, ...]]) -> None:
    names = ("x", "y", "z")
    columns = {name: coded_texts([row[i] for row in rows]) for i, name in enumerate(names)}
    found = maps(columns, len(rows)).to_pylist()
    assert found == [[(n, v) for n, v in zip(names, row, strict=True) if v is not None] for row in rows]


def test_maps_of_no_column() -> None:
    assert maps({}, 2).to_pylist() == [[], []]


def test_rows_are_taken() -> None:
    coded = Coded(np.array([0, -1, 1]), pa.array(["1", "2"])).take(np.array([2, 0]))
    assert maps({"x": coded}, 2).to_pylist() == [[("x", "2")], [("x", "1")]]


WHOLE = [
    chunked([{"device": "mobile", "hour": 21}, {"device": "tv", "hour": None}]),
    chunked(['{"device": "mobile", "hour": 21}', '{"device": "tv", "hour": null}']),
    chunked([[("device", '"mobile"'), ("hour", "21")], [("device", "tv")]], pa.map_(pa.string(), pa.string())),
]


@pytest.mark.parametrize("column", WHOLE)
def test_whole_contexts_in_one_column(column: pa.ChunkedArray) -> None:
    found = maps(from_column(column, Faults(2)), 2).to_pylist()
    assert [{k: json.loads(v) for k, v in row} for row in found] == [{"device": "mobile", "hour": 21}, {"device": "tv"}]


def test_a_part_of_a_column_of_contexts() -> None:
    rows = WHOLE[2].slice(1)
    assert maps(from_column(rows, Faults(1)), 1).to_pylist() == [[("device", '"tv"')]]


@pytest.mark.parametrize("text", ['{"a": ', "[1]", '{"a": {"b": 1}}', '{"a": NaN}', '{"a": [1]}'])
def test_a_text_that_is_no_context(text: str) -> None:
    faults = Faults(2)
    assert set(from_column(chunked([text, '{"a": 1}']), faults)) == {"a"}
    assert faults.good_N.tolist() == [False, True]
    assert faults.reason_N[0].startswith("context: expected a JSON object of plain values, found ")


def test_a_context_column_of_numbers() -> None:
    with pytest.raises(SchemaError, match="context: expected a map, a structure or JSON text, found int64"):
        from_column(chunked([1]), Faults(1))
