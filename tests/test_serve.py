"""Serving on a real Ray Serve with its HAProxy ingress, as `python -m serve.deploy` starts it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest

from cluster import config, session
from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.errors import ClusterError
from cluster.journal import Reader, journal_url
from cluster.keys import Keys
from cluster.registry import DEFAULT_NAME
from serve import deploy
from tests import serving
from tests.servers import free_port

pytestmark = pytest.mark.ray
WAIT_S = 60.0


@dataclass
class Served:
    settings: Settings
    about: dict[str, Any]
    key: str

    def call(self, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key or self.key}"}
        request = urllib.request.Request(self.about["url"] + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def decide(self, *requests: dict[str, Any]) -> tuple[int, Any]:
        return self.call("/v1/decisions", {"requests": requests})


@pytest.fixture(scope="module")
def served(ray_session: session.Session, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = config.load(
        home=tmp_path_factory.mktemp("serve-home"),
        rewards={"reward": {"window_s": 0.5}},
        serve={"port": free_port(), "versions_refresh_s": 0.5, "checkpoint_s": 1.0},
    )
    serving.publish(settings, serving.version())
    about = deploy.deploy(settings)
    keys = Keys(Database(url_of(settings)))
    keys.create_client("shop")
    yield Served(settings, about, keys.create_key("shop"))
    deploy.shut_down()


def until(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


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


def test_the_learner_comes_back_after_a_kill(served: Served) -> None:
    import ray

    from serve import app

    name = app.learner_name(served.settings, DEFAULT_NAME)
    actor: Any = ray.get_actor(name, namespace=app.NAMESPACE)
    before = ray.get(actor.position.remote(), timeout=WAIT_S)
    ray.kill(actor, no_restart=False)
    started = time.monotonic()

    def position() -> Any:
        try:
            return ray.get(ray.get_actor(name, namespace=app.NAMESPACE).position.remote(), timeout=5)
        except ray.exceptions.RayError:
            return None

    after = until(position, "the learner")
    assert time.monotonic() - started < 30
    served.decide({"items": ["i1"]})
    until(lambda: (position() or {"seq": 0})["seq"] > before["seq"], "outcomes after the kill")
    assert after["failure"] is None
    until(lambda: served.call("/v1/health")[1]["learner"] == "following", "the replica to follow again")


def test_a_new_version_is_picked_up_without_a_redeploy(served: Served) -> None:
    number = serving.publish(served.settings, serving.version(seed=3))
    until(lambda: served.call("/v1/health")[1]["version"] == number, f"version {number}")
    assert served.decide({"items": ["i1"]})[1]["decisions"][0]["version"] == number


def test_a_killed_replica_loses_nothing_that_was_acknowledged(served: Served) -> None:
    acknowledged = [served.decide({"items": ["i1"]})[1]["decisions"][0]["decision_id"] for _ in range(5)]
    replicas = [
        child
        for child in psutil.Process().children(recursive=True)
        if "ServeReplica:medley:gateway" in " ".join(child.cmdline())
    ]
    assert len(replicas) == 1
    replicas[0].kill()

    def again() -> Any:
        try:
            status, answer = served.decide({"items": ["i1"]})
        except OSError:
            return None
        return answer if status == 200 else None

    acknowledged.append(until(again, "an answer after the kill")["decisions"][0]["decision_id"])
    wanted = set(acknowledged)
    reader = Reader(journal_url(served.settings))
    until(lambda: wanted <= {row.decision_id for row in reader.outcomes(0, 100_000, "reward")}, "all outcomes")


def test_a_second_deploy_replaces_the_first_and_another_port_is_refused(served: Served) -> None:
    assert deploy.deploy(served.settings)["ingress"] == "haproxy"
    assert served.decide({"items": ["i1"]})[0] == 200
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
