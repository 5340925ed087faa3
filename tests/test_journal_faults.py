"""What `kill -9` and a torn log may not do: lose an acknowledged event, or count one twice."""

import contextlib
import os
import random
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cluster.config import RewardKind
from cluster.journal.journal import DecisionRecord, Journal, journal_url
from tests.journal_faults import Harness, rows, settings_of

WAIT_S = 20.0


TAMPERED = {
    "UPDATE journal_outcomes SET reward = reward + 1 WHERE seq = 7": "UPDATE journal_outcomes SET reward = reward - 1 "
    "WHERE seq = 7",
    "UPDATE journal_rewards SET reward_id = 'x' || reward_id": "UPDATE journal_rewards SET reward_id = "
    "substr(reward_id, 2)",
    "UPDATE journal_decisions SET user_key = user_key || 'x' WHERE seq = 1": "UPDATE journal_decisions SET user_key = "
    "substr(user_key, 1, 2) WHERE seq = 1",
}
"""What the check must notice: an outcome that is not the sum of its rewards, rewards that are gone, and a learner that
learned something else. With how each is put right again."""


def run(harness: Harness, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(journal_url(harness.settings))) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.slow
@pytest.mark.kills
def test_a_hundred_kills_lose_nothing_and_count_nothing_twice(tmp_path: Path) -> None:
    harness = Harness(settings_of(tmp_path), seed=1)
    killed = harness.run(100)
    harness.check(killed)
    assert killed.writers > 50
    assert killed.learners > 50
    assert len(killed.client.decided) > 1_000
    statuses = [status for _, status in killed.client.rewarded.values()]
    assert set(statuses) >= {"accepted", "parked", "duplicate", "late"}  # every way was taken
    for harm, cure in TAMPERED.items():
        run(harness, harm)
        with pytest.raises(AssertionError):
            harness.check(killed)
        run(harness, cure)


@pytest.mark.kills
def test_kills_on_postgres(tmp_path: Path, postgres_url: str) -> None:
    harness = Harness(settings_of(tmp_path, postgres_url), seed=2)
    killed = harness.run(12)
    harness.check(killed)
    assert killed.writers > 0  # neither with a chance of 1 - 3⁻¹²
    assert killed.learners > 0


@dataclass(frozen=True)
class Log:
    """A journal's file and its log with ten acknowledged decisions and an eleventh, which begins at `acknowledged`."""

    file: bytes
    wal: bytes
    acknowledged: int


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Log:
    folder = tmp_path_factory.mktemp("torn")
    path, wal = folder / "journal.db", folder / "journal.db-wal"
    with Journal(str(path), {"reward": RewardKind()}) as journal:
        journal.decide([decision(n) for n in range(9)]).result(WAIT_S)
    with Journal(str(path), {"reward": RewardKind()}, close_every_s=60.0) as journal:  # with a log of its own
        journal.decide([decision(9)]).result(WAIT_S)
        acknowledged = wal.stat().st_size
        journal.decide([replace(decision(10), user=None, request_id=None)]).result(WAIT_S)
        return Log(path.read_bytes(), wal.read_bytes(), acknowledged)


def decision(n: int) -> DecisionRecord:
    return DecisionRecord(f"d{n}", "c", "u", f"q{n}", 1, 1, 1, "{}", "{}", b"evidence")


def found(path: Path) -> list[str]:
    """The decisions of a journal as a reader finds it, who leaves file and log as they are."""
    path.with_name("journal.db-shm").unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return [name for (name,) in connection.execute("SELECT decision_id FROM journal_decisions ORDER BY seq")]


def laid(folder: Path, log: Log) -> tuple[Path, Path]:
    path, wal = folder / "journal.db", folder / "journal.db-wal"
    path.write_bytes(log.file)
    wal.write_bytes(log.wal)
    assert found(path) == [*TEN, "d10"]
    return path, wal


TEN = [f"d{n}" for n in range(10)]


def test_a_log_cut_at_any_byte_keeps_what_was_acknowledged(tmp_path: Path, log: Log) -> None:
    path, wal = laid(tmp_path, log)
    for length in reversed(range(log.acknowledged, len(log.wal))):
        os.truncate(wal, length)
        assert found(path) == TEN, length


def test_garbage_at_any_byte_of_the_last_record_costs_that_record_alone(tmp_path: Path, log: Log) -> None:
    path, wal = laid(tmp_path, log)
    chance = random.Random(0)
    with wal.open("r+b", buffering=0) as file:
        for place in range(log.acknowledged, len(log.wal)):
            os.pwrite(file.fileno(), bytes([log.wal[place] ^ chance.randrange(1, 256)]), place)
            assert found(path) == TEN, place
            os.pwrite(file.fileno(), log.wal[place : place + 1], place)
    assert found(path) == [*TEN, "d10"]


@pytest.mark.parametrize("tail", ["cut", "noise"])
def test_a_journal_with_a_torn_log_goes_on(tmp_path: Path, log: Log, tail: str) -> None:
    chance = random.Random(0)
    for n in range(12):
        folder = tmp_path / str(n)
        folder.mkdir()
        path, wal = laid(folder, log)
        kept = chance.randrange(log.acknowledged, len(log.wal))
        end = chance.randbytes(len(log.wal) - kept) if tail == "noise" else b""
        wal.write_bytes(log.wal[:kept] + end)
        with Journal(str(path), {"reward": RewardKind()}) as journal:
            assert journal.decide([decision(3)]).result(WAIT_S)[0].same
            assert journal.decide([decision(11)]).result(WAIT_S) == {}
        names = rows(str(path), "SELECT decision_id FROM journal_decisions ORDER BY seq")
        assert names == [(name,) for name in [*TEN, "d11"]]
        assert rows(str(path), "PRAGMA integrity_check") == [("ok",)]
        assert rows(str(path), "SELECT value FROM journal_counters WHERE name = 'decisions'") == [(11,)]
