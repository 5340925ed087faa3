"""Decisions and rewards as Arrow IPC streams: the same as JSON, and nothing larger than it looks."""

import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cluster import config
from cluster.config import Settings
from cluster.errors import RequestError
from serve.http import bulk
from serve.messages import Decisions, Rewards
from tests import serving
from tests.gateway_cases import locs, run
from tests.serving import Running


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def read(table: pa.Table, most: int = 100, **options: Any) -> Decisions:
    return bulk.read(stream(table, **options), Decisions, "requests", most)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Columns for the fields of any row (pyarrow alone takes those of the first)."""
    names = {name: None for row in rows for name in row}
    return pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})


def as_texts(rows: list[dict[str, Any]], *fields: str) -> list[dict[str, Any]]:
    return [{k: json.dumps(v) if k in fields else v for k, v in row.items()} for row in rows]


WHERE = [{"field": "price", "op": "<=", "value": 9}, {"field": "attributes.size", "op": "in", "value": ["s", "m"]}]
REQUESTS: list[dict[str, Any]] = [
    {"user_id": "u1", "context": {"device": "mobile", "hour": 3, "recent": ["i1", "i2"]}, "items": ["i1", "i2"]},
    {"context": {"hour": 7, "rate": None}, "items": ["i3"], "slots": 1, "request_id": "q"},
    {"user_id": "é", "exclude": ["i1"], "unseen_s": 60.0, "where": WHERE},
]


def test_rows_are_the_messages_that_json_would_have_been() -> None:
    same = Decisions.model_validate_json(json.dumps({"requests": REQUESTS}))
    assert read(table(as_texts(REQUESTS, "context", "where"))) == same
    structs = as_texts(REQUESTS, "where")
    without_null = [{**row, "context": {k: v for k, v in row.get("context", {}).items() if v}} for row in REQUESTS]
    assert read(table(structs)) == Decisions.model_validate({"requests": without_null})
    at = datetime(2026, 1, 1, 10, tzinfo=UTC)
    rewards = pa.table({"decision_id": ["a"], "value": [1], "at": pa.array([at], pa.timestamp("us", "UTC"))})
    [event] = bulk.read(stream(rewards), Rewards, "rewards", 10).rewards
    assert (event.value, event.at, event.kind) == (1.0, at, "reward")


@pytest.fixture
def published(home: Any) -> Settings:
    settings = config.load(rewards={"reward": {"window_s": 60}}, serve={"max_batch": 20})
    serving.publish(settings, serving.version())
    return settings


def test_decide_and_reward_by_streams(published: Settings) -> None:
    async def post(r: Running, path: str, rows: list[dict[str, Any]]) -> Any:
        headers = r.headers() | {"Content-Type": bulk.MEDIA_TYPE}
        return await r.http.post(path, content=stream(table(rows)), headers=headers)

    async def body(r: Running) -> None:
        rows = [
            {"user_id": f"u{n}", "items": [f"i{n}", f"i{n + 1}"], "slots": 2, "request_id": f"q{n}"} for n in range(9)
        ]
        answer = await post(r, "/v1/decisions", rows)
        assert (answer.status_code, answer.headers["content-type"]) == (200, bulk.MEDIA_TYPE)
        slots = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        assert [(slot["row"], slot["slot"]) for slot in slots] == [(n, k) for n in range(9) for k in (0, 1)]
        told = (await r.decide(*rows)).json()["decisions"]  # by request_id: the stored answers, now as JSON
        for slot in slots:
            decision = told[slot["row"]]
            own = decision["slots"][slot["slot"]]
            assert {**slot} == {
                "row": slot["row"],
                "slot": slot["slot"],
                **{name: decision[name] for name in ("decision_id", "version", "mode")},
                **{name: own[name] for name in ("item_id", "score", "propensity", "explored")},
            }
        rewards = [{"decision_id": slot["decision_id"], "slot": slot["slot"], "value": 1.0} for slot in slots[:3]]
        wrong = [{**rewards[0], "value": 9.0}, {**rewards[0], "decision_id": "forged"}]
        answer = await post(r, "/v1/rewards", rewards + rewards[:1] + wrong)
        found = pa.ipc.open_stream(answer.content).read_all().to_pylist()
        assert [row["status"] for row in found] == ["accepted"] * 3 + ["duplicate"] + ["rejected"] * 2
        assert "outside [0.0, 1.0]" in found[4]["reason"]
        refused = await post(r, "/v1/rewards", wrong)
        assert (refused.status_code, locs(refused)) == (
            404,
            [["body", "rewards", 0, "value"], ["body", "rewards", 1, "decision_id"]],
        )
        bad = await post(r, "/v1/decisions", [{"slots": 1}, {"slots": 0}])
        assert (bad.status_code, locs(bad)) == (422, [["body", "requests", 1, "slots"]])
        many = await post(r, "/v1/decisions", [{"slots": 1}] * 21)
        assert (many.status_code, locs(many)) == (413, [["body", "requests"]])

    run(published, body)


@pytest.mark.parametrize(
    ("columns", "loc", "message"),
    [
        (pa.table({"slots": [1.5]}), ("requests", 0, "slots"), "valid integer"),
        (pa.table({"user_id": [3]}), ("requests", 0, "user_id"), "valid string"),
        (pa.table({"context": [{"a": float("nan")}]}), ("requests", 0, "context", "a", "float"), "finite"),
    ],
)
def test_a_wrong_value_is_named_with_its_row_and_field(columns: pa.Table, loc: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(columns)
    assert any(fault["loc"] == loc and message in fault["msg"] for fault in refused.value.errors())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no Arrow IPC stream"),
        (b"x" * 500, "no Arrow IPC stream"),
        (stream(pa.table({"slots": [1]}))[:-60], "no Arrow IPC stream"),
        (stream(pa.table({"user": ["u"]})), "body.requests.user: no such field"),
        (stream(pa.table({f"c{n}": pa.nulls(9) for n in range(20_000)})), "no such field"),
        (
            stream(pa.table({"context": pa.array([None], pa.struct([(f"c{n}", pa.null()) for n in range(257)]))})),
            "257 keys",
        ),
        (stream(pa.table({"context": ["{"]})), "requests.0.context: no JSON"),
        (stream(pa.table([["a"], ["b"]], ["user_id", "user_id"])), "there twice"),
        (stream(pa.table({"user_id": pa.array(["u"] * 9).dictionary_encode()})), "a column of dictionary"),
        (stream(pa.table({"user_id": pa.array([[None]], pa.list_(pa.null()))})), "a column of list<"),
        (stream(pa.table({"context": pa.array([{}], pa.struct([]))})), "a column of struct<>"),
        (stream(pa.table({"context": pa.array([{"a": {"b": 1}}])})), "a column of struct<b"),
        (stream(pa.table({"where": pa.array([[{"a": 1}]])})), "a column of list<"),
        (stream(pa.table({"user_id": pa.array([b"\xff"]).cast(pa.string(), safe=False)})), "no Arrow IPC stream"),
        (stream(pa.table({"user_id": ["u" * 5_000] * 50}), compression="zstd"), "compressed buffers"),
        (stream(pa.table({"user_id": ["u" * 5_000] * 50}), compression="lz4"), "compressed buffers"),
        (stream(pa.table({"request_id": pa.nulls(10**9)})), "1000000000 in one call; at most 100"),
    ],
)
def test_streams_that_may_not_be(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        bulk.read(body, Decisions, "requests", 100)


GOOD = stream(table(as_texts(REQUESTS, "where")))


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_stream_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(GOOD)
    for place, byte in changes:
        damaged[place] = byte
    try:
        read = bulk.read(bytes(damaged), Decisions, "requests", 100)
    except (RequestError, ValidationError):
        return
    assert 1 <= len(read.requests) <= 100
    assert Decisions.model_validate_json(read.model_dump_json(exclude_unset=True)) == read
