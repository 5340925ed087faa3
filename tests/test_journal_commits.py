"""What a journal acknowledges is there whatever comes, and a group is what its works are one by one."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RewardKind
from cluster.errors import JournalError
from cluster.journal.journal import (
    DecisionRecord,
    ItemRecord,
    Journal,
    Reader,
    Repeat,
    Work,
)
from cluster.sql import Sql
from tests.journal_cases import WAIT_S, Clock, decision, opened, outcomes, place, reward


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return place(request, tmp_path)


def test_many_writers_of_one_postgres_keep_one_order(postgres_url: str) -> None:
    clock = Clock()
    seen: list[int] = []
    with opened(postgres_url, clock) as one, opened(postgres_url, clock) as two:

        def write(journal: Journal, name: str) -> None:
            for n in range(40):
                journal.decide([decision(f"{name}{n}")]).result(WAIT_S)

        threads = [threading.Thread(target=write, args=(j, name)) for j, name in ((one, "a"), (two, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 11
        reader, after, deadline = Reader(postgres_url), 0, time.monotonic() + WAIT_S
        while len(seen) < 80 and time.monotonic() < deadline:
            rows = reader.outcomes(after, 7, "reward")
            seen += [row.seq for row in rows]
            after = rows[-1].seq if rows else after
    assert seen == list(range(1, 81))


KILLED = r"""
import os, sys
from cluster.config import RewardKind
from cluster.journal.journal import DecisionRecord, Journal, RewardRecord
journal = Journal(sys.argv[1], {"reward": RewardKind()})
n = 0
while True:
    name = f"d{n}"
    journal.decide([DecisionRecord(name, "c", None, None, 1, 1, 1, "{}", "{}", None)]).result()
    os.write(1, f"{name}\n".encode())
    journal.reward([RewardRecord("c", name, 0, "reward", 1.0, f"r{n}")]).result()
    os.write(1, f"r{n}\n".encode())
    n += 1
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    where = str(tmp_path / "journal.db")
    child = subprocess.Popen([sys.executable, "-c", KILLED, where], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(200)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    with sqlite3.connect(where) as connection:
        kept = {row[0] for row in connection.execute("SELECT decision_id FROM journal_decisions")}
        kept |= {row[0] for row in connection.execute("SELECT reward_id FROM journal_rewards")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert len(acknowledged) >= 200
    assert set(acknowledged) - {""} <= kept
    with Journal(where, {"reward": RewardKind()}) as journal:  # and it goes on
        assert journal.decide([decision("after")]).result(WAIT_S) == {}


def test_no_room_is_one_clear_error_and_passes(tmp_path: Path) -> None:
    where = tmp_path / "journal.db"
    with opened(where, Clock()) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        with sqlite3.connect(where) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.close()
        assert journal._store is not None
        journal._store.sql.one(f"PRAGMA max_page_count = {pages}")  # what a full disk answers: SQLITE_FULL
        big = DecisionRecord("b", "c", None, None, 1, 1, 1, "{}", "x" * 1_000_000, None)
        with pytest.raises(JournalError, match=r"journal.db.*full.*disk has space"):
            journal.decide([big]).result(WAIT_S)
        assert journal.failed is not None
        journal._store.sql.one("PRAGMA max_page_count = 1000000")
        journal.decide([big]).result(WAIT_S)
        assert journal.failed is None


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(JournalError, match="can be written"):
        opened(tmp_path / "file" / "journal.db", Clock())
    broken = tmp_path / "journal.db"
    broken.write_bytes(b"this is no database, and long enough to be read as one" * 100)
    with pytest.raises(JournalError, match="not a database"):
        opened(broken, Clock())


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(JournalError, match="database runs"):
        opened("postgresql+psycopg://nobody@127.0.0.1:9/none", Clock())


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    where = tmp_path / "journal.db"
    opened(where, Clock()).close()
    with sqlite3.connect(where) as connection:
        connection.execute("UPDATE journal_facts SET value = '99' WHERE name = 'format'")
    connection.close()
    with pytest.raises(JournalError, match=r"format 99.*upgrade"):
        opened(where, Clock())


def together(journal: Journal, works: list[Work]) -> list[Any]:
    """The results of works that are committed in one transaction."""
    done: Future[list[Any]] = Future()
    journal.submit(works, done.set_result)
    return done.result(WAIT_S)


def test_a_bad_record_hurts_only_itself(url: str) -> None:
    with opened(url, Clock()) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        works = [journal.deciding([decision(name)]) for name in ("b", "a", "c")]  # "a" breaks the unique decision_id
        first, second, third = together(journal, works)
        assert first == third == {}
        assert isinstance(second, JournalError)
        assert Reader(url).counts()["decisions"] == 3


def test_a_database_that_went_away_fails_a_group_at_once(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def unreachable(url: str) -> None:
        tried.append(url)
        raise JournalError("no way there")

    with Journal(postgres_url, {"reward": RewardKind()}, close_every_s=60.0) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        works = [journal.deciding([decision(f"b{n}")]) for n in range(20)]
        with monkeypatch.context() as patch:
            patch.setattr("cluster.journal.journal.Store", unreachable)
            other = Sql(postgres_url)
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            other.rows(f"{query} AND pid <> pg_backend_pid()")
            other.close()
            for most in (1, 2):
                assert all(isinstance(result, JournalError) for result in together(journal, works))
                assert len(tried) <= most
        assert tried
        assert journal.failed is not None
        assert together(journal, works) == [{}] * 20
        assert journal.failed is None
    assert Reader(postgres_url).counts()["decisions"] == 21


def test_a_group_is_what_its_works_are_one_by_one(url: str) -> None:
    """More records than one statement takes; every third is a repeat, some within the same group."""
    clock = Clock()
    with opened(url, clock) as journal:
        first = [decision(f"a{n}", request_id=f"q{n}") for n in range(0, 60, 3)]
        journal.decide(first).result(WAIT_S)
        decides = [[decision(f"d{n}", request_id=f"q{n % 120}"), decision(f"e{n}")] for n in range(150)]
        rewards = [[reward(f"e{n}", n / 1000, f"r{n % 120}"), reward(f"e{n}", slot=1)] for n in range(150)]
        works = [w for d, r in zip(decides, rewards, strict=True) for w in (journal.rewarding(r), journal.deciding(d))]
        found = together(journal, [*works, journal.changing([ItemRecord("c", "i", None)] * 2)])
        clock.now += 11
        rows = outcomes(url, 20 + 100 + 150)
        counts = Reader(url).counts()
    for n in range(150):
        stored = f"a{n}" if n < 60 and n % 3 == 0 else f"d{n - 120}" if n >= 120 else None
        if n >= 120 and (n - 120) % 3 == 0:
            stored = f"a{n - 120}"
        assert found[2 * n + 1] == ({} if stored is None else {0: Repeat(f'{{"id":"{stored}"}}', True)})
        assert found[2 * n] == ["accepted" if n < 120 else "duplicate", "no_slot"]
    assert found[-1] == 2
    assert counts["decisions"] == len(rows) == 20 + 100 + 150
    assert (counts["repeated_requests"], counts["rewards_duplicate"], counts["rewards_no_slot"]) == (50, 30, 150)
    rewarded = {row.decision_id: row.reward for row in rows if row.events}
    assert rewarded == {f"e{n}": n / 1000 for n in range(120)}


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db", Clock())
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.decide([decision("a")])
