"""Decisions on the event loop: those of all calls that are here, a few at a time and together, turn by turn.

Together they take less time than one by one (`law.decide_many`); in threads, which take the interpreter's lock from one
another and from the loop, they take more. Between two turns the loop goes on with others' work.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord
from serve.decide import Engine, Load
from serve.decisions.asked import Asked
from serve.decisions.pace import Pace, Stopwatch

TOGETHER = 8
"""Decisions of a turn at most: the journal commits them while the next ones are made."""


@dataclass
class _Waiting:
    """A call whose `records` are made so far; from `until` (`time.perf_counter`) on no model is asked."""

    asked: Sequence[Asked]
    load: Load
    until: float
    done: asyncio.Future[list[DecisionRecord]]
    records: list[DecisionRecord] = field(default_factory=list)


class Turns:
    """For one event loop; `pace` says how many decisions may hold it, and learns what they took."""

    def __init__(self, engine: Engine, pace: Pace) -> None:
        self._engine = engine
        self._pace = pace
        self._calls: list[_Waiting] = []

    @property
    def waiting(self) -> int:
        """Requests that are not decided yet."""
        return sum(len(call.asked) - len(call.records) for call in self._calls)

    async def __call__(self, asked: Sequence[Asked], load: Load, left_ms: float) -> list[DecisionRecord]:
        """Decide a call's requests, of which those that are not begun in `left_ms` get the caller's own choice.

        Raises:
            RequestError: the first that is refused.
        """
        loop = asyncio.get_running_loop()
        call = _Waiting(asked, load, time.perf_counter() + left_ms / 1e3, loop.create_future())
        if not self._calls:
            loop.call_soon(self._turn, loop)  # what comes in this round of the loop is decided together
        self._calls.append(call)
        return await call.done

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        chosen = self._next()
        try:
            self._decide(chosen)
        except Exception as error:  # a defect of the engine: no caller waits for ever
            for call, _ in chosen:
                if not call.done.done():
                    call.done.set_exception(error)
        self._calls = [call for call in self._calls if not call.done.done()]
        if self._calls:
            loop.call_soon(loop.call_soon, self._turn, loop)  # after those who have their answer went to the journal

    def _next(self) -> list[tuple[_Waiting, Asked]]:
        """Requests of this turn: of the calls that are alike to the first, one of each in turns; they are last then."""
        load = self._calls[0].load
        alike = [call for call in self._calls if call.load.kind == load.kind]
        self._calls = [call for call in self._calls if call.load.kind != load.kind] + alike
        size = min(TOGETHER, self._pace.at_once(load.who, load.items))
        places = ((call, len(call.records) + step) for step in range(size) for call in alike)
        return list(islice(((call, call.asked[place]) for call, place in places if place < len(call.asked)), size))

    def _decide(self, chosen: Sequence[tuple[_Waiting, Asked]]) -> None:
        now = time.perf_counter()
        asked = [one if now < call.until else replace(one, reason="slow") for call, one in chosen]
        watch, models = Stopwatch(), sum(one.reason is None for one in asked)
        found = self._engine.decide_all(asked)
        if models:
            load = chosen[0][0].load
            self._pace.took(load.who, load.items, watch.ms() / models)
        for (call, _), one in zip(chosen, found, strict=True):
            if call.done.done():
                continue  # refused, or the caller is gone
            if isinstance(one, RequestError):
                call.done.set_exception(one)
                continue
            call.records.append(one)
            if len(call.records) == len(call.asked):
                call.done.set_result(call.records)
