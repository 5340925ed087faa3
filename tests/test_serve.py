"""Serving on a real Ray Serve with its HAProxy ingress, as `python -m serve.deploy` starts it."""

import asyncio
import json
from typing import Any

import psutil
import pytest

from cluster import config
from cluster.errors import ClusterError
from cluster.registry import DEFAULT_NAME
from serve import deploy
from serve.decisions.histories import Missed, Recalled
from serve.processes import LearnerActor
from tests.served import Served, until
from tests.servers import free_port

pytestmark = pytest.mark.ray


def test_it_answers_through_haproxy_on_loopback_only(served: Served) -> None:
    assert (served.about["ingress"], served.about["version"]) == ("haproxy", 1)
    assert served.about["listens"] == ["127.0.0.1"]
    replica_ports = [
        c.laddr
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr and 30_000 <= c.laddr[1] < 30_100
    ]
    assert {address for address, _ in replica_ports} <= {"127.0.0.1"}
    status, answer = served.decide({"user_id": "u1", "context": {"device": "mobile"}})
    assert status == 200
    assert answer["decisions"][0]["mode"] == "live"
    assert json.loads((served.settings.home / "ingress.json").read_text())


def test_the_line_that_is_printed_works_when_pasted(served: Served) -> None:
    import subprocess

    line = deploy.curl_line(served.about["url"], served.key)
    printed = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(printed)["decisions"][0]["version"] == 1


def test_large_batches_are_decided_by_the_model_replicas(served: Served) -> None:
    requests = [{"items": [f"i{n % 12}"]} for n in range(served.settings.serve.models_batch)]
    status, answer = served.decide(*requests)
    assert status == 200
    assert [d["slots"][0]["item_id"] for d in answer["decisions"]] == [f"i{n % 12}" for n in range(len(requests))]
    refused, problem = served.decide(*requests, {"items": ["nothing"]})
    assert (refused, problem["detail"][0]["loc"]) == (422, ["body", "requests", len(requests), "items", 0])


def test_predictions_are_answered_as_decisions_score(served: Served) -> None:
    asked = {"user_id": "u1", "context": {"device": "mobile"}}
    body = {"requests": [asked | {"item_id": "i2"}, asked | {"content": {"title": "a red thing"}}]}
    status, answer = served.call("/v1/predictions", body)
    assert status == 200
    named, inline = answer["predictions"]
    slot = served.decide(asked | {"items": ["i2"]})[1]["decisions"][0]["slots"][0]
    assert named["probability"] == pytest.approx(slot["score"], abs=0.05), "a publication may come between"
    assert named["models"].keys() == slot["models"].keys()
    assert (inline["level"], inline["neighbours"]) == ("none", [])
    refused, problem = served.call("/v1/predictions", {"requests": [{"item_id": "nowhere"}]})
    assert (refused, problem["detail"][0]["loc"]) == (404, ["body", "requests", 0, "item_id"])


def test_rewards_are_learned_and_seen_by_the_replica(served: Served) -> None:
    request = {"user_id": "u7", "context": {"device": "mobile"}, "items": ["i2"]}

    def score() -> float:
        return float(served.decide(request)[1]["decisions"][0]["slots"][0]["score"])

    before = score()
    for _ in range(20):
        decision = served.decide(request)[1]["decisions"][0]
        reward = {"decision_id": decision["decision_id"], "value": 1.0}
        assert served.call("/v1/rewards", {"rewards": [reward]})[1]["accepted"] == 1
    until(lambda: score() > before + 0.05, "a better score")


def test_the_learner_s_actor_gives_histories(served: Served) -> None:
    """As a replica asks for those that it has no room for; the user's of the test before, and none of a stranger's."""
    missed = [Missed("shop", 1, "u7"), Missed("shop", 1, "stranger")]
    learner = LearnerActor(served.settings, DEFAULT_NAME)

    def learned() -> Recalled | None:
        (found,) = asyncio.run(learner.recall(missed))
        return found if found.histories["u7"] else None

    found = until(learned, "the user's history")
    assert found.epoch > 1
    assert len(found.histories["u7"]) > 0
    assert found.histories["stranger"] is None


def test_another_port_is_refused(served: Served) -> None:
    other = served.settings.model_copy(update={"serve": served.settings.serve.model_copy(update={"port": free_port()})})
    with pytest.raises(ClusterError, match=r"runs Serve at 127\.0\.0\.1"):
        deploy.deploy(other)


def test_a_port_in_use_is_named_with_its_holder(home: Any) -> None:
    import os
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"{port}.*in use by .*pid {os.getpid()}.*serve.port"):
            deploy.check_port("127.0.0.1", port)
    deploy.check_port("127.0.0.1", port)


def test_without_haproxy_the_default_proxy_serves_and_says_so(
    home: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/nowhere/haproxy")
    assert deploy.choose_ingress(config.load()) == "default"
    assert "default proxy" in capsys.readouterr().err
