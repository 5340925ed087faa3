"""The requests of a call decided within their budget of time: here, in a worker thread, by model replicas, or not.

Who misses the budget gets the caller's own choice instead. A budget counts from the arrival of the call and ends
with the decision: what follows, the commit, is waited for.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Protocol, TypeAlias

from cluster.config import ClientMode, ServeSettings
from cluster.journal import DecisionRecord
from serve.decide import Engine, Load
from serve.messages import DecisionRequest
from serve.pace import Pace, Stopwatch

_THREADS = 8

Records: TypeAlias = list[DecisionRecord]


class Models(Protocol):
    """Replicas that decide large batches."""

    async def decide(
        self, client: str, requests: Sequence[DecisionRequest], ids: Sequence[str], mode: ClientMode
    ) -> Records | None:
        """None where no replica answers."""


class Deciding:
    """For one event loop.

    Args:
        engine: decides here and in threads.
        settings: the budget, and the sizes of calls.
        models: where calls of `settings.models_batch` requests or more go; None keeps them.
    """

    def __init__(self, engine: Engine, settings: ServeSettings, models: Models | None = None) -> None:
        self._engine = engine
        self._settings = settings
        self._models = models
        self._pace = Pace()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="decide")

    async def __call__(
        self, client: str, mode: ClientMode, requests: Sequence[DecisionRequest], ids: Sequence[str], start: float
    ) -> Records:
        """Decide all requests of a call that arrived at `start` (`time.perf_counter`).

        Raises:
            RequestError: as the engine does.
        """
        decide = partial(self._engine.decide_many, client, requests, ids, mode)
        load = self._engine.load(client, requests)
        if load is None or mode == "off":
            return await self._quick(decide, len(requests))
        left_ms = self._budget_ms(requests) - 1e3 * (time.perf_counter() - start)
        way = self._pace.way(load.who, load.items, len(requests), left_ms)
        if way == "not":
            return await self._quick(partial(decide, reason="slow"), len(requests))
        if way == "here" and len(requests) <= self._settings.thread_batch:
            watch = Stopwatch()
            records = decide()
            self._pace.took(load.who, load.items, watch.ms() / len(requests))
            return records
        try:
            return await asyncio.wait_for(self._beside(decide, load, client, mode, requests, ids), left_ms / 1e3)
        except TimeoutError:
            self._pace.missed(load.who, load.items, left_ms / len(requests))
            return await self._quick(partial(decide, reason="slow"), len(requests))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _beside(
        self,
        decide: Callable[[], Records],
        load: Load,
        client: str,
        mode: ClientMode,
        requests: Sequence[DecisionRequest],
        ids: Sequence[str],
    ) -> Records:
        if self._models is not None and len(requests) >= self._settings.models_batch:
            records = await self._models.decide(client, requests, ids, mode)
            if records is not None:
                return records
        loop = asyncio.get_running_loop()

        def work() -> Records:
            watch = Stopwatch()
            try:
                return decide()
            finally:  # also when nobody waits any more
                loop.call_soon_threadsafe(self._pace.took, load.who, load.items, watch.ms() / len(requests))

        return await loop.run_in_executor(self._threads, work)

    async def _quick(self, decide: Callable[[], Records], number: int) -> Records:
        """What asks no model."""
        if number <= self._settings.thread_batch:
            return decide()
        return await asyncio.to_thread(decide)

    def _budget_ms(self, requests: Sequence[DecisionRequest]) -> float:
        """The least of the requests' own budgets; without any, the settings' for each of them."""
        own = [request.budget_ms for request in requests if request.budget_ms is not None]
        return min(own, default=self._settings.budget_ms * len(requests))
