"""One raw connection to SQLite or PostgreSQL, for the hot paths that commit before they answer.

Statements use `?` marks and what the two databases share; the types `{integer}`, `{real}` and `{blob}` of a
schema are filled in by `make`. A commit is durable: `synchronous=FULL`, or `synchronous_commit=on`.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import psycopg

FAILURES = (sqlite3.Error, psycopg.Error, OSError)

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
        self._connection.execute("BEGIN" if self.postgres else "BEGIN IMMEDIATE")
        if self.postgres:
            self._connection.execute("SELECT pg_advisory_xact_lock(%s)", (lock,))

    def commit(self) -> None:
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Leave the transaction, whatever its state; a connection that is gone stays gone."""
        try:
            self._connection.execute("ROLLBACK")
        except FAILURES:
            return  # the failure that led here is the one to report

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

    def many(self, statement: str, rows: Iterable[tuple[object, ...]]) -> list[int]:
        """Run once per row; the number of rows that each run changed."""
        if not self.postgres:
            return [self._connection.execute(statement, row).rowcount for row in rows]
        with self._connection.pipeline():
            cursors = [self._connection.execute(statement.replace("?", "%s"), row) for row in rows]
        return [cursor.rowcount for cursor in cursors]


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
