"""The journal awaited from an event loop.

What handlers hand over within one turn of the loop goes to the writer together and comes back together: one
wake-up of the writer, one commit and one wake-up of the loop for all of them, and no wait for a lone request.
"""

import asyncio
import time
from typing import Any

from cluster.journal.journal import Journal, Work
from serve.observed.metrics import Metrics


class Durable:
    """`await durable(work)` returns when the work is committed. For one event loop."""

    def __init__(self, journal: Journal, metrics: Metrics) -> None:
        self._journal = journal
        self._metrics = metrics
        self._works: list[Work] = []
        self._waiting: list[asyncio.Future[Any]] = []

    async def __call__(self, work: Work) -> Any:
        """Raises JournalError where the work could not be made durable."""
        loop, start = asyncio.get_running_loop(), time.perf_counter()
        done: asyncio.Future[Any] = loop.create_future()
        if not self._works:
            loop.call_soon(self._submit, loop)
        self._works.append(work)
        self._waiting.append(done)
        result = await done
        self._metrics.observe("medley_journal_commit_seconds", time.perf_counter() - start)
        return result

    def _submit(self, loop: asyncio.AbstractEventLoop) -> None:
        works, self._works = self._works, []
        waiting, self._waiting = self._waiting, []

        def deliver(results: list[Any]) -> None:
            loop.call_soon_threadsafe(_resolve, waiting, results)

        try:
            self._journal.submit(works, deliver)
        except Exception as error:
            _resolve(waiting, [error] * len(works))


def _resolve(waiting: list["asyncio.Future[Any]"], results: list[Any]) -> None:
    for done, result in zip(waiting, results, strict=True):
        if done.cancelled():
            continue  # the caller is gone; what was committed stays
        if isinstance(result, Exception):
            done.set_exception(result)
        else:
            done.set_result(result)
