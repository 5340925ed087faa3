"""Counts of calls in the test's own process: what each call adds, and what is logged of it."""

import asyncio
import json
import logging
import re
import sqlite3
import threading
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import config
from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.keys import Keys, Limits
from serve.observed.metrics import CATALOGUE, Metrics
from serve.observed.prometheus import Exporter
from tests import serving
from tests.gateway_cases import run
from tests.servers import free_port
from tests.serving import Running
from tests.test_imports import ROOT

REQUEST = {"user_id": "u1", "context": {"device": "mobile"}, "items": ["i1", "i2"]}


@pytest.fixture
def published(home: Any) -> Settings:
    settings = config.load(rewards={"reward": {"window_s": 60}}, serve={"log_decisions": True, "drain_s": 10})
    serving.publish(settings, serving.version())
    return settings


def counts(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (found, labels), value in metrics.counts.items() if found == name and value}


def observed(metrics: Metrics, name: str) -> int:
    return sum(sum(found) for (key, _), found in metrics.buckets.items() if key == name)


def test_every_call_is_counted_by_what_became_of_it(published: Settings) -> None:
    async def body(r: Running) -> None:
        metrics = r.metrics
        keys = Keys(Database(url_of(published)))
        keys.limit(r.keys["other"].split("_")[1], Limits(rate_per_s=0.01, burst=1))
        decisions = (await r.decide(REQUEST, REQUEST)).json()["decisions"]
        again = {**REQUEST, "request_id": "q"}
        await r.decide(again)
        await r.decide(again)
        first, second = (decision["decision_id"] for decision in decisions)
        await r.reward({"decision_id": first, "value": 1.0}, {"decision_id": second, "value": 7.0})
        await r.reward({"decision_id": first, "value": 1.0}, {"decision_id": first, "slot": 4, "value": 1.0})
        assert [(await r.decide(REQUEST, client="other")).status_code for _ in range(3)] == [200, 429, 429]
        await r.decide({"items": ["nothing"]})
        await r.http.get("/v1/items/i1", headers=r.headers())
        await r.http.get("/elsewhere")
        await r.http.request("BREW", "/v1/decisions")
        assert counts(metrics, "medley_http_requests_total") == {
            ("POST", "/v1/decisions", "200"): 4,
            ("POST", "/v1/decisions", "429"): 2,
            ("POST", "/v1/decisions", "422"): 1,
            ("POST", "/v1/rewards", "200"): 2,
            ("GET", "/v1/items/{item_id}", "200"): 1,
            ("GET", "other", "404"): 1,
            ("other", "/v1/decisions", "405"): 1,
        }
        assert counts(metrics, "medley_decisions_total") == {("shop", "live"): 3, ("other", "live"): 1}
        assert counts(metrics, "medley_rate_limited_total") == {("other",): 2}
        assert counts(metrics, "medley_rewards_total") == {
            ("accepted",): 1,
            ("duplicate",): 1,
            ("no_slot",): 1,
            ("rejected",): 1,
        }
        assert observed(metrics, "medley_http_request_seconds") == 12
        assert observed(metrics, "medley_decision_seconds") == 4
        assert observed(metrics, "medley_journal_commit_seconds") == 6
        assert metrics.levels["medley_version", ()]() == 1
        assert metrics.levels["medley_http_requests_in_flight", ()]() == 0
        assert {name for name, _ in [*metrics.counts, *metrics.buckets, *metrics.levels]} <= set(CATALOGUE)
        assert 0 < metrics.p95_ms() < 60_000

    run(published, body)


def test_decisions_and_refusals_are_logged_with_what_one_needs(
    published: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(r: Running) -> None:
        decision = (await r.decide(REQUEST)).json()["decisions"][0]
        for _ in range(12):
            await r.decide({"items": ["nothing"]})
            await r.http.get("/v1/items")
        lines = [(record.getMessage(), record.fields) for record in caplog.records if hasattr(record, "fields")]
        (fields,) = [fields for event, fields in lines if event == "decision"]
        assert {**fields, "ms": 0} == {
            "decision_id": decision["decision_id"],
            "client": "shop",
            "version": 1,
            "mode": "live",
            "ms": 0,
        }
        refused = [fields for event, fields in lines if event == "refused"]
        unprocessable = [fields for fields in refused if fields["status"] == 422]
        assert len(unprocessable) == 10
        assert unprocessable[0]["client"] == "shop"
        assert unprocessable[0]["call"] == "POST /v1/decisions"
        assert unprocessable[0]["reason"].startswith("body.requests.0.items.0: unknown item 'nothing'")
        assert len([fields for fields in refused if fields["status"] == 401]) == 1

    with caplog.at_level(logging.INFO, "serve"):
        run(published, body)


def test_slow_calls_are_logged_without_log_decisions(published: Settings, caplog: pytest.LogCaptureFixture) -> None:
    serve = published.serve.model_copy(update={"log_decisions": False, "slow_ms": 0.001})

    async def body(r: Running) -> None:
        await r.decide(REQUEST)

    with caplog.at_level(logging.INFO, "serve"):
        run(published.model_copy(update={"serve": serve}), body)
    assert [record.levelname for record in caplog.records if record.getMessage() == "slow"] == ["WARNING"]


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300))
def test_p95_is_the_nearest_rank(times_ms: list[float]) -> None:
    metrics = Metrics(lambda: 0.0)
    for time_ms in times_ms:
        metrics.decided(time_ms / 1e3)
    rank = -(-95 * len(times_ms) // 100)  # the definition: the least value that 95 % do not exceed
    assert metrics.p95_ms() == pytest.approx(sorted(times_ms)[rank - 1])


def test_p95_forgets_what_is_older_than_its_window() -> None:
    now = [0.0]
    metrics = Metrics(lambda: now[0])
    metrics.decided(5.0)
    now[0] = 10.5
    assert metrics.p95_ms() == 0.0
    metrics.decided(0.25)
    assert metrics.p95_ms() == 250.0


def test_a_value_falls_into_the_bucket_whose_bound_it_does_not_exceed() -> None:
    metrics = Metrics()
    for value in (0.0005, 0.0006, 10.0, 11.0):
        metrics.observe("medley_decision_seconds", value)
    assert metrics.buckets["medley_decision_seconds", ()] == [1, 1] + [0] * 12 + [1, 1]


def test_a_call_in_flight_is_answered_before_the_end(published: Settings) -> None:
    """Over a real HTTP server: the journal's database is locked from outside while the replica is told to stop."""
    import uvicorn

    async def body() -> None:
        async with serving.running(published) as r:
            server = uvicorn.Server(uvicorn.Config(r.parts.app, port=(port := free_port()), log_level="error"))
            serving_task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=r.headers()) as http:
                assert (await http.get("/v1/health")).status_code == 200
                lock = sqlite3.connect(published.home / "journal.db", isolation_level=None)
                lock.execute("BEGIN IMMEDIATE")
                call = asyncio.create_task(http.post("/v1/decisions", json={"requests": [REQUEST]}))
                while not r.gateway.edge.calls:
                    await asyncio.sleep(0.01)
                stop = asyncio.create_task(r.parts.stop())
                health = await http.get("/v1/health")
                assert health.status_code == 503
                assert "draining" in health.json()["detail"][0]["msg"]
                await asyncio.sleep(0.2)
                assert not call.done()
                assert not stop.done()
                lock.execute("ROLLBACK")
                lock.close()
                answer = await call
                assert answer.status_code == 200
                await stop
                late = await http.post("/v1/decisions", json={"requests": [REQUEST]})
                assert (late.status_code, late.headers["retry-after"]) == (503, "1")
            server.should_exit = True
            await serving_task
        with sqlite3.connect(published.home / "journal.db") as database:
            kept = database.execute("SELECT decision_id FROM journal_decisions").fetchall()
        database.close()
        assert kept == [(answer.json()["decisions"][0]["decision_id"],)]

    asyncio.run(body())
    assert "journal" not in [thread.name for thread in threading.enumerate()]


def test_a_level_that_cannot_be_read_is_told_once_and_does_not_end_the_exporter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    reads = []

    def broken() -> float:
        reads.append(1)
        raise OSError("the database is away")

    metrics.level("medley_version", broken)
    exporter = Exporter(metrics)
    while len(reads) < 1:
        time.sleep(0.01)
    exporter.stop()  # hands over once more
    assert len(reads) == 2
    assert [record.getMessage() for record in caplog.records] == ["metrics cannot be handed over"]


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    """Every name in a query is in the catalogue, with labels that it has; every metric of the catalogue is shown."""
    board = json.loads((ROOT / "docs" / "grafana.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    used = set()
    for query in queries:
        assert query.count("(") == query.count(")")
        names = {re.sub("_bucket$", "", name) for name in re.findall(r"ray_(medley_\w+)", query)}
        used |= names
        labels = set(re.findall(r"[{,]\s*(\w+)=", query))
        for group in re.findall(r"by \(([\w, ]+)\)", query):
            labels |= set(group.split(", "))
        assert names
        assert labels <= {"le"}.union(*(CATALOGUE[name].labels for name in names))
    assert used == set(CATALOGUE)
    rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
    assert rows == ["Traffic", "Latency", "Rewards", "Learning", "Fallbacks"]
    cells = [(p["gridPos"]["x"] + dx, p["gridPos"]["y"]) for p in board["panels"] for dx in range(p["gridPos"]["w"])]
    assert len(cells) == len(set(cells))  # no panel lies on another
    assert max(x for x, _ in cells) == 23
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def test_the_document_lists_every_metric_with_its_labels() -> None:
    text = (ROOT / "docs" / "serving.md").read_text()
    listed = dict(re.findall(r"^\| `(medley_\w+)(?:{([\w,]+)})?` \|", text, re.MULTILINE))
    assert listed == {name: ",".join(family.labels) for name, family in CATALOGUE.items()}
