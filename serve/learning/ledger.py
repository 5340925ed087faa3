"""A learner's own durable state: its checkpoint, its publications, and which owner may write them.

One file (or the PostgreSQL database) with one writing process. Each new owner raises the fencing epoch; a
write carries its owner's epoch in the same transaction, so the write of a stale owner fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json, to_json

from cluster.errors import StateError
from cluster.sql import FAILURES, Sql

_LOCK = 0x6D65646C657A  # PostgreSQL's advisory lock of learners' writes

_KEPT_EVERY_S = 3600.0
_DELETE = "DELETE FROM learner_publications WHERE client = ? AND version = ? AND epoch = ?"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS learner_owners (shard {integer} PRIMARY KEY, fence {integer} NOT NULL);
CREATE TABLE IF NOT EXISTS learner_checkpoints (
    shard {integer} NOT NULL, client TEXT NOT NULL, version {integer} NOT NULL, seq {integer} NOT NULL,
    state {blob} NOT NULL, PRIMARY KEY (shard, client, version));
CREATE TABLE IF NOT EXISTS learner_publications (
    client TEXT NOT NULL, version {integer} NOT NULL, epoch {integer} NOT NULL, at {real} NOT NULL,
    seq {integer} NOT NULL, outcomes {integer} NOT NULL, weights TEXT NOT NULL,
    PRIMARY KEY (client, version, epoch))
"""


@dataclass(frozen=True)
class Checkpoint:
    """A client's learner of one version after the outcome `seq`; `state` is safetensors."""

    client: str
    version: int
    seq: int
    state: bytes


@dataclass(frozen=True)
class Publication:
    """Number `epoch` of a client's version: made at `at` (server time) after `outcomes`, the last being `seq`."""

    client: str
    version: int
    epoch: int
    at: float
    seq: int
    outcomes: int
    weights: dict[str, float]


class StaleOwner(StateError):
    """Another learner took the shard over; this one must stop."""


class Ledger:
    """Opening it takes the shard over from whoever had it.

    Raises:
        StateError: the file or database cannot be used.
    """

    def __init__(self, url: str, shard: int = 0) -> None:
        self._where = _shown(url)
        self._shard = shard
        try:
            self._sql = Sql(url)
            self._sql.begin(_LOCK)
            self._sql.make(_SCHEMA)
            self.fence = int(self._sql.one("SELECT fence FROM learner_owners WHERE shard = ?", (shard,)) or 0) + 1
            again = "ON CONFLICT (shard) DO UPDATE SET fence = excluded.fence"
            self._sql.insert("learner_owners", [(shard, self.fence)], again)
            self._sql.commit()
        except FAILURES as error:
            raise _failure(self._where, error) from error

    def checkpoints(self) -> list[Checkpoint]:
        query = "SELECT client, version, seq, state FROM learner_checkpoints WHERE shard = ? ORDER BY client, version"
        return [Checkpoint(*row) for row in self._read(query, (self._shard,))]

    def publications(self, client: str | None = None, version: int | None = None) -> list[Publication]:
        """Publications in the order in which they were made, of one client or version or all."""
        return _publications(self._read, client, version)

    def write(
        self,
        publications: list[Publication] | None = None,
        checkpoints: list[Checkpoint] | None = None,
        retired: list[tuple[str, int]] | None = None,
    ) -> None:
        """Write in one transaction, as the owner.

        Args:
            publications: appended.
            checkpoints: replace those of the same client and version.
            retired: (client, version) whose checkpoint is no longer needed.

        Raises:
            StaleOwner: another owner took the shard over.
            StateError: the place cannot be written.
        """
        rows = [
            (p.client, p.version, p.epoch, p.at, p.seq, p.outcomes, to_json(p.weights).decode())
            for p in publications or []
        ]

        def write(sql: Sql) -> None:
            sql.insert("learner_publications", rows)
            again = "ON CONFLICT (shard, client, version) DO UPDATE SET seq = excluded.seq, state = excluded.state"
            for c in checkpoints or []:  # one by one: they are large
                sql.insert("learner_checkpoints", [(self._shard, c.client, c.version, c.seq, c.state)], again)
            gone = "DELETE FROM learner_checkpoints WHERE shard = ? AND client = ? AND version = ?"
            for client, version in retired or []:
                sql.run(gone, (self._shard, client, version))

        self._owned(write)

    def prune(self, before: float) -> int:
        """Drop publications made before a moment (server time) but the last of each hour; returns how many.

        What is kept shows weights over time; which state a dropped one had is found again from the journal.
        """
        query = (
            "SELECT client, version, epoch, at FROM learner_publications WHERE at < ? ORDER BY client, version, epoch"
        )
        rows = self._read(query, (before,))
        hours = [(client, version, at // _KEPT_EVERY_S) for client, version, _, at in rows]
        gone = [row[:3] for row, hour, following in zip(rows, hours, hours[1:], strict=False) if hour == following]
        if gone:
            self._owned(lambda sql: [sql.run(_DELETE, key) for key in gone])
        return len(gone)

    def close(self) -> None:
        self._sql.close()

    def _owned(self, action: Callable[[Sql], object]) -> None:
        """Write in one transaction, as the owner."""
        sql = self._sql
        try:
            sql.begin(_LOCK)
            fence = sql.one("SELECT fence FROM learner_owners WHERE shard = ?", (self._shard,))
            if fence != self.fence:
                raise StaleOwner(
                    f"{self._where}: shard {self._shard} has a newer learner (fence {fence} after {self.fence}); "
                    "this one must stop"
                )
            action(sql)
            sql.commit()
        except FAILURES as error:
            sql.rollback()
            raise _failure(self._where, error) from error
        except StateError:
            sql.rollback()
            raise

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self._sql.rows(query, values)
        except FAILURES as error:
            raise _failure(self._where, error) from error


def read_publications(url: str, client: str, version: int) -> list[Publication]:
    """A client's publications of a version, read without taking the shard over. Raises StateError."""
    try:
        sql = Sql(url)
        try:
            return _publications(sql.rows, client, version)
        finally:
            sql.close()
    except FAILURES as error:
        raise _failure(_shown(url), error) from error


def _publications(
    rows: Callable[[str, tuple[object, ...]], list[tuple[Any, ...]]], client: str | None, version: int | None
) -> list[Publication]:
    query = (
        "SELECT client, version, epoch, at, seq, outcomes, weights FROM learner_publications "
        "WHERE client = coalesce(?, client) AND version = coalesce(?, version) ORDER BY at, client, epoch"
    )
    found = rows(query, (client, version))
    return [Publication(c, v, e, at, seq, n, from_json(weights)) for c, v, e, at, seq, n, weights in found]


def _shown(url: str) -> str:
    return url if not url.startswith("postgresql") else "PostgreSQL"


def _failure(where: str, error: BaseException) -> StateError:
    return StateError(
        f"{where}: the learner's state cannot be read or written: {str(error).strip()}; check that the "
        "disk has space, that the place can be written and that the database runs"
    )
