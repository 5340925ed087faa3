"""The learner as a long-lived service: a thread learns, publishes and saves; readers wait for publications.

Plain asyncio and threading; `serve.processes` makes it a detached named Ray actor.
"""

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from actors.bandits.version import Version
from actors.content.served import Served
from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.errors import DatabaseError, MedleyError, RegistryError
from cluster.journal.journal import Reader, journal_url
from cluster.keys import Keys
from cluster.registry import Registry
from serve.decisions.current import Update
from serve.decisions.histories import Missed, Recalled
from serve.learner import Learner
from serve.learning.feedback import Feedback, Key, Store, Told
from serve.learning.ledger import Ledger, StaleOwner
from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

_STEP = 200  # outcomes learned while a reader may have to wait
_IDLE_S = 0.02
_REST = 4.0  # seconds without publishing for each second that a publication took
_WAIT_S = 10.0
_PRUNE_S = 600.0
_BEHIND_S = 1.0


@dataclass(frozen=True)
class News:
    """What `wait` answers: this learner's fence, its count of publications, what is new, and how far it is behind."""

    fence: int
    number: int
    updates: list[Update]
    lag_s: float = 0.0


def ledger_url(settings: Settings, shard: int) -> str:
    return str(settings.database_url if settings.postgres else settings.home / f"learner-{shard}.db")


class LearnerService:
    """Owns one shard.

    Args:
        settings: `Settings.model_dump(mode="json")`.
        name: registry name of the versions.
        content: finds the process that keeps the vector stores; None tells them nothing.
        shard: which clients; 0 while there is one learner.
    """

    def __init__(
        self, settings: dict[str, Any], name: str, content: Callable[[], Store] | None = None, shard: int = 0
    ) -> None:
        self._settings = Settings.model_validate(settings)
        self.metrics = Metrics()
        self._registry = Registry(self._settings.registry_uri)
        self._name = name
        self._ledger = Ledger(ledger_url(self._settings, shard), shard)
        self._reader = Reader(journal_url(self._settings))
        self._database = Database(url_of(self._settings))
        self._learner = Learner(
            lambda number: Version.load(self._registry.fetch(name, number)),
            self._reader,
            self._ledger,
            self._settings.reward_kind,
        )
        self._lock = threading.Lock()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._stop = threading.Event()
        self._failure: str | None = None
        self._caught_up_at = time.monotonic()
        self.metrics.level("medley_learner_lag_seconds", lambda: self.lag_s)
        self._feedback = None if content is None else Feedback(content, self, self.metrics)
        self._thread = threading.Thread(target=self._run, name="learner", daemon=True)
        self._thread.start()

    async def wait(self, fence: int, number: int) -> News:
        """News after publication `number` of the learner with this fence; everything for any other fence.

        Returns without news after ten seconds, so that a reader sees that the learner lives.
        """
        known = number if fence == self._ledger.fence else 0
        if self._learner.number <= known:
            event = asyncio.Event()
            self._waiters.append((asyncio.get_running_loop(), event))
            if self._learner.number <= known:
                try:
                    await asyncio.wait_for(event.wait(), _WAIT_S)
                except TimeoutError:
                    self._waiters = [waiter for waiter in self._waiters if waiter[1] is not event]
                    return News(self._ledger.fence, known, [], self.lag_s)
        return await asyncio.to_thread(self._since, known)

    async def recall(self, missed: Sequence[Missed]) -> list[Recalled]:
        """Histories of users whom a replica did not find."""
        return await asyncio.to_thread(self._recall, missed)

    async def publications(self, client: str | None = None, version: int | None = None) -> list[dict[str, Any]]:
        """Weights over time, oldest first."""
        return await asyncio.to_thread(self._publications, client, version)

    async def position(self) -> dict[str, Any]:
        """How far the learner is: the last outcome's number, outcomes left out, and the last failure."""
        learner = self._learner
        return {"seq": learner.seq, "number": learner.number, "skipped": learner.skipped, "failure": self._failure}

    def taught(self, after: Mapping[Key, int]) -> list[Told]:
        """For `Feedback`."""
        with self._lock:
            return self._learner.taught(after)

    def served(self, client: str, number: int, rows: Sequence[int]) -> list[Served]:
        """For `Feedback`."""
        with self._lock:
            return self._learner.served(client, number, rows)

    @property
    def lag_s(self) -> float:
        """Seconds since every outcome was learned; the oldest that is not is no older."""
        return time.monotonic() - self._caught_up_at

    async def stop(self) -> None:
        """Save and end the thread."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join)
        if self._feedback is not None:
            await asyncio.to_thread(self._feedback.stop)

    def _since(self, number: int) -> News:
        with self._lock:
            return News(self._ledger.fence, *self._learner.since(number), self.lag_s)

    def _recall(self, missed: Sequence[Missed]) -> list[Recalled]:
        users = defaultdict(list)
        for client, version, user in missed:
            users[client, version].append(user)
        with self._lock:
            return [self._learner.recall(client, version, some) for (client, version), some in users.items()]

    def _publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(publication) for publication in self._learner.publications(client, version)]

    def _run(self) -> None:
        """Learn; a failure (no disk, no database) is kept, told and tried again."""
        next_publish = next_save = next_look = next_prune = 0.0
        longest_s = max(kind.window_s for kind in self._settings.rewards.values())
        while not self._stop.is_set():
            try:
                with self._lock:
                    read = self._advance()
                now = time.monotonic()
                if now >= next_look:
                    self._adopt()
                    self._measure()
                    next_look = now + self._settings.serve.versions_refresh_s
                if now >= next_publish:
                    next_publish = self._publish(now)
                if now >= next_save:
                    with self._lock:
                        self._learner.save()
                    next_save = now + self._settings.serve.checkpoint_s
                if now >= next_prune:
                    with self._lock:
                        self._ledger.prune(time.time() - longest_s)
                    next_prune = now + _PRUNE_S
                self._failure = None
            except StaleOwner as error:
                logger.error("learner: %s", error)
                self._failure = str(error)
                return
            except Exception as error:  # whatever it is, the thread lives and health tells
                read, told = 0, str(error) if isinstance(error, MedleyError) else f"{type(error).__name__}: {error}"
                if self._failure != told:
                    logger.error("learner: %s", told, exc_info=not isinstance(error, MedleyError))
                self._failure = told
                self._stop.wait(0.5)
            if read < _STEP:
                self._stop.wait(_IDLE_S)
        with self._lock:
            self._learner.publish()
            self._learner.save()

    def _advance(self) -> int:
        skipped = self._learner.skipped
        read = self._learner.advance(_STEP)
        if read < _STEP:
            self._caught_up_at = time.monotonic()
        skipped = self._learner.skipped - skipped
        self.metrics.count("medley_learner_outcomes_total", by=read - skipped)
        self.metrics.count("medley_learner_skipped_total", by=skipped)
        return read

    def _measure(self) -> None:
        """Look at the journal's own counters, and at how many outcomes are left to learn."""
        for event, rows in self._reader.counts().items():
            self.metrics.level("medley_journal_events", partial(float, rows), event)
        behind = self._reader.last_outcome() - self._learner.seq if self.lag_s > _BEHIND_S else 0
        self.metrics.level("medley_learner_lag_outcomes", partial(float, behind))

    def _adopt(self) -> None:
        try:
            latest, held = self._registry.latest(self._name), Keys(self._database).held()
        except (RegistryError, DatabaseError):
            return  # nothing is published yet, or the next look will tell
        with self._lock:
            self._learner.adopt(latest, held)

    def _publish(self, now: float) -> float:
        """Publish what is new; returns when the next publication may be."""
        before = self._learner.number
        with self._lock:
            self._learner.publish()
        if self._learner.number > before:
            self.metrics.count("medley_publications_total", by=self._learner.number - before)
            if self._feedback is not None:
                self._feedback.wake()
            waiting, self._waiters = self._waiters, []
            for loop, event in waiting:
                loop.call_soon_threadsafe(event.set)
        took = time.monotonic() - now
        return now + max(1.0 / self._settings.serve.publications_per_s, (1 + _REST) * took)
