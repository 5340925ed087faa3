"""What one serving process holds and keeps fresh: keys, versions, catalogues, publications.

No Ray: the learner comes as a link, so that tests run a replica in their own process.
"""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.errors import MedleyError
from cluster.journal.journal import Reader, journal_url
from cluster.keys import Keys
from cluster.registry import Registry
from serve.decide import Engine
from serve.decisions.catalogue import Large
from serve.decisions.current import Loaded, load
from serve.decisions.histories import Missed, Recalled
from serve.learning.service import News
from serve.observed.metrics import Metrics
from serve.releases import Releases

logger = logging.getLogger(__name__)

_RETRY_S = 1.0
_RECALL_S = 0.05


class Learner(Protocol):
    """`service.LearnerService` from afar."""

    async def wait(self, fence: int, number: int) -> News: ...

    async def recall(self, missed: Sequence[Missed]) -> list[Recalled]: ...

    async def publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]: ...


class Replica:
    """An engine that follows the registry, the journal's catalogue changes and the learner.

    Args:
        settings: as resolved by the CLI.
        name: registry name of the versions.
        learner: finds the learner; called again after each failure, because a restarted one has a new address.
    """

    def __init__(self, settings: Settings, name: str, learner: Callable[[], Learner]) -> None:
        self.settings = settings
        self.releases = Releases(Registry(settings.registry_uri), name)
        options = settings.serve
        self.engine = Engine(settings.seed, options.max_items, options.history_bytes, options.versions_kept)
        self._large = Large(options.retrieve_above, options.retrieve)
        self.metrics = Metrics()
        self.following = False
        self.lag_s = 0.0
        self._reader = Reader(journal_url(settings))
        self._database = Database(url_of(settings))
        self._find = learner
        self._learner: Learner | None = None
        self._revision = 0
        self._reading = threading.Lock()
        self._refused: set[int] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Load what is there now; then follow. A registry that cannot be read is an error here."""
        await self.look()
        every = self.settings.serve.versions_refresh_s
        self._tasks = [
            asyncio.create_task(self._again(self.look, every)),
            asyncio.create_task(self._again(self.follow, 0.0)),
            asyncio.create_task(self._again(self.recall, _RECALL_S)),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._reader.close()
        self._database.close()

    async def look(self) -> None:
        """Install the latest version if it is new, load what held clients need, take in new catalogue changes."""
        await asyncio.to_thread(self._look)

    async def catch_up(self, client: str, revision: int) -> bool:
        """Let decisions for a client know its catalogue up to this change; whether they do then."""
        if self.engine.revision(client) < revision:
            await asyncio.to_thread(self._changes)
        return self.engine.revision(client) >= revision

    async def follow(self) -> None:
        """Wait for the learner's publications and take them in, until it fails."""
        learner = self._learner = await asyncio.to_thread(self._find)
        fence, number = 0, 0
        while True:
            news = await learner.wait(fence, number)
            self.following, self.lag_s = True, news.lag_s
            await asyncio.to_thread(self._take, news)
            fence, number = news.fence, news.number

    async def recall(self) -> None:
        """Ask the learner for the histories that decisions missed; the next ones of those users have them."""
        if self._learner is not None and (missed := self.engine.histories.wanted()):
            self.metrics.count("medley_histories_missed_total", by=len(missed))
            known = [self.engine.histories.recall(found) for found in await self._learner.recall(missed)]
            self.metrics.count("medley_histories_recalled_total", by=sum(known))

    async def publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]:
        """Weights over time, from the learner."""
        if self._learner is None:
            return []
        return await self._learner.publications(client, version)

    def _take(self, news: News) -> None:
        for update in news.updates:
            self.engine.publish(update)

    def _changes(self) -> None:
        """Take in catalogue changes in their order, which decides the order of items."""
        with self._reading:
            changes = self._reader.changes(self._revision)
            for revision, change in changes:
                self.engine.change(change.client, change.item_id, change.body, revision)
                self._revision = revision
            for client in {change.client for _, change in changes}:
                self.engine.rebuild(client)

    def _look(self) -> None:
        self._changes()
        for number in self._wanted():
            if (loaded := self._load(number)) is not None:
                self.engine.install(loaded)
                break
        self.engine.hold(Keys(self._database).held())
        for number in self.engine.versions.wanted():
            if number not in self._refused and (loaded := self._load(number)) is not None:
                for left in self.engine.keep(loaded):
                    logger.warning("version %d leaves memory for %d; see serve.versions_kept", left, number)

    def _load(self, number: int) -> Loaded | None:
        """None for one that cannot be loaded: the newest that can decides."""
        try:
            return load(number, self.releases.load(number), self._large)
        except MedleyError as error:
            self._refused.add(number)
            logger.error("version %d is not installed: %s", number, error)
            return None

    def _wanted(self) -> list[int]:
        """Versions to try, newest first: those newer than the installed one that were not refused before."""
        installed = self.engine.number or 0
        return [n for n in reversed(self.releases.numbers()) if n > installed and n not in self._refused]

    async def _again(self, action: Callable[[], Awaitable[None]], every_s: float) -> None:
        """Repeat for ever; a failure is logged once and tried again after a pause."""
        last = ""
        while True:
            pause_s = every_s
            try:
                await action()
                last = ""
            except asyncio.CancelledError:
                raise
            except Exception as error:  # Ray's and the database's errors have no common base
                self.following = self.following and action != self.follow
                pause_s = max(every_s, _RETRY_S)
                if str(error) != last:
                    logger.warning("%s: %s", getattr(action, "__name__", action), error)
                last = str(error)
            await asyncio.sleep(pause_s)
