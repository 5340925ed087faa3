"""Decisions on the event loop, with an engine that is a list of what it was asked."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from cluster.errors import RequestError
from serve.decide import Engine, Load
from serve.decisions.asked import Asked
from serve.decisions.pace import Pace
from serve.decisions.turns import TOGETHER, Turns
from serve.messages import DecisionRequest


class Written:
    """Decides by writing down; ids that begin with "refused" are refused, "defect" breaks."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []
        self.slow: list[str] = []

    def decide_all(self, asked: Sequence[Asked]) -> list[Any]:
        self.turns.append([one.decision_id for one in asked])
        self.slow += [one.decision_id for one in asked if one.reason == "slow"]
        if any(one.decision_id.startswith("defect") for one in asked):
            raise ZeroDivisionError
        return [
            RequestError(one.where, "no") if one.decision_id.startswith("refused") else one.decision_id for one in asked
        ]


def asked(name: str, number: int) -> list[Asked]:
    return [Asked("shop", DecisionRequest(), f"{name}{i}", i) for i in range(number)]


class Loop:
    """Turns, of which each decision is known to take so many ms."""

    def __init__(self, ms: float = 0.1) -> None:
        self.engine, self.pace = Written(), Pace()
        self.turns = Turns(cast(Engine, self.engine), self.pace)
        for who in ("shop", "other"):
            self.pace.took((who, 1, 1), 100, ms)

    def call(self, name: str, number: int, who: str = "shop", left_ms: float = 1e6) -> "asyncio.Task[Any]":
        return asyncio.create_task(self.turns(asked(name, number), Load((who, 1, 1), 100), left_ms))


def test_calls_that_come_together_are_decided_together() -> None:
    async def body() -> None:
        loop = Loop()
        found = await asyncio.gather(*[loop.call(name, 1) for name in "abc"])
        assert (found, loop.engine.turns) == ([["a0"], ["b0"], ["c0"]], [["a0", "b0", "c0"]])

    asyncio.run(body())


def test_a_small_call_does_not_wait_for_a_large_one() -> None:
    async def body() -> None:
        loop = Loop()
        large, small = loop.call("l", 3 * TOGETHER), loop.call("s", 2)
        assert await small == ["s0", "s1"]
        assert not large.done()
        assert await large == [f"l{i}" for i in range(3 * TOGETHER)]
        assert loop.engine.turns[0][:4] == ["l0", "s0", "l1", "s1"]
        assert [len(turn) for turn in loop.engine.turns] == [TOGETHER, TOGETHER, TOGETHER, 2]

    asyncio.run(body())


def test_no_turn_holds_the_loop_for_longer_than_it_may() -> None:
    async def body() -> None:
        loop = Loop(ms=2.0)  # of 5
        assert len(await loop.call("a", 5)) == 5
        assert [len(turn) for turn in loop.engine.turns[:1]] == [2]

    asyncio.run(body())


def test_other_work_goes_on_between_turns() -> None:
    async def body() -> None:
        loop, ticks = Loop(), 0
        call = loop.call("a", 5 * TOGETHER)
        while not call.done():
            await asyncio.sleep(0)
            ticks += 1
        assert ticks >= 5

    asyncio.run(body())


def test_decisions_of_another_kind_have_turns_of_their_own() -> None:
    """What a slow model takes is not counted against a fast one."""

    async def body() -> None:
        loop = Loop()
        await asyncio.gather(loop.call("a", 1), loop.call("b", 1, "other"), loop.call("c", 1))
        assert loop.engine.turns == [["a0", "c0"], ["b0"]]

    asyncio.run(body())


def test_who_is_refused_fails_alone() -> None:
    async def body() -> None:
        loop = Loop()
        good, bad = loop.call("a", 2), loop.call("refused", 20)
        with pytest.raises(RequestError, match="no"):
            await bad
        assert await good == ["a0", "a1"]
        assert sum(name.startswith("refused") for turn in loop.engine.turns for name in turn) < 20

    asyncio.run(body())


def test_a_caller_that_is_gone_is_not_decided_for() -> None:
    async def body() -> None:
        loop = Loop()
        gone, other = loop.call("g", 10 * TOGETHER), loop.call("a", TOGETHER)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.cancel()
        assert len(await other) == TOGETHER
        assert sum(name.startswith("g") for turn in loop.engine.turns for name in turn) < 2 * TOGETHER

    asyncio.run(body())


def test_what_is_past_its_time_asks_no_model() -> None:
    async def body() -> None:
        loop = Loop()
        await asyncio.gather(loop.call("late", 1, left_ms=0.0), loop.call("a", 1))
        assert loop.engine.slow == ["late0"]

    asyncio.run(body())


def test_a_defect_reaches_all_that_it_stopped_and_no_others() -> None:
    async def body() -> None:
        loop = Loop()
        stopped = await asyncio.gather(loop.call("defect", 1), loop.call("a", 1), return_exceptions=True)
        assert [type(one) for one in stopped] == [ZeroDivisionError, ZeroDivisionError]
        assert await loop.call("b", 1) == ["b0"]

    asyncio.run(body())
