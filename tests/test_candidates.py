"""What may be shown: conditions, expiry and what was seen, on a version's catalogue and a client's own items."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits import law
from cluster.errors import RequestError
from cluster.journal.records import moment_us
from cluster.records import ITEMS
from serve.decide import Engine
from serve.decisions import baseline, evidence
from serve.decisions.columns import Columns, Part
from serve.decisions.current import load
from serve.ids import DecisionIds, seed_of
from serve.messages import DecisionRequest, ItemBody
from tests import serving

LOADED = load(3, serving.version())  # i0 .. i11, red, green and blue in turn, prices 1 .. 12
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
RED = {"field": "category", "op": "==", "value": "red"}
MOMENT = ITEMS.field("expires_at")
CHEAP = {"field": "price", "op": "<=", "value": 7.5}


@pytest.fixture
def engine() -> Engine:
    made = Engine(seed=5)
    made.install(LOADED)
    return made


def id_at(moment: datetime) -> str:
    return DecisionIds(b"a secret of sixteen bytes or more", moment.timestamp).new("shop")


def shown(engine: Engine, decision_id: str = "D", mode: Any = "live", seen: Any = (), **fields: Any) -> set[str]:
    """The items of as many slots as there are eligible items."""
    request: dict[str, Any] = {"context": {"device": "mobile"}, **fields}
    for slots in range(20, 0, -1):
        try:
            made = DecisionRequest.model_validate(request | {"slots": slots})
            record = engine.decide("shop", made, decision_id, mode=mode, seen=seen)
        except RequestError as error:
            if error.loc[-1] != "slots":
                raise
            continue
        return {slot["item_id"] for slot in json.loads(record.answer)["slots"]}
    return set()


def put(engine: Engine, revision: int, item_id: str, **body: Any) -> None:
    engine.change("shop", item_id, json.dumps(body), revision)
    engine.rebuild("shop")


@pytest.mark.parametrize("mode", ["live", "off", "shadow"])
def test_conditions_hold_for_the_catalogue_and_for_candidates(engine: Engine, mode: Any) -> None:
    assert shown(engine, mode=mode, where=[RED, CHEAP]) == {"i0", "i3", "i6"}
    assert shown(engine, mode=mode, where=[RED], exclude=["i3", "i9"]) == {"i0", "i6"}
    assert shown(engine, mode=mode, where=[CHEAP], items=["i11", "i2", "i1"]) == {"i1", "i2"}


def test_conditions_see_a_clients_own_items(engine: Engine) -> None:
    put(engine, 1, "new", category="red", price=3.0, attributes={"tags": ["sale"]})
    put(engine, 2, "i0", category="green", price=3.0)
    engine.change("shop", "i3", None, 3)
    engine.rebuild("shop")
    assert shown(engine, where=[RED, CHEAP]) == {"i6", "new"}
    assert shown(engine, where=[{"field": "attributes.tags", "op": "in", "value": ["sale", "x"]}]) == {"new"}
    assert shown(engine, where=[RED, CHEAP], items=["i0", "new", "i6"]) == {"new", "i6"}


def test_the_law_is_that_of_the_eligible_items_alone(engine: Engine) -> None:
    request = DecisionRequest.model_validate({"context": {"device": "mobile"}, "where": [RED, CHEAP]})
    slot = json.loads(engine.decide("shop", request, "D1").answer)["slots"][0]
    features = LOADED.version.feature_map.features(request.context, ["i0", "i3", "i6"], None)
    expected = law.decide(LOADED.published, features, None, seed_of("D1", 5)).slots[0]
    assert slot["item_id"] == ("i0", "i3", "i6")[expected.index]
    assert slot["propensity"] == pytest.approx(expected.propensity, rel=1e-12)


def test_items_are_left_out_from_the_moment_they_expire(engine: Engine) -> None:
    put(engine, 1, "soon", category="red", expires_at=NOON.isoformat())
    put(engine, 2, "i0", category="red", expires_at=(NOON + timedelta(hours=1)).isoformat())
    after = NOON + timedelta(hours=1)
    assert shown(engine, id_at(NOON - timedelta(milliseconds=1)), where=[RED]) == {"i0", "i3", "i6", "i9", "soon"}
    assert shown(engine, id_at(NOON), where=[RED]) == {"i0", "i3", "i6", "i9"}
    assert shown(engine, id_at(after), items=["soon", "i0", "i1"]) == {"i1"}
    put(engine, 3, "soon", category="red", expires_at=(after + timedelta(days=1)).isoformat())
    assert shown(engine, id_at(after), items=["soon", "i0", "i1"]) == {"soon", "i1"}


def test_a_version_s_own_items_end_too() -> None:
    """As its import said, until the client puts them anew."""
    made = LOADED.version
    ends = pa.array([NOON if item == "i0" else None for item in made.items["item_id"].to_pylist()], MOMENT.type)
    items = made.items.set_column(made.items.schema.get_field_index("expires_at"), MOMENT, ends)
    engine = Engine(seed=5)
    engine.install(load(3, replace(made, items=items)))
    assert shown(engine, id_at(NOON - timedelta(milliseconds=1)), where=[RED]) == {"i0", "i3", "i6", "i9"}
    assert shown(engine, id_at(NOON), where=[RED]) == {"i3", "i6", "i9"}
    body = engine.item("shop", "i0")
    assert body is not None
    assert datetime.fromisoformat(body["expires_at"]) == NOON
    put(engine, 1, "i0", **body | {"expires_at": None})
    assert shown(engine, id_at(NOON), where=[RED]) == {"i0", "i3", "i6", "i9"}
    engine.install(load(4, replace(made, items=made.items.drop_columns(["expires_at"]))))  # of an older Medley
    other = engine.item("shop", "i3")
    assert other is not None
    assert other["expires_at"] is None
    assert shown(engine, id_at(NOON), where=[RED]) == {"i0", "i3", "i6", "i9"}


def test_what_was_seen_is_left_out_kept_and_decided_again(engine: Engine) -> None:
    request = DecisionRequest.model_validate({"context": {"device": "mobile"}, "where": [RED], "unseen_s": 60})
    assert shown(engine, seen={"i0", "i9", "elsewhere"}, where=[RED], unseen_s=60) == {"i3", "i6"}
    record = engine.decide("shop", request, "D1", seen={"i9", "i0"})
    known = evidence.unpack(record.evidence or b"")
    assert known.seen == ("i0", "i9")
    assert engine.decide("shop", request, "D1", seen=known.seen) == record
    beside = json.loads(engine.decide("shop", request, "D1", mode="off", seen={"i9"}).shadow or "")
    assert beside == {"revision": 0, "seen": ["i9"]}


@pytest.mark.parametrize(
    ("fields", "loc", "says"),
    [
        ({"where": [RED], "slots": 5}, ("slots",), "4 eligible items are left after where"),
        ({"where": [RED], "baseline_item": "i1"}, ("baseline_item",), "not among the eligible"),
        ({"where": [CHEAP, RED | {"field": "colour"}]}, ("where", 1, "field"), "'colour' is none of"),
        ({"where": [{"field": "price", "op": "==", "value": "x"}]}, ("where", 0, "value"), "is a number"),
    ],
)
def test_refusals_name_their_place(engine: Engine, fields: Any, loc: Any, says: str) -> None:
    for mode in ("live", "off"):
        with pytest.raises(RequestError, match=says) as caught:
            engine.decide("shop", DecisionRequest.model_validate(fields), "D", index=2, mode=mode)
        assert caught.value.loc == ("body", "requests", 2, *loc)


def test_before_any_version_conditions_read_what_was_put() -> None:
    engine = Engine()
    put(engine, 1, "a", category="red", price=1.0)
    put(engine, 2, "b", category="green", expires_at=NOON.isoformat())
    items = {"items": ["a", "b", "unknown"]}
    assert shown(engine, id_at(NOON - timedelta(days=1)), **items) == {"a", "b", "unknown"}
    assert shown(engine, id_at(NOON), **items) == {"a", "unknown"}
    assert shown(engine, id_at(NOON), where=[RED], **items) == {"a"}
    assert shown(engine, id_at(NOON), where=[RED | {"op": "!="}], **items) == {"unknown"}


def test_a_negative_price_is_none() -> None:
    assert ItemBody(price=0.0).price == 0.0
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        ItemBody(price=-0.01)


def test_the_moment_of_an_id_is_that_of_the_clock() -> None:
    moments = [datetime(1970, 1, 1, tzinfo=UTC), NOON, datetime(2300, 1, 1, tzinfo=UTC)]
    assert [moment_us(id_at(moment)) for moment in moments] == [int(moment.timestamp()) * 10**6 for moment in moments]


def test_a_large_catalogue_is_filtered_without_its_names() -> None:
    """Both ways of giving items agree on 300 of them with every third put anew."""
    engine = Engine(seed=5)
    engine.install(load(3, serving.version(items=300)))
    for n in range(0, 300, 3):
        engine.change("shop", f"i{n}", json.dumps({"category": "gold", "price": float(n)}), n + 1)
    engine.rebuild("shop")
    rule = [{"field": "category", "op": "in", "value": ["gold", "green"]}, {"field": "price", "op": ">", "value": 280}]
    whole, given = shown(engine, where=rule), shown(engine, where=rule, items=[f"i{n}" for n in range(300)])
    expected = {f"i{n}" for n in range(300) if (n % 3 == 0 and n > 280) or (n % 3 == 1 and n + 1 > 280)}
    assert whole == given == expected


def test_columns_of_a_large_catalogue_are_read_before_they_are_needed() -> None:
    many = pa.table({"item_id": [f"i{n}" for n in range(30_000)], "price": np.arange(30_000.0)})
    few = pa.table({"item_id": ["a"], "price": [1.0]})
    columns = Columns(Part(many)).followed(few)
    assert columns.unread(["price", "category"]) == ["price", "category"]
    columns.read(["price"])
    assert columns.unread(["price", "category"]) == ["category"]
    assert columns.followed(few).unread(["price"]) == []
    assert Columns(Part(few)).unread(["price"]) == []


def test_an_item_that_is_there_twice_is_found_in_one_pass() -> None:
    class Name(str):
        compared = 0
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    items: list[str] = [Name(f"i{n}") for n in range(1_000)]
    baseline.check_items(items, 0, 1_000)
    with pytest.raises(RequestError, match="'i998' is there twice") as refused:
        baseline.check_items([*items[:999], Name("i998")], 2, 1_000)
    assert refused.value.loc == ("body", "requests", 2, "items", 999)
    assert Name.compared < 100
