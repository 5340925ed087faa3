"""The metadata database: SQLite under home by default, PostgreSQL by MEDLEY_DATABASE_URL."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from cluster.config import Settings
from cluster.errors import DatabaseError

_MIGRATIONS = Path(__file__).parent / "migrations"


def url_of(settings: Settings) -> str:
    """The configured URL, or metadata.db under home."""
    return settings.database_url or f"sqlite:///{settings.home / 'metadata.db'}"


def upgrade(url: str) -> None:
    """Bring the schema up to date; safe to repeat, and from several processes at once.

    Raises:
        DatabaseError: it cannot be reached or written, or a newer Medley has changed it.
    """
    import alembic.command  # a seventh of what a replica would import, and replicas never migrate
    import alembic.util
    from alembic.config import Config

    with Database(url) as database, database.alone(), database.connected() as connection:
        configuration = Config()
        configuration.set_main_option("script_location", str(_MIGRATIONS))
        configuration.attributes["connection"] = connection
        try:
            alembic.command.upgrade(configuration, "head")
        except alembic.util.CommandError as error:
            raise DatabaseError(
                f"{database.shown}: its schema is not known here ({error}); it was made by a newer Medley: upgrade"
            ) from error


class Database:
    """An engine whose failures are DatabaseErrors. Nothing is connected before the first use.

    Raises:
        DatabaseError: the URL is none, or its database is not supported.
    """

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
        except ArgumentError as error:
            raise DatabaseError(
                f"database URL {url!r}: {error}; expected postgresql+psycopg://... or sqlite:///..."
            ) from error
        kind = parsed.get_backend_name()
        if parsed.drivername not in ("sqlite", "postgresql+psycopg"):
            raise DatabaseError(
                f"database URL {parsed.render_as_string()!r}: {parsed.drivername!r} is not supported; "
                "use postgresql+psycopg://... or sqlite:///..."
            )
        self.shown = parsed.render_as_string(hide_password=True)
        arguments = {"connect_timeout": 10} if kind == "postgresql" else {"timeout": 30}
        self._engine: Engine = create_engine(parsed, connect_args=arguments, pool_pre_ping=True)
        self._file = Path(parsed.database or "") if kind == "sqlite" else None
        if kind == "sqlite":
            event.listen(self._engine, "connect", _prepare_sqlite)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: committed at the end, rolled back on an error.

        Raises:
            DatabaseError: the database cannot be reached, has no room, or refuses.
        """
        with self._translated(), Session(self._engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """A transaction on a bare connection, for the migrations."""
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time, from before it connects: of two that make a new file's WAL, SQLite lets one fail.

        PostgreSQL's lock is taken in migrations/env.py.
        """
        with self._translated():
            if self._file is None or not self._file.name:
                yield
                return
            with Path(f"{self._file}.migration").open("w") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX)
                yield

    def close(self) -> None:
        self._engine.dispose()

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            yield
        except (SQLAlchemyError, OSError) as error:
            reason = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
            raise DatabaseError(
                f"{self.shown}: {reason}; check that it runs, can be written and has room, "
                "or choose another by MEDLEY_DATABASE_URL"
            ) from error


def _prepare_sqlite(connection: Any, _record: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
