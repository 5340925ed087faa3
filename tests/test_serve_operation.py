"""What operators rely on, on a real Ray Serve: metrics from Ray's endpoint, logs, an end that loses no answer."""

import json
import sqlite3
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.journal.journal import Reader, journal_url
from cluster.registry import DEFAULT_NAME
from serve import deploy
from serve.observed.metrics import CATALOGUE, Metrics
from serve.observed.prometheus import Exporter
from tests.served import Served, until

pytestmark = pytest.mark.ray

NODE = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "le"}
"""What Ray adds to a metric's own labels, and `le` of buckets."""


def samples(served: Served) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Sums over processes of what Prometheus would read, by name without `ray_` and our own labels."""
    with urllib.request.urlopen(served.about["metrics"], timeout=10) as answer:
        text = answer.read().decode()
    found: dict[Any, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_medley_"):
                own = {k: v for k, v in sample.labels.items() if k not in NODE and not k.startswith("otel_")}
                key = (sample.name.removeprefix("ray_"), tuple(sorted(own.items())))
                if sample.labels.get("le", "+Inf") == "+Inf":
                    found[key] = found.get(key, 0.0) + sample.value
    return found


def buckets(served: Served, route: str) -> dict[float, float]:
    """Calls of a route that took at most so many seconds."""
    with urllib.request.urlopen(served.about["metrics"], timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [sample for family in families for sample in family.samples if sample.labels.get("route") == route]
    return {float(s.labels["le"]): s.value for s in samples if s.name.endswith("_bucket")}


def in_metrics(served: Served) -> float:
    return sum(value for (name, _), value in samples(served).items() if name == "medley_decisions_total")


def test_prometheus_reads_what_was_counted(served: Served) -> None:
    reader = Reader(journal_url(served.settings))
    decided = reader.counts().get("decisions", 0)
    reader.close()
    until(lambda: in_metrics(served) == decided, "the decisions of the tests before")
    before = samples(served)

    def added(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return samples(served).get(key, 0.0) - before.get(key, 0.0)

    here = Metrics()
    for value in (0.0004, 0.0005, 0.0006, 0.15, 0.15, 99.0):
        here.observe("medley_http_request_seconds", value, "/here")
    exporter = Exporter(here)
    for n in range(7):
        answer = served.decide({"items": ["i1", "i2"]}, {"items": [f"i{n}"]})[1]
        reward = {"decision_id": answer["decisions"][0]["decision_id"], "value": 1.0}
        served.call("/v1/rewards", {"rewards": [reward, reward]})
    served.decide({"items": ["nothing"]})
    until(lambda: added("medley_decisions_total", client="shop", mode="live") == 14, "14 decisions in the metrics")
    assert added("medley_rewards_total", status="accepted") == 7
    assert added("medley_rewards_total", status="duplicate") == 7
    assert added("medley_http_requests_total", method="POST", route="/v1/decisions", status="200") == 7
    assert added("medley_http_requests_total", method="POST", route="/v1/decisions", status="422") == 1
    assert added("medley_http_request_seconds_count", route="/v1/decisions") == 8
    assert added("medley_decision_seconds_bucket") == 7
    until(lambda: added("medley_learner_outcomes_total") >= 14, "outcomes learned in the metrics")
    exporter.stop()
    until(lambda: added("medley_http_request_seconds_count", route="/here") == 6, "the histogram of this process")
    least = {0.0005: 2, 0.001: 3, 0.1: 3, 0.25: 5, 10.0: 5}
    assert {le: buckets(served, "/here")[le] for le in least} == least
    found = {name.removesuffix("_count") for name, _ in samples(served)}
    seldom = {name for name in CATALOGUE if "apprentice" in name or "fallback" in name or "histories" in name}
    seldom |= {"medley_rate_limited_total", "medley_learner_skipped_total", "medley_contexts_read_total"}
    seldom |= {"medley_predictions_total", "medley_contents_embedded_total", "medley_items_told_total"}
    assert set(CATALOGUE) - found <= seldom


def test_replicas_log_json_lines(served: Served) -> None:
    import ray

    served.decide({"items": ["there is no such item"]})
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())

    def refused() -> list[Any]:
        lines = [line for file in logs.glob("worker-*.err") for line in file.read_text().splitlines()]
        found = [json.loads(line) for line in lines if line.startswith('{"at":')]
        return [line for line in found if "there is no such item" in line.get("reason", "")]

    [line] = until(refused, "the refusal in a replica's log")
    assert (line["event"], line["client"], line["status"]) == ("refused", "shop", 422)


def test_a_call_in_flight_while_serving_ends_is_answered(served: Served) -> None:
    """The journal is locked from outside, so that the call cannot be answered before the end has begun."""
    answers: list[tuple[int, Any]] = []
    lock = sqlite3.connect(served.settings.home / "journal.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    call = threading.Thread(target=lambda: answers.append(served.decide({"items": ["i1"]})))
    call.start()
    end = threading.Thread(target=deploy.end, args=(served.settings, DEFAULT_NAME))
    try:
        call.join(0.5)
        end.start()
        call.join(2.0)
        assert (call.is_alive(), end.is_alive(), answers) == (True, True, [])
    finally:
        lock.execute("ROLLBACK")
        lock.close()
        call.join()
        end.join()
        deploy.deploy(served.settings)
    [(status, answer)] = answers
    assert status == 200
    reader = Reader(journal_url(served.settings))
    assert reader.decision(answer["decisions"][0]["decision_id"]) is not None
    reader.close()
