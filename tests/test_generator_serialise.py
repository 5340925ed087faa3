"""Serialiser: literal texts, ranges by hand, and nothing of the event itself in a text."""

import json

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from actors.generator.serialise import Serialiser, attributes_of
from actors.generator.tasks import Logged, Traffic, build
from cluster.records import ITEMS
from tests.generator_worlds import OneHots, planted

VALUES = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=80) | st.lists(st.text(max_size=9))


def items(**titles: str | None) -> pa.Table:
    rows = ITEMS.empty_table().to_pydict() | {"item_id": list(titles), "title": list(titles.values())}
    return pa.Table.from_pydict({n: v or [None] * len(titles) for n, v in rows.items()}, schema=ITEMS)


def fitted() -> Serialiser:
    contexts = [{"hour": h, "device": "mobile" if h % 2 else "tablet", "age": 30, "recent": ["a"]} for h in range(16)]
    return Serialiser.fit(contexts, ["u"] * 16, items(a="Red lamp", b=None), bins=4)


def test_a_text_has_stable_columns_first_then_titles_latest_first() -> None:
    text = fitted().text({"hour": 5, "device": "mobile", "age": 30, "recent": ["b", "a"]})
    # `age` never changes within the user, the others do; quartiles of 0..15 are 3.75, 7.5, 11.25.
    assert text == "age=30 device=mobile hour=3.75..7.5 recent: Red lamp; b"


def test_ranges_cover_the_line_and_edges_belong_above() -> None:
    serialiser = fitted()
    told = [serialiser.text({"hour": h}) for h in (-9, 3.75, 11.25, 99)]
    assert told == ["hour=below 3.75", "hour=3.75..7.5", "hour=from 11.25", "hour=from 11.25"]


def test_unknown_columns_come_last_and_nulls_are_not_told() -> None:
    assert fitted().text({"zone": True, "age": None, "colour": "r\n d"}, {"age": 31}) == "colour=r d zone=yes"


def test_context_overrides_attributes() -> None:
    assert fitted().text({"age": 2}, {"age": 1}) == "age=2"


def test_a_list_of_anything_is_told() -> None:
    """Attributes are whatever JSON an import holds."""
    attributes = attributes_of([("sizes", "[1, null, 2.5]"), ("recent", "[7]"), ("home", '{"rooms": 3}')], None)
    assert fitted().text({}, attributes) == "home={'rooms': 3} sizes=1,None,2.5 recent: 7"


def test_a_history_tells_items_and_rewards_after_the_text() -> None:
    told = fitted().history({"age": 30}, None, [("a", 1.0), ("zz", 0.25)])
    assert told == "age=30\nRed lamp -> 1\nzz -> 0.25"


def test_attributes_are_read_as_json_where_they_are() -> None:
    assert attributes_of([("age", "41"), ("city", "Bern")], "likes tea") == {
        "about": "likes tea",
        "age": 41,
        "city": "Bern",
    }


@given(st.dictionaries(st.text(min_size=1, max_size=8), VALUES, max_size=6))
def test_any_context_becomes_one_line_and_the_same_after_a_round_trip(context: dict[str, object]) -> None:
    serialiser = fitted()
    again = Serialiser.load(json.loads(json.dumps(serialiser.facts())))
    assert again == serialiser
    text = serialiser.text(context)  # type: ignore[arg-type]
    assert text == again.text(dict(reversed(context.items())))  # type: ignore[arg-type]


def test_a_task_text_does_not_depend_on_what_happens_in_the_task() -> None:
    dataset, _ = planted(users=6, rows=10, seed=3)
    rows = np.arange(len(dataset.events))
    changed = dataset.events
    for name, value in (("item_id", "i0"), ("reward", 1.0), ("propensity", 0.5), ("position", 7)):
        place = changed.schema.get_field_index(name)
        column = pa.array([value] * len(changed), changed.schema.field(name).type)
        changed = changed.set_column(place, changed.schema.field(name), column)
    texts = []
    for events in (dataset.events, changed):
        other = type(dataset)(dataset.format, events, dataset.items, dataset.users)
        logged = Logged.of(other, rows, OneHots(), 0.0, 1.0)
        tasks = build(other, logged, fitted(), limit=64, most=99, seed=0)
        traffic = Traffic.of(other, rows, fitted(), OneHots(), limit=64, most=99, seed=0)
        assert traffic.texts == tasks.texts
        texts.append(tasks.texts)
    assert texts[0] == texts[1]
