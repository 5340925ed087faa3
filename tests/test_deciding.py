"""Large calls in pieces, some of which model replicas decide."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from cluster.config import ServeSettings
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord, Reader
from serve.decide import Engine
from serve.decisions.asked import Bundle
from serve.decisions.current import load
from serve.decisions.deciding import Call, Deciding
from serve.messages import DecisionRequest
from tests import serving

PIECE = 4
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Nothing:
    """A journal in which nothing is."""

    def shown(self, client: str, user: str, since: float, seq: int) -> list[Any]:
        return []

    def answer(self, client: str, request_id: str, request: str) -> None:
        return None

    def close(self) -> None: ...


class Models:
    """Model replicas with an engine of their own; `before` is awaited first."""

    def __init__(self, engine: Engine, before: Callable[[], Any] | None = None, there: bool = True) -> None:
        self._engine, self._before, self._there = engine, before, there
        self.bundles: list[Bundle] = []

    async def decide(self, bundle: Bundle) -> list[DecisionRecord] | None:
        self.bundles.append(bundle)
        await (self._before() if self._before else asyncio.sleep(0))
        return self._engine.decide_many(bundle.asked()) if self._there else None


def engine() -> Engine:
    made = Engine(seed=5)
    made.install(load(3, serving.version()))
    return made


def deciding(models: Models | None) -> Deciding:
    return Deciding(engine(), cast(Reader, Nothing()), ServeSettings(models_batch=PIECE), models)


def call(*requests: dict[str, Any]) -> Call:
    asked = [DecisionRequest.model_validate(request) for request in requests]
    return Call("shop", "live", asked, [f"D{i}" for i in range(len(asked))], time.perf_counter())


def several(number: int) -> list[dict[str, Any]]:
    return [{"user_id": f"u{i}", "slots": 1 + i % 3, "unseen_s": 60.0} for i in range(number)]


async def test_a_large_call_is_shared_and_decided_as_alone() -> None:
    models = Models(engine())
    one, other = deciding(models), deciding(None)
    await one(call({}))  # what a decision takes is known from here on
    records, _ = await one(call(*several(5 * PIECE + 1)))
    alone, _ = await other(call(*several(5 * PIECE + 1)))
    assert records == alone
    assert 0 < sum(len(bundle.ids) for bundle in models.bundles) < 5 * PIECE + 1


async def test_a_refused_request_of_a_piece_is_named_by_its_place_in_the_call() -> None:
    for wrong in (1, 2 * PIECE + 3):
        requests = several(3 * PIECE)
        requests[wrong] = {"items": ["nothing"]}
        with pytest.raises(RequestError) as caught:
            await deciding(Models(engine()))(call(*requests))
        assert caught.value.loc[:3] == ("body", "requests", wrong)


async def test_where_no_replica_answers_the_piece_is_decided_here() -> None:
    models = Models(engine(), there=False)
    records, _ = await deciding(models)(call(*several(3 * PIECE)))
    assert [record.mode for record in records] == ["live"] * 3 * PIECE
    assert models.bundles


async def test_a_replica_that_is_late_costs_its_piece_alone() -> None:
    models = Models(engine(), before=lambda: asyncio.sleep(60))
    here = deciding(models)
    await here(call({}))
    requests = [{**request, "budget_ms": 2_000} for request in several(2 * PIECE)]
    records, _ = await here(call(*requests))
    late = [record.reason == "slow" for record in records]
    assert late == [True] * PIECE + [False] * PIECE
