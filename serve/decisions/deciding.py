"""The requests of a call decided within their budget of time: here, in a worker thread, by model replicas, or not.

Who misses the budget gets the caller's own choice instead. A budget counts from the arrival of the call and ends
with the decision: what follows, the commit, is waited for. Many short decisions are made on the event loop too, a few
at a time: threads that compute take the interpreter's lock from one another and from the loop, and all together are
slower than one.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from cluster.config import ClientMode, ServeSettings
from cluster.errors import RequestError, StateError
from cluster.journal.journal import DecisionRecord, Reader, Repeat
from serve.decide import Engine, Load
from serve.decisions.baseline import request_json
from serve.decisions.pace import Pace, Stopwatch
from serve.decisions.seen import Seen
from serve.messages import DecisionRequest

_THREADS = 8
_QUICK = 64
"""Answers without a model that hold the event loop at a time."""

Records: TypeAlias = list[DecisionRecord]
Lately: TypeAlias = Mapping[int, Collection[str]]
"""What the users of requests were shown, by the requests' places."""


class Models(Protocol):
    """Replicas that decide large batches."""

    async def decide(
        self,
        client: str,
        requests: Sequence[DecisionRequest],
        ids: Sequence[str],
        mode: ClientMode,
        seen: Lately,
        revision: int,
    ) -> Records | None:
        """None where no replica answers that knows the client's catalogue up to this revision."""


@dataclass(frozen=True)
class Call:
    """The requests of a call that arrived at `start` (`time.perf_counter`), and the ids of their decisions."""

    client: str
    mode: ClientMode
    requests: Sequence[DecisionRequest]
    ids: Sequence[str]
    start: float

    def only(self, places: Sequence[int]) -> "Call":
        requests, ids = [self.requests[i] for i in places], [self.ids[i] for i in places]
        return Call(self.client, self.mode, requests, ids, self.start)


class Deciding:
    """For one event loop.

    Args:
        engine: decides here and in threads.
        reader: the journal: what users were shown, and stored answers.
        settings: the budget, and the sizes of calls.
        models: where calls of `settings.models_batch` requests or more go; None keeps them.
    """

    def __init__(self, engine: Engine, reader: Reader, settings: ServeSettings, models: Models | None = None) -> None:
        self._engine = engine
        self._reader = reader
        self._seen = Seen(reader.shown)
        self._settings = settings
        self._models = models
        self._pace = Pace()
        self._closed = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decide")

    async def __call__(self, call: Call) -> tuple[Records, dict[int, Repeat]]:
        """Decide all requests of a call.

        Where one is refused, those whose request_id is known are not decided again: what they named may be gone since.

        Returns:
            Records of the requests that were decided, in their order; stored answers of the others by place.

        Raises:
            RequestError: as the engine does.
            StateError: after `close`.
        """
        if self._closed:
            raise StateError("this replica has ended; ask another one")
        try:
            return await self._decided(call), {}
        except RequestError:
            known = await self._answered(call)
            if not known:
                raise
        rest = [i for i in range(len(call.requests)) if i not in known]
        try:
            return (await self._decided(call.only(rest)) if rest else []), known
        except RequestError as error:
            body, requests, place, *field = error.loc
            raise RequestError((body, requests, rest[int(place)], *field), error.message, error.status) from None

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._reader.close()

    async def _decided(self, call: Call) -> Records:
        number = len(call.requests)
        seen = await self._lately(call)
        if (read := self._engine.unread(call.client, call.requests)) is not None:
            await asyncio.to_thread(read)
        decide = partial(self._engine.decide_many, call.client, call.requests, call.ids, call.mode, seen=seen)
        load = self._engine.load(call.client, call.requests)
        if load is None or call.mode == "off":
            return await self._quick(decide, number)
        left_ms = self._budget_ms(call.requests) - 1e3 * (time.perf_counter() - call.start)
        way = self._pace.way(load.who, load.items, number, left_ms)
        if way == "not":
            return await self._quick(partial(decide, reason="slow"), number)
        if way == "here" and not self._large(number):
            return await self._here(decide, load, number, left_ms)
        try:
            return await asyncio.wait_for(self._beside(decide, load, call, seen), left_ms / 1e3)
        except TimeoutError:
            self._pace.missed(load.who, load.items, left_ms / number)
            return await self._quick(partial(decide, reason="slow"), number)

    async def _here(self, decide: Callable[..., Records], load: Load, number: int, left_ms: float) -> Records:
        """On the event loop, which goes on with others' work in between."""
        until = time.perf_counter() + left_ms / 1e3
        records: Records = []
        while (first := len(records)) < number:
            if time.perf_counter() > until:
                return records + await self._quick(partial(decide, reason="slow"), number, first)
            watch, last = Stopwatch(), min(number, first + self._pace.at_once(load.who, load.items))
            records += decide(places=range(first, last))
            self._pace.took(load.who, load.items, watch.ms() / (last - first))
            if last < number:
                await asyncio.sleep(0)
        return records

    async def _beside(self, decide: Callable[[], Records], load: Load, call: Call, seen: Lately) -> Records:
        if self._models is not None and self._large(len(call.requests)):
            revision = self._engine.revision(call.client)
            records = await self._models.decide(call.client, call.requests, call.ids, call.mode, seen, revision)
            if records is not None:
                return records
        loop = asyncio.get_running_loop()

        def work() -> Records:
            watch = Stopwatch()
            try:
                return decide()
            finally:  # also when nobody waits any more
                each_ms = watch.ms() / len(call.requests)
                loop.call_soon_threadsafe(self._pace.took, load.who, load.items, each_ms)

        return await loop.run_in_executor(self._threads, work)

    async def _quick(self, decide: Callable[..., Records], number: int, first: int = 0) -> Records:
        """What asks no model."""
        records: Records = []
        for place in range(first, number, _QUICK):
            records += decide(places=range(place, min(number, place + _QUICK)))
            if len(records) < number - first:
                await asyncio.sleep(0)
        return records

    def _large(self, number: int) -> bool:
        return self._models is not None and number >= self._settings.models_batch

    async def _lately(self, call: Call) -> Lately:
        """Read off the event loop, for the requests that ask."""
        asking: dict[int, tuple[str, float]] = {}
        for i, request in enumerate(call.requests):
            if request.unseen_s is not None:
                user = request.user_id or request.session_id
                if user is None:
                    where = ("body", "requests", i, "unseen_s")
                    raise RequestError(where, "name the user_id or the session_id that has seen items")
                asking[i] = user, request.unseen_s
        if not asking:
            return {}
        items = partial(self._seen.items, call.client)
        return await asyncio.to_thread(lambda: {i: items(*one) for i, one in asking.items()})

    async def _answered(self, call: Call) -> dict[int, Repeat]:
        """Stored answers of the requests that were made before."""
        named = {i: request for i, request in enumerate(call.requests) if request.request_id is not None}
        if not named:
            return {}

        def look() -> dict[int, Repeat]:
            found = {
                i: self._reader.answer(call.client, request.request_id or "", request_json(request))
                for i, request in named.items()
            }
            return {i: repeat for i, repeat in found.items() if repeat is not None}

        return await asyncio.to_thread(look)

    def _budget_ms(self, requests: Sequence[DecisionRequest]) -> float:
        """The least of the requests' own budgets; without any, the settings' for each of them."""
        own = [request.budget_ms for request in requests if request.budget_ms is not None]
        return min(own, default=self._settings.budget_ms * len(requests))
