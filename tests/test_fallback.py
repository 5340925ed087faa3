"""The caller's own choice answers where a version is missing, broken or slow."""

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.bandits.members import custom
from cluster import config
from cluster.journal.journal import DecisionRecord, Reader
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions.current import load
from serve.messages import DecisionRequest
from serve.releases import Releases
from serve.replay import replay
from tests import serving

REQUEST = {"user_id": "u1", "context": {"device": "mobile"}, "items": ["i4", "i1", "i9"], "slots": 2}
OWN = [("i4", 1.0, None), ("i1", 1.0, None)]


class Idle:
    """An own model that says the same of every item."""

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        pass

    def scores(self, phi_KD: Any, arm_K: Any, item_K: Any) -> Any:
        return np.zeros(len(phi_KD)), np.zeros(len(phi_KD))

    def learn(self, phi_D: Any, arm: int, item: int, reward: float) -> None:
        pass

    def arrays(self) -> dict[str, Any]:
        return {}

    def load(self, arrays: dict[str, Any]) -> None:
        pass


class Broken(Idle):
    def scores(self, phi_KD: Any, arm_K: Any, item_K: Any) -> Any:
        raise ZeroDivisionError("broken on purpose")


class Waiting(Idle):
    """Answers once its gate is open."""

    gate = threading.Event()
    asked = 0

    def scores(self, phi_KD: Any, arm_K: Any, item_K: Any) -> Any:
        Waiting.asked += 1
        assert self.gate.wait(60)
        return super().scores(phi_KD, arm_K, item_K)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    Waiting.asked = 0
    yield Waiting.gate
    Waiting.gate.set()


def with_own(name: str) -> Any:
    made = serving.version()
    member = custom(f"tests.test_fallback:{name}", (1, made.feature_map.dimension, 12))
    ensemble = replace(
        made.ensemble, members=(*made.ensemble.members, member), values_M=np.append(made.ensemble.values_M, 0.3)
    )
    return replace(made, ensemble=ensemble)


def shown(answer: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(slot["item_id"], slot["propensity"], slot["score"]) for slot in answer["slots"]]


@pytest.mark.parametrize(
    ("mode", "answered"), [("live", "baseline"), ("shadow", "shadow"), ("apprentice", "apprentice")]
)
def test_a_broken_member_breaks_no_answer(caplog: pytest.LogCaptureFixture, mode: Any, answered: str) -> None:
    engine = Engine()
    engine.install(load(3, with_own("Broken")))
    records: list[DecisionRecord] = []
    with caplog.at_level(logging.ERROR, "serve.decide"):
        for n in range(3):
            records.append(engine.decide("shop", DecisionRequest.model_validate(REQUEST), f"D{n}", mode=mode))
    for record in records:
        answer = json.loads(record.answer)
        assert (answer["mode"], answer["version"], shown(answer)) == (answered, None, OWN)
        assert (record.version, record.reason, record.evidence, record.agreement) == (3, "broken", None, None)
        assert json.loads(record.shadow or "") == {"revision": 0, "reason": "broken"}
    assert [line.fields["decision_id"] for line in caplog.records] == ["D0"]  # type: ignore[attr-defined]
    assert "broken on purpose" in caplog.text


def test_off_asks_no_broken_member() -> None:
    engine = Engine()
    engine.install(load(3, with_own("Broken")))
    assert engine.decide("shop", DecisionRequest.model_validate(REQUEST), "D", mode="off").reason is None


def test_without_a_version_the_reason_is_that() -> None:
    record = Engine().decide("shop", DecisionRequest.model_validate(REQUEST), "D")
    assert (record.mode, record.reason, record.version) == ("baseline", "no_version", None)
    assert json.loads(record.shadow or "") == {"revision": 0, "reason": "no_version"}


def test_a_model_that_does_not_answer_in_time_is_not_waited_for(home: Path, gate: threading.Event) -> None:
    settings = config.load(serve={"budget_ms": 300})
    serving.publish(settings, with_own("Waiting"))
    gate.clear()

    async def body() -> None:
        async with serving.running(settings) as r:

            async def mode(**fields: Any) -> str:
                decision = (await r.decide(REQUEST | fields)).json()["decisions"][0]
                assert shown(decision) == OWN or decision["mode"] == "live"
                ids.append(decision["decision_id"])
                return str(decision["mode"])

            ids: list[str] = []
            assert [await mode() for _ in range(4)] == ["baseline"] * 4
            assert Waiting.asked == 1  # after one that was given up, none is begun
            gate.set()
            while await mode() != "live":
                await asyncio.sleep(0.1)
            assert r.gateway._metrics.counts["medley_fallbacks_total", ("slow",)] == len(ids) - 1
            reader = Reader(str(settings.home / "journal.db"))
            releases = Releases(Registry(settings.registry_uri), DEFAULT_NAME)
            for decision_id in (ids[0], ids[-1]):
                assert replay(settings, reader, releases.load, decision_id).same
            reader.close()

    asyncio.run(body())


def test_a_request_has_a_budget_of_its_own_and_a_call_that_of_all(home: Path, gate: threading.Event) -> None:
    settings = config.load(serve={"budget_ms": 30_000})
    serving.publish(settings, with_own("Waiting"))
    gate.clear()

    async def body() -> None:
        async with serving.running(settings) as r:
            answer = (await r.decide(REQUEST, {**REQUEST, "budget_ms": 50})).json()["decisions"]
            assert [decision["mode"] for decision in answer] == ["baseline"] * 2
            gate.set()
            await asyncio.sleep(1.05)  # the pace has given up for a second
            answer = (await r.decide(*[REQUEST] * 20)).json()["decisions"]
            assert [decision["mode"] for decision in answer] == ["live"] * 20
            bad = await r.decide({**REQUEST, "budget_ms": 0})
            assert bad.json()["detail"][0]["loc"] == ["body", "requests", 0, "budget_ms"]

    asyncio.run(body())
