"""What outcomes have taught about items, told to the clients' vector stores by a thread of its own.

What is told is how an item stands, not what changed of it. So nothing is lost where a process ends at any moment: what
was not acknowledged is told again, and all of it where this process or the one that keeps the store is new.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from actors.content.served import Served
from serve.observed.logs import Seldom
from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

Key: TypeAlias = tuple[str, int]
"""A client, and a version."""
TOGETHER = 500
"""Items told in a call."""


class Store(Protocol):
    """The content process from afar (actors.content.service)."""

    def apply(self, client: str, version: int, served: list[Served]) -> str | None: ...


@dataclass(frozen=True)
class Told:
    """What a client's outcomes on a version have taught about since some publication, up to publication `number`: rows
    of items, their catalogue index at the fit."""

    client: str
    version: int
    number: int
    rows: Sequence[int]


class Learned(Protocol):
    """A learner (serve.learner), which others use meanwhile: it is asked for some items at a time."""

    def taught(self, after: Mapping[Key, int]) -> list[Told]: ...

    def served(self, client: str, number: int, rows: Sequence[int]) -> list[Served]: ...


class Feedback:
    """Begins to tell when it is first woken.

    Args:
        find: finds the content process, or makes it. Called again after each failure.
        learned: what was learned, by the publications up to which it was told.
        again_s: after a failure before the next try.
    """

    def __init__(
        self,
        find: Callable[[], Store],
        learned: Learned,
        metrics: Metrics,
        again_s: float = 2.0,
    ) -> None:
        self._find, self._learned, self._metrics, self._again_s = find, learned, metrics, again_s
        self._store: Store | None = None
        self._told: dict[Key, int] = {}
        self._begun: dict[Key, str | None] = {}
        self._news, self._stop = threading.Event(), threading.Event()
        self._seldom = Seldom(1, 60.0)
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """There was a publication."""
        self._news.set()

    def stop(self) -> None:
        """End the thread; what it has not told is told by the next learner."""
        self._stop.set()
        self._news.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._news.wait()
            self._news.clear()
            told = self._learned.taught(self._told)
            failed = [one for one in told if not self._stop.is_set() and not self._heard(one)]
            if failed:
                self._stop.wait(self._again_s)
                self._news.set()

    def _heard(self, told: Told) -> bool:
        """Whether the store has all of it; of one client that it cannot take, others hear nothing."""
        key = told.client, told.version
        for first in range(0, len(told.rows), TOGETHER):
            part = self._learned.served(*key, told.rows[first : first + TOGETHER])
            try:
                self._store = self._store or self._find()
                begun = self._store.apply(*key, part)
            except Exception as error:  # Ray's errors and the store's have no common base, and the thread must live
                self._store = None
                self._metrics.count("medley_items_told_total", "failed", by=len(part))
                if self._seldom(type(error).__name__) is not None:
                    logger.warning("what items' outcomes taught is not in the vector store: %s; told again", error)
                return False
            self._metrics.count("medley_items_told_total", "taken", by=len(part))
            if self._begun.setdefault(key, begun) != begun:  # another process opened it
                self._begun[key] = begun
                self._told.pop(key, None)
                return False
        self._told[key] = told.number
        return True
