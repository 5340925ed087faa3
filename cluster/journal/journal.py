"""Decisions, rewards and their outcomes: durable before they are acknowledged, joined exactly once.

One thread writes. It takes whatever waits, runs it in one transaction and commits it with
`synchronous=FULL` (group commit), and only then answers. Between commits it closes reward windows: every
slot of a decision gets one numbered outcome per reward kind, by the time at which rewards reached this
server. Rewards that come before their decision are parked until it comes; rewards that come after their
window are kept and marked late, and change nothing.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar

from cluster.config import RewardKind, Settings
from cluster.errors import JournalError
from cluster.journal.queries import Connection
from cluster.journal.records import (
    Agreement,
    DecisionRecord,
    Final,
    ItemRecord,
    OutcomeRow,
    Repeat,
    RewardRecord,
    RewardStatus,
    Shown,
)
from cluster.journal.store import Store
from cluster.sql import FAILURES

__all__ = [
    "Agreement",
    "DecisionRecord",
    "Final",
    "ItemRecord",
    "Journal",
    "OutcomeRow",
    "Reader",
    "Repeat",
    "RewardRecord",
    "RewardStatus",
    "Shown",
    "Work",
    "journal_url",
]

_GROUP = 512  # entries in one transaction: bounds the wait of the first
_CLOSE = 2_000  # decisions closed in one transaction: bounds the wait of the next group

T = TypeVar("T")
Deliver: TypeAlias = Callable[[list[Any]], None]


def journal_url(settings: Settings) -> str:
    """Where the journal is: PostgreSQL if that is the database, else `home/journal.db`."""
    return str(settings.database_url if settings.postgres else settings.home / "journal.db")


@dataclass(frozen=True)
class Work:
    """Records of one kind that become durable together, all or none."""

    kind: Literal["decisions", "rewards", "items"]
    records: Sequence[Any]


@dataclass(frozen=True)
class _Batch:
    """Works handed over together; `deliver` gets a result or an exception for each, once, in the writer thread."""

    works: Sequence[Work]
    deliver: Deliver


class Journal:
    """The writer. One per process that acknowledges; use as a context manager or call `close`."""

    def __init__(
        self,
        url: str,
        kinds: Mapping[str, RewardKind],
        clock: Callable[[], float] = time.time,
        close_every_s: float = 0.1,
    ) -> None:
        """Raises JournalError where the place cannot be used."""
        self._url = url
        self._kinds = dict(kinds)
        self._clock = clock
        self._close_every_s = close_every_s
        self._waiting: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._closed = False
        self.failed: JournalError | None = None
        """The last failure to write, None once a write has succeeded again."""
        self._store: Store | None = Store(url)
        self._transaction(lambda store, now: store.begin_kinds(now, self._kinds))
        self.secret = bytes.fromhex(self._store.fact("secret"))
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def decide(self, records: Sequence[DecisionRecord]) -> "Future[dict[int, Repeat]]":
        """Make decisions durable, all or none; the result holds those whose request_id is a repeat."""
        return self._future(self.deciding(records))

    def reward(self, records: Sequence[RewardRecord]) -> "Future[list[RewardStatus]]":
        """Make rewards durable; one status each."""
        return self._future(self.rewarding(records))

    def items(self, records: Sequence[ItemRecord]) -> "Future[int]":
        """Make changes of catalogues durable; the result is the last revision."""
        return self._future(self.changing(records))

    def deciding(self, records: Sequence[DecisionRecord]) -> Work:
        """`decide` as work for `submit`; so are the next two."""
        return Work("decisions", records)

    def rewarding(self, records: Sequence[RewardRecord]) -> Work:
        for record in records:
            if record.kind not in self._kinds:
                raise JournalError(f"reward kind {record.kind!r} is not configured; known: {sorted(self._kinds)}")
        return Work("rewards", records)

    def changing(self, records: Sequence[ItemRecord]) -> Work:
        return Work("items", records)

    def submit(self, works: Sequence[Work], deliver: Deliver) -> None:
        """Hand works over together; `deliver` gets their results, or exceptions, in the writer thread."""
        with self._closing:
            if self._closed:
                raise JournalError(f"{self._url}: the journal is closed; open it again to write")
            self._waiting.put(_Batch(works, deliver))

    def close(self) -> None:
        """Commit what waits and stop."""
        with self._closing:
            self._closed = True
            self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _future(self, work: Work) -> "Future[Any]":
        done: Future[Any] = Future()

        def deliver(results: list[Any]) -> None:
            if isinstance(results[0], Exception):
                done.set_exception(results[0])
            else:
                done.set_result(results[0])

        self.submit([work], deliver)
        return done

    def _run(self) -> None:
        next_close = 0.0
        stop = False
        while not stop:
            batches, stop = self._take(max(0.0, next_close - time.monotonic()))
            if batches:
                self._commit(batches)
            if time.monotonic() >= next_close and not stop:
                more = self._close_windows()
                next_close = time.monotonic() + (0.0 if more else self._close_every_s)
        if self._store is not None:
            self._store.close()

    def _take(self, wait_s: float) -> tuple[list[_Batch], bool]:
        batches: list[_Batch] = []
        size = 0
        try:
            batch = self._waiting.get(timeout=wait_s) if wait_s > 0 else self._waiting.get_nowait()
            while batch is not None:
                batches.append(batch)
                size += len(batch.works)
                if size >= _GROUP:
                    return batches, False
                batch = self._waiting.get_nowait()
        except queue.Empty:
            return batches, False
        return batches, True

    def _commit(self, batches: list[_Batch]) -> None:
        results = iter(self._results([work for batch in batches for work in batch.works]))
        for batch in batches:
            batch.deliver([next(results) for _ in batch.works])

    def _results(self, works: Sequence[Work]) -> list[Any]:
        """One transaction for all; where it fails, one for each, so that a bad record hurts only itself.

        Where the database is gone all fail at once: each would wait in turn for a connection that does not come.
        """
        try:
            results = self._transaction(lambda store, now: self._done(store, now, works))
        except Exception as error:
            if len(works) == 1 or self._store is None:
                return [error] * len(works)
            results = []
            for done, work in enumerate(works, 1):
                results += self._results([work])
                if self._store is None:
                    return results + [self.failed] * (len(works) - done)
            return results
        self.failed = None
        return results

    def _done(self, store: Store, now: float, works: Sequence[Work]) -> list[Any]:
        """The results of works in their order; the records of all works of a kind go to the store together."""
        results: list[Any] = [None] * len(works)
        decisions, rewards, items = (_gathered(works, kind) for kind in ("decisions", "rewards", "items"))
        if decisions.spans:
            repeats = store.decide(decisions.records, now)
            for place, first, end in decisions.spans:
                results[place] = {i - first: repeat for i, repeat in repeats.items() if first <= i < end}
        if rewards.spans:
            statuses = store.reward(rewards.records, now, self._kinds)
            for place, first, end in rewards.spans:
                results[place] = statuses[first:end]
        if items.spans:
            last = store.items(items.records, now)
            for place, _, end in items.spans:
                results[place] = last - len(items.records) + end
        return results

    def _transaction(self, action: Callable[[Store, float], T]) -> T:
        try:
            store = self._store = self._store or Store(self._url)
            try:
                now = store.begin(self._clock())
                result = action(store, now)
                store.commit()
            except FAILURES as error:
                store.rollback()
                self._reopen(store)
                raise store.failure(error) from error
            except BaseException:
                store.rollback()
                raise
        except JournalError as error:
            self.failed = error
            raise
        return result

    def _reopen(self, store: Store) -> None:
        """Where PostgreSQL's connection is gone the next transaction makes a new one."""
        if store.sql.gone:
            store.close()
            self._store = None

    def _close_windows(self) -> bool:
        """Returns whether more windows may be due. A failure is kept in `failed`; the next look tries again."""
        try:
            added = self._transaction(lambda store, now: store.close_windows(now, self._kinds, _CLOSE))
        except JournalError:
            return False
        if added:
            self.failed = None
        return added >= _CLOSE


@dataclass(frozen=True)
class _Gathered:
    """Records of several works, and (place of the work, first record, end) of each."""

    records: list[Any]
    spans: list[tuple[int, int, int]]


def _gathered(works: Sequence[Work], kind: str) -> _Gathered:
    found = _Gathered([], [])
    for place, work in enumerate(works):
        if work.kind == kind:
            found.spans.append((place, len(found.records), len(found.records) + len(work.records)))
            found.records.extend(work.records)
    return found


class Reader:
    """Reads a journal from any process; opens its connection at the first use and after a failure."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._store: Connection | None = None
        self._lock = threading.Lock()

    def outcomes(self, after: int, limit: int, kind: str) -> list[OutcomeRow]:
        """Numbered outcomes of one kind with seq > after, in order."""
        return self._read(lambda store: store.outcomes(after, limit, kind))

    def finals(self, after: int, through: int, limit: int) -> list[Final]:
        """Outcomes of all kinds with after < seq <= through and their decisions, in order."""
        return self._read(lambda store: store.finals(after, through, limit))

    def last_outcome(self) -> int:
        """The greatest seq of an outcome, 0 where there is none."""
        return self._read(lambda store: store.last_outcome())

    def identity(self) -> str:
        """Tells this journal from others; made from its secret, which stays one."""
        return hashlib.sha256(self._read(lambda store: store.fact("secret")).encode()).hexdigest()[:16]

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """A decision as it was kept, None where there is none of this id."""
        return self._read(lambda store: store.decision(decision_id))

    def answer(self, client: str, request_id: str, request: str) -> Repeat | None:
        """The stored answer to a request_id, and whether its request was `request`; None where it is new."""
        return self._read(lambda store: store.answer(client, request_id, request))

    def shown(self, client: str, user: str, since_s: float, after_seq: int = 0) -> list[Shown]:
        """What a user was shown at or after `since_s` (server time) by decisions with seq > after_seq, in order."""
        return self._read(lambda store: store.shown(client, user, since_s, after_seq))

    def clients(self) -> list[str]:
        """All for whom anything was ever decided."""
        return self._read(lambda store: store.clients())

    def agreements(self) -> dict[str, Agreement]:
        """By client, over all decisions that an engine made beside a baseline."""
        return self._read(lambda store: store.agreements())

    def agreement(self, client: str) -> Agreement | None:
        """As `agreements`, of one client; None where nothing was compared."""
        return self._read(lambda store: store.agreement(client))

    def changes(self, after: int) -> list[tuple[int, ItemRecord]]:
        """Catalogue changes with revision > after, in order."""
        return self._read(lambda store: store.changes(after))

    def counts(self) -> dict[str, int]:
        """How many decisions, rewards of each status and outcomes there were."""
        return self._read(lambda store: store.counts())

    def close(self) -> None:
        with self._lock:
            if self._store is not None:
                self._store.close()
            self._store = None

    def _read(self, query: Callable[[Connection], T]) -> T:
        with self._lock:
            store = self._store = self._store or Connection(self._url, make=False)
            try:
                return query(store)
            except FAILURES as error:
                self._store = None
                store.close()
                raise store.failure(error) from error
