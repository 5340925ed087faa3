"""The requests of a call decided within their budget of time: here, in a worker thread, by model replicas, or not.

Who misses the budget gets the caller's own choice instead. A budget counts from the arrival of the call and ends
with the decision: what follows, the commit, is waited for.
"""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, TypeAlias

from cluster.config import ClientMode, ServeSettings
from cluster.errors import RequestError, StateError
from cluster.journal.journal import DecisionRecord, Reader, Repeat
from serve.decide import Engine, Load
from serve.decisions.asked import Asked, Background, Bundle, Code, Reason, all_asked
from serve.decisions.baseline import request_json
from serve.decisions.pace import Pace, Stopwatch, Way
from serve.decisions.reading import Reading
from serve.decisions.seen import Seen
from serve.decisions.turns import Turns
from serve.messages import DecisionRequest

_THREADS = 8
_QUICK = 64
"""Answers without a model that hold the event loop at a time."""

Records: TypeAlias = list[DecisionRecord]


class Models(Protocol):
    """Replicas that decide large batches."""

    async def decide(self, bundle: Bundle) -> Records | None:
        """None where no replica answers that knows the client's catalogue up to the bundle's revision."""


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

    def asked(self, background: Background, reason: Reason | None = None) -> list[Asked]:
        return all_asked(self.client, self.mode, self.requests, self.ids, background, reason)


class Deciding:
    """For one event loop.

    Args:
        engine: decides here and in threads.
        reader: the journal: what users were shown, and stored answers.
        settings: the budget, and the sizes of calls.
        models: get a share of calls of `settings.models_batch` requests or more; None keeps them.
        reading: where contexts of unknown users go to be read; None leaves them.
    """

    def __init__(
        self,
        engine: Engine,
        reader: Reader,
        settings: ServeSettings,
        models: Models | None = None,
        reading: Reading | None = None,
    ) -> None:
        self._engine = engine
        self._reader = reader
        self._seen = Seen(reader.shown)
        self._settings = settings
        self._models = models
        self._reading = reading
        self._pace = Pace()
        self._turns = Turns(engine, self._pace)
        self._sent = 0
        """Requests that model replicas have."""
        self._threaded = 0
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
        background = Background(await self._lately(call), await self._codes(call))
        if (read := self._engine.unread(call.client, call.requests)) is not None:
            await asyncio.to_thread(read)
        load = self._engine.load(call.client, call.requests)
        if load is None or call.mode == "off":
            return await self._quick(call.asked(background))
        left_ms = self._left_ms(call)
        way = self._pace.way(load.who, load.items, number, left_ms)
        if way == "not":
            return await self._quick(call.asked(background, "slow"))
        asked = call.asked(background)
        if self._models is not None and number >= self._settings.models_batch:
            return await self._shared(asked, load, way, left_ms)
        return await self._own(asked, load, way, left_ms)

    async def _shared(self, asked: Sequence[Asked], load: Load, way: Way, left_ms: float) -> Records:
        """A large call, in pieces."""
        size = self._settings.models_batch
        pieces = [asked[first : first + size] for first in range(0, len(asked), size)]
        tasks = [asyncio.ensure_future(self._piece(piece, load, way, left_ms)) for piece in pieces]
        try:
            return [record for records in await asyncio.gather(*tasks) for record in records]
        finally:
            for task in tasks:
                task.cancel()  # those of a call that is refused, or whose caller is gone

    async def _piece(self, asked: Sequence[Asked], load: Load, way: Way, left_ms: float) -> Records:
        """Where fewer requests wait: with the model replicas, or here."""
        models, begin = self._models, time.perf_counter()
        if models is None or self._sent > self._turns.waiting + self._threaded:
            return await self._own(asked, load, way, left_ms)
        self._sent += len(asked)
        try:
            bundle = Bundle.of(asked, self._engine.revision(asked[0].client))
            records = await asyncio.wait_for(models.decide(bundle), left_ms / 1e3)
        except TimeoutError:
            return await self._missed(asked, load, left_ms)
        finally:
            self._sent -= len(asked)
        if records is not None:
            return records
        return await self._own(asked, load, way, left_ms - 1e3 * (time.perf_counter() - begin))

    async def _own(self, asked: Sequence[Asked], load: Load, way: Way, left_ms: float) -> Records:
        """In this process: on the event loop, or in a thread."""
        if way == "here":
            return await self._turns(asked, load, left_ms)
        loop = asyncio.get_running_loop()

        def work() -> Records:
            watch = Stopwatch()
            try:
                return self._engine.decide_many(asked)
            finally:  # also when nobody waits any more
                loop.call_soon_threadsafe(self._pace.took, load.who, load.items, watch.ms() / len(asked))

        self._threaded += len(asked)
        try:
            return await asyncio.wait_for(loop.run_in_executor(self._threads, work), left_ms / 1e3)
        except TimeoutError:
            return await self._missed(asked, load, left_ms)
        finally:
            self._threaded -= len(asked)

    async def _missed(self, asked: Sequence[Asked], load: Load, left_ms: float) -> Records:
        """The time is over."""
        self._pace.missed(load.who, load.items, left_ms / len(asked))
        return await self._quick([replace(one, reason="slow") for one in asked])

    async def _quick(self, asked: Sequence[Asked]) -> Records:
        """What asks no model."""
        records: Records = []
        for first in range(0, len(asked), _QUICK):
            records += self._engine.decide_many(asked[first : first + _QUICK])
            if len(records) < len(asked):
                await asyncio.sleep(0)
        return records

    async def _lately(self, call: Call) -> Mapping[int, Collection[str]]:
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

    async def _codes(self, call: Call) -> Mapping[int, Code]:
        """Of unknown users' contexts, those that the language model has read in time; none where no model decides."""
        if self._reading is None or call.mode == "off":
            return {}
        found = self._engine.strangers(call.client, call.requests)
        if found is None:
            return {}
        return await self._reading.codes(*found, self._left_ms(call))

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

    def _left_ms(self, call: Call) -> float:
        """Of the least of the requests' own budgets; without any, of the settings' for each of them."""
        own = [request.budget_ms for request in call.requests if request.budget_ms is not None]
        budget_ms = min(own, default=self._settings.budget_ms * len(call.requests))
        return budget_ms - 1e3 * (time.perf_counter() - call.start)
