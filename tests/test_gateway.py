"""HTTP from end to end in one process: a real engine, a real journal on disk, real keys."""

import asyncio
import json
import sqlite3
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cluster import config
from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.keys import Keys, Limits
from cluster.registry import DEFAULT_NAME
from serve.ids import DecisionIds
from tests import serving
from tests.gateway_cases import REQUEST, locs, run, shop
from tests.serving import Running


@pytest.fixture
def published(home: Any) -> Settings:
    return shop()


def test_decide_and_reward(published: Settings) -> None:
    async def body(r: Running) -> None:
        answer = await r.decide(REQUEST)
        assert answer.status_code == 200
        decision = answer.json()["decisions"][0]
        assert (decision["version"], decision["mode"], len(decision["slots"])) == (1, "live", 2)
        event = {"decision_id": decision["decision_id"], "slot": 1, "value": 1.0}
        assert (await r.reward(event)).json() == {"accepted": 1, "duplicates": 0, "rejected": []}
        assert (await r.reward(event)).json() == {"accepted": 0, "duplicates": 1, "rejected": []}
        with sqlite3.connect(published.home / "journal.db") as database:
            stored = database.execute("SELECT decision_id, client, answer FROM journal_decisions").fetchall()
            rewards = database.execute("SELECT decision_id, slot, value FROM journal_rewards").fetchall()
        database.close()
        assert [(row[0], row[1], json.loads(row[2])) for row in stored] == [(decision["decision_id"], "shop", decision)]
        assert rewards == [(decision["decision_id"], 1, 1.0)]

    run(published, body)


def test_batches_keep_their_order_in_the_loop_and_in_a_thread(published: Settings) -> None:
    async def body(r: Running) -> None:
        for number in (2, 20):
            answer = await r.decide(*[{"items": [f"i{n % 12}"]} for n in range(number)])
            chosen = [decision["slots"][0]["item_id"] for decision in answer.json()["decisions"]]
            assert chosen == [f"i{n % 12}" for n in range(number)]
        refused = await r.decide(*[{"items": ["i1"]}] * 21)
        assert (refused.status_code, locs(refused)) == (413, [["body", "requests"]])

    run(published, body)


def test_one_bad_request_refuses_the_call_and_is_named(published: Settings) -> None:
    async def body(r: Running) -> None:
        answer = await r.decide({"items": ["i1"]}, {"items": ["i1", "none"]})
        assert (answer.status_code, locs(answer)) == (422, [["body", "requests", 1, "items", 1]])
        with sqlite3.connect(published.home / "journal.db") as database:
            assert database.execute("SELECT count(*) FROM journal_decisions").fetchone() == (0,)
        database.close()

    run(published, body)


def test_a_retry_with_its_request_id_gets_the_stored_answer(published: Settings) -> None:
    async def body(r: Running) -> None:
        request = {**REQUEST, "request_id": "q1"}
        first, again = await r.decide(request), await r.decide(request)
        assert first.json() == again.json()
        together = await r.decide(request, {**REQUEST, "request_id": "q2"}, {**REQUEST, "request_id": "q2"})
        decisions = together.json()["decisions"]
        assert decisions[0] == first.json()["decisions"][0]
        assert decisions[1] == decisions[2]
        changed = await r.decide({**request, "slots": 1})
        assert (changed.status_code, locs(changed)) == (422, [["body", "requests", 0, "request_id"]])
        other = await r.decide(request, client="other")
        assert other.json()["decisions"][0]["decision_id"] != decisions[0]["decision_id"]

    run(published, body)


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer x", "Basic x", "Bearer medley_0123456789abcdef_" + "A" * 43, "Bearer é"]
)
def test_without_a_valid_key_nothing_is_answered(published: Settings, header: str | None) -> None:
    async def body(r: Running) -> None:
        headers = {} if header is None else {"Authorization": header.encode()}
        for method, path in [
            ("POST", "/v1/decisions"),
            ("POST", "/v1/rewards"),
            ("GET", "/v1/items"),
            ("PUT", "/v1/items/a"),
            ("DELETE", "/v1/items/i1"),
            ("GET", "/v1/versions"),
            ("GET", "/v1/weights"),
        ]:
            answer = await r.http.request(method, path, headers=headers)
            assert (answer.status_code, locs(answer)) == (401, [["header", "authorization"]])
            assert answer.headers["www-authenticate"] == "Bearer"

    run(published, body)


def test_keys_open_their_own_side_only(published: Settings) -> None:
    async def body(r: Running) -> None:
        operator = {"Authorization": f"Bearer {r.operator}"}
        assert (await r.http.get("/v1/versions", headers=operator)).json()["current"] == 1
        assert (await r.http.get("/v1/versions", headers=r.headers())).status_code == 403
        assert (await r.http.get("/v1/weights", headers=r.headers())).status_code == 403
        assert (await r.http.get("/v1/items", headers=operator)).status_code == 403

    run(published, body)


def test_new_and_revoked_keys_are_noticed(published: Settings) -> None:
    quick = published.model_copy(update={"serve": published.serve.model_copy(update={"keys_refresh_s": 0.2})})

    async def body(r: Running) -> None:
        keys = Keys(Database(url_of(quick)))
        assert (await r.decide(REQUEST)).status_code == 200
        await asyncio.sleep(1.05)  # an unknown key is looked up again after a second
        r.keys["new"] = keys.create_key("other")
        assert (await r.decide(REQUEST, client="new")).status_code == 200
        keys.revoke(r.keys["new"].split("_")[1])
        await asyncio.sleep(0.5)
        assert (await r.decide(REQUEST, client="new")).status_code == 401

    run(quick, body)


def test_forged_and_foreign_decisions_are_not_found_and_early_ones_wait(published: Settings) -> None:
    async def body(r: Running) -> None:
        mine = (await r.decide(REQUEST)).json()["decisions"][0]["decision_id"]
        forged = DecisionIds(b"another secret of 32 bytes length").new("shop")
        foreign = await r.reward({"decision_id": mine, "value": 1}, client="other")
        assert (foreign.status_code, locs(foreign)) == (404, [["body", "rewards", 0, "decision_id"]])
        assert (await r.reward({"decision_id": forged, "value": 1})).status_code == 404
        assert (await r.reward({"decision_id": "x", "value": 1})).status_code == 404
        early = DecisionIds(r.journal.secret).new("shop")
        assert (await r.reward({"decision_id": early, "value": 1})).json()["accepted"] == 1
        mixed = await r.reward({"decision_id": mine, "value": 1}, {"decision_id": forged, "value": 1})
        assert mixed.status_code == 200
        assert mixed.json()["accepted"] == 1
        assert [fault["index"] for fault in mixed.json()["rejected"]] == [1]

    run(published, body)


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"value": 1.5}, "value"),
        ({"kind": "stars", "value": 0.5}, "value"),
        ({"kind": "clicks"}, "kind"),
        ({"slot": 2}, "slot"),
        ({"slot": -1}, "slot"),
        ({"value": "1"}, "value"),
        ({"value": None}, "value"),
        ({"at": "yesterday"}, "at"),
        ({"at": "2026-01-01T10:00:00"}, "at"),
        ({"reward_id": ""}, "reward_id"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_wrong_reward_names_its_field(published: Settings, change: dict[str, Any], loc: str) -> None:
    async def body(r: Running) -> None:
        decision = (await r.decide(REQUEST)).json()["decisions"][0]
        answer = await r.reward({"decision_id": decision["decision_id"], "value": 1.0, **change})
        assert answer.status_code == 422
        assert locs(answer)[0][:3] == ["body", "rewards", 0]
        assert locs(answer)[0][3] == loc

    run(published, body)


def test_too_large_and_unknown(published: Settings) -> None:
    async def body(r: Running) -> None:
        large = await r.decide({"context": {"a": "x" * 9_000, "b": "x" * 9_000, "c": "x" * 9_000}})
        assert (large.status_code, locs(large)) == (413, [["body"]])
        many = await r.decide({"items": [str(n) for n in range(51)]})
        assert (many.status_code, locs(many)) == (422, [["body", "requests", 0, "items"]])
        assert (await r.http.get("/v1/nothing")).status_code == 404
        assert (await r.http.get("/v1/decisions")).status_code == 405
        assert (await r.http.get("/v1/items?limit=0", headers=r.headers())).status_code == 422
        misspelt = await r.http.get("/v1/items?limt=5", headers=r.headers())
        assert (misspelt.status_code, locs(misspelt)) == (422, [["query", "limt"]])
        assert (await r.http.post("/v1/decisions?x", json={}, headers=r.headers())).status_code == 422

    run(published, body)


def test_a_key_with_limits_of_its_own(published: Settings) -> None:
    async def body(r: Running) -> None:
        keys = Keys(Database(url_of(published)))
        keys.limit(r.keys["shop"].split("_")[1], Limits(rate_per_s=0.5, burst=4, max_body_bytes=300))
        assert (await r.decide(*[{"items": ["i1"]}] * 3)).status_code == 200
        refused = await r.decide(*[{"items": ["i1"]}] * 2)
        assert (refused.status_code, locs(refused)) == (429, [["header", "authorization"]])
        assert (
            refused.headers["retry-after"] == "4"
        )  # two requests, at one in two seconds: reading it took what was left
        assert (await r.http.get("/v1/items", headers=r.headers())).status_code == 429
        keys.limit(r.keys["shop"].split("_")[1], Limits(max_body_bytes=300))
        await asyncio.sleep(0.5)
        large = await r.decide({"context": {"a": "x" * 300}})
        assert (large.status_code, locs(large)) == (413, [["body"]])
        assert (await r.decide({"context": {"a": "x" * 300}}, client="other")).status_code == 200

    quick = published.model_copy(update={"serve": published.serve.model_copy(update={"keys_refresh_s": 0.1})})
    run(quick, body)


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/decisions", b'{"requests":[{"bad":1}]}', 422),
        ("POST", "/v1/decisions", b'{"requests":[' + b",".join([b"{}"] * 5) + b"]}", 413),  # more than the burst
        ("POST", "/v1/decisions", b"x" * 20_001, 413),
        ("POST", "/v1/rewards", b"{", 422),
        ("PUT", "/v1/items/a", b'{"price":"x"}', 422),
    ],
)
def test_a_body_that_is_refused_costs_a_token(
    published: Settings, method: str, path: str, content: bytes, status: int
) -> None:
    limits = {"rate_per_s": 0.001, "burst": 3}

    async def body(r: Running) -> None:
        answers = [await r.http.request(method, path, content=content, headers=r.headers()) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [status] * 3 + [429] * 2

    run(published.model_copy(update={"serve": published.serve.model_copy(update=limits)}), body)


def test_too_many_requests_are_refused_before_they_are_validated(home: Any) -> None:
    settings = config.load(serve={"max_batch": 20})
    serving.publish(settings, serving.version())

    async def body(r: Running) -> None:
        for padding, status in ((0, 422), (70_000, 413)):  # in the event loop, in a thread
            for path, name in (("decisions", "requests"), ("rewards", "rewards")):
                content = json.dumps({name: [{"bad": 1}] * 21}) + " " * padding
                answer = await r.http.post(f"/v1/{path}", content=content, headers=r.headers())
                assert answer.status_code == status
        fine = json.dumps({"requests": [{"items": ["i1"]}]}) + " " * 70_000
        assert (await r.http.post("/v1/decisions", content=fine, headers=r.headers())).status_code == 200
        for wrong in ("[" * 70_000, "x" * 70_000, "[]" + " " * 70_000, '{"requests":1}' + " " * 70_000):
            assert (await r.http.post("/v1/decisions", content=wrong, headers=r.headers())).status_code == 422

    run(settings, body)


def test_no_room_is_503_and_health_says_so(published: Settings) -> None:
    async def body(r: Running) -> None:
        store = r.journal._store
        assert store is not None
        pages = store.sql.one("PRAGMA page_count")
        store.sql.one(f"PRAGMA max_page_count = {pages}")
        statuses = [(await r.decide(*[REQUEST] * 20)).status_code for _ in range(20)]
        assert statuses[-1] == 503
        assert set(statuses) <= {200, 503}
        health = await r.http.get("/v1/health")
        assert health.status_code == 503
        assert "disk has space" in health.json()["detail"][0]["msg"]
        store.sql.one("PRAGMA max_page_count = 1000000")
        assert (await r.decide(REQUEST)).status_code == 200
        assert (await r.http.get("/v1/health")).json()["status"] == "ready"

    run(published, body)


def test_before_any_version(home: Any) -> None:
    async def body(r: Running) -> None:
        assert (await r.http.get("/v1/health")).json()["status"] == "baseline"
        answer = await r.decide({"items": ["a", "b"], "baseline_item": "b"})
        assert answer.json()["decisions"][0]["mode"] == "baseline"
        assert (await r.decide({})).status_code == 422
        assert (await r.http.put("/v1/items/new", json={}, headers=r.headers())).status_code == 200
        serving.publish(config.load(), serving.version())
        await r.replica.look()
        assert (await r.decide({"items": ["new", "i1"]})).json()["decisions"][0]["version"] == 1

    run(config.load(), body)


def test_a_damaged_version_leaves_the_one_before(published: Settings) -> None:
    async def body(r: Running) -> None:
        assert serving.publish(published, serving.version(seed=1)) == 2
        (published.home / "registry" / DEFAULT_NAME / "versions" / "2" / "arrays.safetensors").write_bytes(b"cut")
        await r.replica.look()
        assert (await r.decide(REQUEST)).json()["decisions"][0]["version"] == 1
        serving.publish(published, serving.version(seed=2))
        await r.replica.look()
        assert (await r.decide(REQUEST)).json()["decisions"][0]["version"] == 3

    run(published, body)

    (published.home / "registry" / DEFAULT_NAME / "versions" / "3" / "items.parquet").write_bytes(b"cut")

    async def with_the_last_two_damaged(r: Running) -> None:
        assert (await r.decide(REQUEST)).json()["decisions"][0]["version"] == 1

    run(published, with_the_last_two_damaged)


def test_the_document_names_every_route_and_body(published: Settings) -> None:
    async def body(r: Running) -> None:
        document = (await r.http.get("/openapi.json")).json()
        assert set(document["paths"]) == {
            "/v1/decisions", "/v1/rewards", "/v1/items/{item_id}", "/v1/items", "/v1/versions", "/v1/weights",
            "/v1/health", "/v1/clients/{client_id}", "/v1/predictions",
        }  # fmt: skip
        post = document["paths"]["/v1/decisions"]["post"]
        name = post["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
        assert "requests" in document["components"]["schemas"][name]["properties"]
        text = json.dumps(document)
        for reference in {part.split('"')[0] for part in text.split('"$ref": "#/components/schemas/')[1:]}:
            assert reference in document["components"]["schemas"]
        assert (await r.http.get("/docs")).status_code == 200

    run(published, body)


BODY = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["requests", "rewards", "items", "context", "slots", "value", "decision_id", "x"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


@hypothesis_settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(BODY, min_size=30, max_size=60))
def test_no_body_gives_a_500(published: Settings, bodies: list[bytes]) -> None:
    async def check(r: Running) -> None:
        for body in bodies:
            for method, path in [("POST", "/v1/decisions"), ("POST", "/v1/rewards"), ("PUT", "/v1/items/x")]:
                answer = await r.http.request(method, path, content=body, headers=r.headers())
                assert answer.status_code in (200, 404, 413, 422), (body, answer.text)
                if answer.status_code != 200:
                    assert answer.json()["detail"][0]["loc"]

    run(published, check)
