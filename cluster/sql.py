"""One raw connection to SQLite or PostgreSQL, for the hot paths that commit before they answer.

Statements use `?` marks and what the two databases share; the types `{integer}`, `{real}` and `{blob}` of a
schema are filled in by `make`. A commit is durable: `synchronous=FULL`, or `synchronous_commit=on`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg

FAILURES = (sqlite3.Error, psycopg.Error, OSError)

T = TypeVar("T")

_MOST = 64  # rows in one statement
_TYPES = {
    False: {"integer": "INTEGER", "real": "REAL", "blob": "BLOB"},
    True: {"integer": "BIGINT", "real": "DOUBLE PRECISION", "blob": "BYTEA"},
}


class Sql:
    """Used by one thread at a time. Every method may raise one of FAILURES."""

    def __init__(self, url: str) -> None:
        """Connect to a SQLite file by path, or to `postgresql://...` (`postgresql+psycopg://...` too)."""
        self.postgres = url.startswith("postgresql")
        self._connection: Any = _postgres(url) if self.postgres else _sqlite(Path(url))

    def make(self, schema: str) -> None:
        """Run the statements of a schema, separated by semicolons at line ends."""
        for statement in schema.format(**_TYPES[self.postgres]).split(";\n"):
            self._connection.execute(statement)

    def begin(self, lock: int) -> None:
        """Begin to write. Writers wait for one another here, so that sequence numbers commit in their order.

        Args:
            lock: PostgreSQL's advisory lock; SQLite has one lock for the whole file.
        """
        if self.postgres:
            self._connection.execute(f"BEGIN; SELECT pg_advisory_xact_lock({lock:d})")  # one way to the server and back
        else:
            self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Leave the transaction, whatever its state; a connection that is gone stays gone."""
        try:
            self._connection.execute("ROLLBACK")
        except FAILURES:
            return  # the failure that led here is the one to report

    @property
    def gone(self) -> bool:
        """After `rollback`: whether the connection to PostgreSQL is lost, or of no more use; a file's never is."""
        return self.postgres and self._connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE

    def close(self) -> None:
        self._connection.close()

    def one(self, query: str, values: Sequence[object] = ()) -> Any:
        """The first value of the first row, None where there is no row."""
        rows = self.rows(query, values)
        return rows[0][0] if rows else None

    def rows(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        if self.postgres:
            query = query.replace("?", "%s")
        return list(self._connection.execute(query, values).fetchall())

    def among(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query that ends with a column which must be one of `values`."""
        found = []
        for part in _parts(values):
            found += self.rows(f"{query} IN ({', '.join('?' * len(part))})", part)
        return found

    def run(self, statement: str, values: Sequence[object] = ()) -> int:
        """Run once; the number of rows that it changed."""
        if self.postgres:
            statement = statement.replace("?", "%s")
        return int(self._connection.execute(statement, values).rowcount)

    def insert(self, table: str, rows: Sequence[tuple[object, ...]], conflict: str = "") -> int:
        """Insert rows of all the table's columns; the number of rows inserted, or changed as `conflict` says."""
        done = 0
        for part in _parts(rows):
            marks = f"({', '.join('?' * len(part[0]))})"
            values = [value for row in part for value in row]
            done += self.run(f"INSERT INTO {table} VALUES {', '.join([marks] * len(part))} {conflict}", values)
        return done


def _parts(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts of 64, 32, 16, ... rows: of each size there is one statement to prepare, kept by the connection.

    A statement of many rows matters for more than its own time: SQLite's module lets go of the interpreter's lock for
    each, and must wait for the event loop to get it back.
    """
    size = _MOST
    start = 0
    while start < len(rows):
        while size > len(rows) - start:
            size //= 2
        yield rows[start : start + size]
        start += size


def _sqlite(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _postgres(url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    connection = psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=10)
    connection.execute("SET synchronous_commit = on")
    return connection
