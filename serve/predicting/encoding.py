"""Vectors of content that is sent inline, read by the content process within a call's wait.

Who is not read in time is answered without, and the caller who asks again finds the vector in that process's memory.
Nobody waits for a process that failed a moment ago.

Shapes: E size of the embedding.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from actors.content.contents import Content
from actors.content.embedding import Embedded
from actors.features.features import Floats
from serve.observed.logs import Seldom
from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

MOST = 256
"""Contents that are being read at a time; those beyond are not sent."""
NO_ENCODER = "no encoder reads content for this version; send its embedding"
_NOBODY = "nobody can read content now; send it again later"


class ContentReader(Protocol):
    """The content process from afar (actors.content.service)."""

    async def embed(self, version: int, contents: Sequence[Content]) -> Embedded | None: ...


@dataclass(frozen=True)
class Read:
    """vector_E: of a content, a unit vector; None where there is none. reason: what could not be read, and why."""

    vector_E: Floats | None = None
    reason: str | None = None


class Encoding:
    """For one event loop.

    Args:
        find: finds the content process, or makes it; it may block. Called again after each failure.
        wait_ms: the longest that a call waits, for each of its contents.
        again_s: after a failure before the next try.
    """

    def __init__(
        self, find: Callable[[], ContentReader], metrics: Metrics, wait_ms: float, again_s: float = 5.0
    ) -> None:
        self._find, self._metrics, self._wait_ms, self._again_s = find, metrics, wait_ms, again_s
        self._reader: ContentReader | None = None
        self._in_work = 0
        self._tasks: set[asyncio.Task[tuple[str, list[Read]]]] = set()
        self._failed_at = float("-inf")
        self._seldom = Seldom(1, 60.0)

    async def __call__(self, version: int, contents: Sequence[Content]) -> list[Read]:
        """Each content's vector as the version's embeddings were made, or the reason why there is none."""
        outcome, found = await self._outcome(version, contents)
        self._metrics.count("medley_contents_embedded_total", outcome, by=len(contents))
        return found

    async def stop(self) -> None:
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _outcome(self, version: int, contents: Sequence[Content]) -> tuple[str, list[Read]]:
        if self._in_work + len(contents) > MOST:
            return _without("refused", contents, f"at most {MOST} contents are read at a time; send fewer, or later")
        if time.monotonic() - self._failed_at < self._again_s:
            return _without("failed", contents, _NOBODY)
        self._in_work += len(contents)
        task = asyncio.create_task(self._read(version, contents))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        wait_ms = self._wait_ms * len(contents)
        done, _ = await asyncio.wait({task}, timeout=1e-3 * wait_ms)
        if not done:
            return _without("late", contents, f"not read within {wait_ms:g} ms (serve.content_ms); send it again")
        return task.result()

    async def _read(self, version: int, contents: Sequence[Content]) -> tuple[str, list[Read]]:
        try:
            if self._reader is None:
                self._reader = await asyncio.to_thread(self._find)
            found = await self._reader.embed(version, contents)
        except Exception as error:  # Ray's errors and the registry's have no common base
            self._reader, self._failed_at = None, time.monotonic()
            if self._seldom(type(error).__name__) is not None:
                logger.warning("content is not read: %s; predictions go on without", error)
            return _without("failed", contents, _NOBODY)
        finally:
            self._in_work -= len(contents)
        if found is None:
            return _without("refused", contents, NO_ENCODER)
        return "read", _told(found)


def _without(outcome: str, contents: Sequence[Content], reason: str) -> tuple[str, list[Read]]:
    return outcome, [Read(reason=reason)] * len(contents)


def _told(found: Embedded) -> list[Read]:
    reasons: dict[int, list[str]] = {}
    for place, reason in found.problems:
        reasons.setdefault(place, []).append(reason)
    return [
        Read(np.asarray(vector_E, np.float64) if there else None, "; ".join(reasons.get(n, [])) or None)
        for n, (vector_E, there) in enumerate(zip(found.vectors_NE, found.there_N.tolist(), strict=True))
    ]
