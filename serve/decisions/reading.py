"""Codes of contexts, read by the language model of the version's generator beside the decisions.

A decision waits for its code some milliseconds; one that comes later is kept for the next decision in the same
context. Without one the member's encoder makes a code of the context's features (actors.bandits.mixture). Nobody waits
for a model that starts.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from actors.features.features import Floats
from serve.decisions.asked import Code
from serve.messages import DecisionRequest
from serve.observed.logs import Seldom
from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

Generator: TypeAlias = tuple[str, int]
"""Name and number in the registry."""
Told: TypeAlias = tuple[Mapping[str, Any], str | None]
"""A context, and the user who comes with it."""
Codes: TypeAlias = Mapping[int, Code]
"""Of requests, by their places."""
_Key: TypeAlias = tuple[Generator, bytes]

MOST = 64
"""Contexts that are being read at a time; those beyond are not asked for, nor waited for."""


class Model(Protocol):
    """The language model from afar (actors.generator.reading)."""

    async def codes(self, generator: Generator, told: Sequence[Told]) -> Floats: ...


class Reading:
    """For one event loop.

    Args:
        find: finds the model's process, or makes it; it may block. Called again after each failure.
        wait_ms: the longest that a decision waits.
        kept: codes in memory.
        again_s: after a failure before the next try.
    """

    def __init__(
        self,
        find: Callable[[], Model],
        metrics: Metrics,
        wait_ms: float,
        kept: int = 20_000,
        again_s: float = 5.0,
    ) -> None:
        self._find, self._metrics, self._wait_ms = find, metrics, wait_ms
        self._most, self._again_s = kept, again_s
        self._model: Model | None = None
        self._kept: OrderedDict[_Key, Code] = OrderedDict()
        self._asked: dict[_Key, asyncio.Task[None]] = {}
        self._ready: set[Generator] = set()
        self._failed_at = float("-inf")
        self._seldom = Seldom(1, 60.0)

    async def codes(self, generator: Generator, requests: Mapping[int, DecisionRequest], left_ms: float) -> Codes:
        """The codes that are there within the wait and half of what is left, of requests by their places."""
        keys = {place: _key(generator, request) for place, request in requests.items()}
        found = self._look(keys)
        missing = {key: requests[place] for place, key in keys.items() if place not in found}
        if not missing:
            self._count(found, "kept")
            return found
        self._ask(generator, {key: one for key, one in missing.items() if key not in self._asked})
        wait_s = 1e-3 * min(self._wait_ms, left_ms / 2)
        tasks = {self._asked[key] for key in missing if key in self._asked}
        if tasks and wait_s > 0 and generator in self._ready:
            await asyncio.wait(tasks, timeout=wait_s)
        self._count(found, "kept")
        later = self._look({place: key for place, key in keys.items() if place not in found})
        self._count(later, "read")
        self._metrics.count("medley_contexts_read_total", "late", by=len(keys) - len(found) - len(later))
        return {**found, **later}

    async def stop(self) -> None:
        tasks = set(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look(self, keys: Mapping[int, _Key]) -> dict[int, Code]:
        found = {place: self._kept[key] for place, key in keys.items() if key in self._kept}
        for place in found:
            self._kept.move_to_end(keys[place])
        return found

    def _ask(self, generator: Generator, wanted: Mapping[_Key, DecisionRequest]) -> None:
        """One call for all; while the model starts, or after it failed, one at a time."""
        room = MOST - len(self._asked)
        if generator not in self._ready and (self._asked or time.monotonic() - self._failed_at < self._again_s):
            room = 0
        told = {key: (one.context, one.user_id) for key, one in list(wanted.items())[: max(room, 0)]}
        if told:
            task = asyncio.create_task(self._read(generator, told))
            self._asked |= dict.fromkeys(told, task)

    async def _read(self, generator: Generator, told: Mapping[_Key, Told]) -> None:
        try:
            if self._model is None:
                self._model = await asyncio.to_thread(self._find)
            codes_NH = np.asarray(await self._model.codes(generator, list(told.values())), np.float32)
            if not np.isfinite(codes_NH).all():
                raise ValueError("its codes are not finite")
            for key, code_H in zip(told, codes_NH.astype(np.float64), strict=True):
                self._kept[key] = Code(generator, code_H)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            self._ready.add(generator)
        except Exception as error:  # Ray's errors and the registry's have no common base
            self._model, self._failed_at = None, time.monotonic()
            self._ready.discard(generator)
            self._metrics.count("medley_contexts_read_total", "failed", by=len(told))
            if self._seldom(type(error).__name__) is not None:
                logger.warning("no code of unknown users' contexts: %s; decisions go on without", error)
        finally:
            for key in told:
                self._asked.pop(key, None)

    def _count(self, codes: Codes, outcome: str) -> None:
        if codes:
            self._metrics.count("medley_contexts_read_total", outcome, by=len(codes))


def _key(generator: Generator, request: DecisionRequest) -> _Key:
    text = json.dumps([request.user_id, request.context], sort_keys=True)
    return generator, hashlib.blake2b(text.encode(), digest_size=16).digest()
