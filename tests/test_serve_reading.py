"""Codes of unknown users' contexts: in time or kept for later, and nobody waits for a model that is not there."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from actors.features.features import Floats
from serve.decisions.reading import MOST, Generator, Reading, Told
from serve.messages import DecisionRequest
from serve.observed.metrics import Metrics

pytestmark = pytest.mark.anyio
OURS = ("shop-generator", 3)
LONG_MS = 60_000.0


class Model:
    """Codes are [age, 1]; each call waits until it is let go."""

    def __init__(self, held: bool = False, fails: bool = False) -> None:
        self.calls: list[list[Told]] = []
        self.let_go = asyncio.Event()
        self.fails = fails
        if not held:
            self.let_go.set()

    async def codes(self, generator: Generator, told: Sequence[Told]) -> Floats:
        assert generator == OURS
        self.calls.append(list(told))
        await self.let_go.wait()
        if self.fails:
            raise ConnectionError("no such actor")
        return np.array([[context["age"], 1.0] for context, _ in told])


def asked(*ages: float, user: str | None = "u") -> dict[int, DecisionRequest]:
    return {place: DecisionRequest(user_id=user, context={"age": age}) for place, age in enumerate(ages)}


def outcomes(metrics: Metrics) -> dict[str, float]:
    return {labels[0]: count for (name, labels), count in metrics.counts.items() if count}


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


async def warm(model: Model, wait_ms: float = LONG_MS) -> tuple[Reading, Metrics]:
    """A reading whose model has answered before."""
    metrics = Metrics()
    made = Reading(lambda: model, metrics, wait_ms)
    held, model.let_go = model.let_go, asyncio.Event()
    model.let_go.set()
    await made.codes(OURS, asked(-1.0), LONG_MS)
    await settled()
    model.let_go = held
    model.calls.clear()
    metrics.counts.clear()
    return made, metrics


async def test_one_call_reads_all_and_each_has_its_own() -> None:
    model = Model()
    made, metrics = await warm(model)
    found = await made.codes(OURS, {4: asked(1.0)[0], 7: asked(2.0)[0]}, LONG_MS)
    assert {place: code.code_H.tolist() for place, code in found.items()} == {4: [1.0, 1.0], 7: [2.0, 1.0]}
    assert {code.generator for code in found.values()} == {OURS}
    assert model.calls == [[({"age": 1.0}, "u"), ({"age": 2.0}, "u")]]
    assert outcomes(metrics) == {"read": 2}


async def test_what_comes_too_late_is_there_for_the_next_decision() -> None:
    model = Model(held=True)
    made, metrics = await warm(model, wait_ms=1.0)
    assert await made.codes(OURS, asked(1.0), LONG_MS) == {}
    assert await made.codes(OURS, asked(1.0), LONG_MS) == {}, "and it is not asked for twice"
    model.let_go.set()
    await settled()
    found = await made.codes(OURS, asked(1.0), LONG_MS)
    assert found[0].code_H.tolist() == [1.0, 1.0]
    assert len(model.calls) == 1
    assert outcomes(metrics) == {"late": 2, "kept": 1}


async def test_the_wait_is_within_half_of_what_is_left() -> None:
    made, _ = await warm(Model(held=True), wait_ms=LONG_MS)
    start = asyncio.get_running_loop().time()
    assert await made.codes(OURS, asked(1.0), 20.0) == {}
    assert asyncio.get_running_loop().time() - start < 5.0
    await made.stop()


async def test_another_user_or_context_is_another_text() -> None:
    model = Model()
    made, _ = await warm(model)
    for requests in (asked(1.0), asked(2.0), asked(1.0, user="v"), asked(1.0, user=None), asked(1.0)):
        await made.codes(OURS, requests, LONG_MS)
    assert [told[0] for told in model.calls] == [
        ({"age": 1.0}, "u"),
        ({"age": 2.0}, "u"),
        ({"age": 1.0}, "v"),
        ({"age": 1.0}, None),
    ]


async def test_nobody_waits_for_a_model_that_starts() -> None:
    """It is asked once to begin with, and waited for once it has answered."""
    model, metrics = Model(held=True), Metrics()
    made = Reading(lambda: model, metrics, LONG_MS)
    for age in (1.0, 2.0, 3.0):
        assert await made.codes(OURS, asked(age), LONG_MS) == {}
        await settled()
    assert len(model.calls) == 1
    model.let_go.set()
    await settled()
    assert (await made.codes(OURS, asked(4.0), LONG_MS))[0].code_H.tolist() == [4.0, 1.0]
    assert outcomes(metrics) == {"late": 3, "read": 1}


async def test_a_model_that_is_gone_costs_its_codes_and_is_found_again() -> None:
    models = [Model(fails=True), Model()]
    left = iter(models)
    metrics = Metrics()
    made = Reading(lambda: next(left), metrics, LONG_MS, again_s=0.05)
    assert await made.codes(OURS, asked(1.0), LONG_MS) == {}
    await asyncio.sleep(0.2)
    assert await made.codes(OURS, asked(1.0), LONG_MS) == {}
    await settled()
    assert (await made.codes(OURS, asked(1.0), LONG_MS))[0].code_H.tolist() == [1.0, 1.0]
    assert [len(model.calls) for model in models] == [1, 1]
    assert outcomes(metrics) == {"failed": 1, "late": 2, "kept": 1}


async def test_codes_that_are_not_finite_are_none() -> None:
    model = Model()
    made, metrics = await warm(model)
    assert await made.codes(OURS, asked(float("1e300")), LONG_MS) == {}, "infinite in single precision"
    assert outcomes(metrics) == {"failed": 1, "late": 1}


async def test_a_busy_model_is_not_asked_for_more() -> None:
    model = Model(held=True)
    made, _ = await warm(model, wait_ms=1.0)
    assert await made.codes(OURS, asked(*range(MOST + 9)), LONG_MS) == {}
    assert await made.codes(OURS, asked(1000.0), LONG_MS) == {}
    assert [len(told) for told in model.calls] == [MOST]
    model.let_go.set()
    await settled()
    assert len(await made.codes(OURS, asked(*range(MOST)), LONG_MS)) == MOST
    await made.stop()


async def test_the_longest_unused_codes_make_room() -> None:
    model, metrics = Model(), Metrics()
    made = Reading(lambda: model, metrics, LONG_MS, kept=2)
    await made.codes(OURS, asked(0.0), LONG_MS)
    await settled()
    for age in (1.0, 0.0, 2.0, 0.0):
        await made.codes(OURS, asked(age), LONG_MS)
    assert len(model.calls) == 3
    await made.codes(OURS, asked(1.0), LONG_MS)
    assert len(model.calls) == 4
