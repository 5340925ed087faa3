"""A client's own catalogue over HTTP: put, got, deleted, and what decisions know of it."""

import asyncio
from typing import Any

import pytest

from cluster import config
from cluster.config import Settings
from cluster.journal.journal import DecisionRecord, ItemRecord, Reader, journal_url
from cluster.registry import DEFAULT_NAME
from serve.app import ModelDeployment
from serve.decisions.asked import Bundle
from serve.replica import Replica
from tests import serving
from tests.gateway_cases import locs, run, shop
from tests.serving import Running


@pytest.fixture
def published(home: Any) -> Settings:
    return shop()


def test_items(published: Settings) -> None:
    async def body(r: Running) -> None:
        headers = r.headers()
        made = {"title": "a lamp", "category": "red", "price": 3.5, "attributes": {"watts": 40, "tags": ["a", "b"]}}
        put = await r.http.put("/v1/items/lamp 7/x", json=made, headers=headers)
        assert put.status_code == 200
        assert put.json() == {
            "item_id": "lamp 7/x", "provider_id": None, "description": None, "brand": None, "embedding": None,
            "created_at": None, "expires_at": None, **made,
        }  # fmt: skip
        assert (await r.http.get("/v1/items/lamp 7/x", headers=headers)).json() == put.json()
        assert (await r.decide({"items": ["lamp 7/x"]})).status_code == 200
        assert (await r.decide({"items": ["lamp 7/x"]}, client="other")).status_code == 422
        assert (await r.http.get("/v1/items/lamp 7/x", headers=r.headers("other"))).status_code == 404
        assert (await r.http.delete("/v1/items/i2", headers=headers)).status_code == 204
        assert (await r.http.delete("/v1/items/i2", headers=headers)).status_code == 404
        assert (await r.decide({"items": ["i2"]})).status_code == 422
        first = (await r.http.get("/v1/items?limit=8", headers=headers)).json()
        rest = (await r.http.get(f"/v1/items?limit=8&after={first['next']}", headers=headers)).json()
        found = [item["item_id"] for item in first["items"] + rest["items"]]
        assert sorted(found) == sorted([f"i{n}" for n in range(12) if n != 2] + ["lamp 7/x"])
        assert rest["next"] is None
        assert (await r.http.get("/v1/items/i4", headers=headers)).json()["category"] == "green"

    run(published, body)

    async def after_a_restart(r: Running) -> None:
        assert (await r.decide({"items": ["lamp 7/x"]})).status_code == 200
        assert (await r.decide({"items": ["i2"]})).status_code == 422

    run(published, after_a_restart)


@pytest.mark.parametrize(
    ("path", "item", "loc"),
    [
        ("a", {"price": "x"}, ["body", "price"]),
        ("a", {"colour": "red"}, ["body", "colour"]),
        ("a", {"attributes": {"x": {}}}, ["body", "attributes", "x"]),
        ("a", {"item_id": "b"}, ["body", "item_id"]),
        ("a%00b", {}, ["path", "item_id"]),
        ("a" * 257, {}, ["path", "item_id"]),
    ],
)
def test_a_wrong_item_names_its_field(published: Settings, path: str, item: dict[str, Any], loc: list[str]) -> None:
    async def body(r: Running) -> None:
        answer = await r.http.put(f"/v1/items/{path}", json=item, headers=r.headers())
        assert (answer.status_code, locs(answer)) == (422, [loc])

    run(published, body)


class Models:
    """One model replica of the `models` deployment, without Ray; `replica` does not look by itself."""

    def __init__(self, settings: Settings) -> None:
        self.replica = Replica(settings, DEFAULT_NAME, self._none)
        self._deployment = ModelDeployment.__new__(ModelDeployment)
        self._deployment._replica, self._deployment._in_work = self.replica, 0
        self.answered: list[bool] = []

    async def decide(self, bundle: Bundle) -> list[DecisionRecord] | None:
        records = await self._deployment.decide(bundle)
        self.answered.append(records is not None)
        return records

    def _none(self) -> Any:
        raise ConnectionError("this test has no learner")


def test_a_callers_own_changes_hold_in_large_calls_too(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load(serve={"models_batch": 4, "versions_refresh_s": 3_600})
    serving.publish(settings, serving.version())

    async def body(r: Running) -> None:
        models = Models(settings)
        await models.replica.look()
        monkeypatch.setattr(r.parts.deciding, "_models", models)
        assert (await r.http.put("/v1/items/fresh", json={}, headers=r.headers())).status_code == 200
        assert (await r.decide(*[{"items": ["fresh", "i1"]}] * 8)).status_code == 200
        assert (await r.http.delete("/v1/items/i2", headers=r.headers())).status_code == 204
        for decision in (await r.decide(*[{"slots": 12}] * 8)).json()["decisions"]:
            assert {slot["item_id"] for slot in decision["slots"]} == {f"i{n}" for n in range(12) if n != 2} | {"fresh"}
        assert models.answered == [True, True]
        monkeypatch.setattr(models.replica._reader, "changes", lambda after: [])  # it cannot see the next change
        assert (await r.http.put("/v1/items/later", json={}, headers=r.headers())).status_code == 200
        assert (await r.decide(*[{"items": ["later", "i1"]}] * 8)).status_code == 200
        assert models.answered == [True, True, False]
        await models.replica.stop()

    run(settings, body)


def test_a_replicas_own_change_follows_those_of_others_before_it(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decision's revision says that it knows all changes up to it, and their order is that of the items."""
    monkeypatch.setattr(Replica, "_again", lambda *_: asyncio.sleep(0))  # it looks once, at its start
    settings = config.load()
    serving.publish(settings, serving.version())

    async def body(r: Running) -> None:
        await asyncio.wrap_future(r.journal.items([ItemRecord("shop", "a", "{}"), ItemRecord("other", "x", "{}")]))
        assert (await r.decide({"items": ["a"]})).status_code == 422  # another replica's, not read yet
        answers = await asyncio.gather(
            *[r.http.put(f"/v1/items/{name}", json={}, headers=r.headers()) for name in ("b", "c")]
        )
        assert [answer.status_code for answer in answers] == [200, 200]
        engine, written = r.replica.engine, Reader(journal_url(settings)).changes(0)
        assert engine.revision("shop") == 4
        assert engine.item_ids("shop")[12:] == tuple(one.item_id for _, one in written if one.client == "shop")
        assert engine.item_ids("other")[12:] == ("x",)
        assert (await r.decide({"items": ["a", "b", "c"]})).status_code == 200

    run(settings, body)
