import multiprocessing
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from cluster.config import Settings
from cluster.database import Database, upgrade, url_of
from cluster.errors import DatabaseError
from cluster.tables import Base, Client, Rollout, Version


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path / 'home' / 'metadata.db'}"


def test_the_migrations_make_exactly_the_tables_of_the_code(url: str) -> None:
    upgrade(url)
    upgrade(url)
    with Database(url) as database, database.connected() as connection:
        names = set(inspect(connection).get_table_names())
        assert names >= {"clients", "keys", "providers", "clusters", "profiles", "versions", "rollouts"}
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_rows_come_back_with_their_time_zone(url: str) -> None:
    upgrade(url)
    with Database(url) as database:
        with database.session() as session:
            session.add(Client(id="shop"))
            session.add(Version(name="shop", number=1, facts={"parents": [], "reward": 0.25}))
        with database.session() as session:
            version = session.query(Version).one()
            session.add(Rollout(client_id="shop", version_id=version.id, state="draft", facts={}))
        with database.session() as session:
            rollout = session.query(Rollout).one()
            assert abs((datetime.now(UTC) - rollout.changed_at).total_seconds()) < 60
            assert session.query(Version).one().facts == {"parents": [], "reward": 0.25}


def test_a_failed_transaction_leaves_nothing(url: str) -> None:
    upgrade(url)

    def add(database: Database) -> None:
        with database.session() as session:
            session.add(Client(id="shop"))
            session.add(Rollout(client_id="nobody", version_id=9, state="draft", facts={}))

    with Database(url) as database:
        with pytest.raises(DatabaseError):
            add(database)
        with database.session() as session:
            assert session.query(Client).count() == 0


@pytest.mark.parametrize("backend", ["sqlite", "postgres"])
def test_processes_that_upgrade_at_once_all_succeed(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}" if backend == "sqlite" else request.getfixturevalue("postgres_url")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=upgrade, args=(url,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0


def test_sqlite_is_durable_and_shared(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(url)
    with Database(url) as database, database.connected() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_the_url_is_under_home_unless_it_is_given(tmp_path: Path) -> None:
    assert url_of(Settings(home=tmp_path)) == f"sqlite:///{tmp_path}/metadata.db"
    assert url_of(Settings(database_url="postgresql+psycopg://db/m")) == "postgresql+psycopg://db/m"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+psycopg://medley:secret@127.0.0.1:1/none", "connection"),
        ("mysql://db/m", "not supported"),
        ("postgresql://db/m", "not supported"),
        ("nonsense", "expected postgresql"),
        ("sqlite:////proc/nowhere/m.db", "check that it runs, can be written"),
    ],
)
def test_an_unusable_database_is_one_clear_error(url: str, message: str) -> None:
    with pytest.raises(DatabaseError, match=message) as caught:
        upgrade(url)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_and_one_from_the_future_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("hello, this is no database at all" * 50)
    with pytest.raises(DatabaseError, match="not a database"):
        upgrade(f"sqlite:///{tmp_path / 'text.db'}")
    url = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(url)
    with sqlite3.connect(tmp_path / "m.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(DatabaseError, match="newer Medley"):
        upgrade(url)


def test_a_full_disk_is_a_database_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'm.db'}"
    upgrade(url)

    def fill(database: Database) -> None:
        with database.session() as session:
            pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar()
            session.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            session.add_all(Client(id=f"{i}" * 20) for i in range(2000))

    with Database(url) as database, pytest.raises(DatabaseError, match="full"):
        fill(database)
