"""The benchmark of the journal: both sides write the same rows, and count what they acknowledged."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

from benchmarks.journal import grouped, one_by_one

SECONDS = 0.2


def kept(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What two journals may have in common: rows without their number and time."""
    queries = {
        "decisions": "SELECT decision_id, client, user_key, request_id, version, epoch, slots, request, answer, "
        "evidence, mode, shadow FROM journal_decisions ORDER BY decision_id",
        "rewards": "SELECT client, reward_id, decision_id, slot, kind, value, at, late FROM journal_rewards "
        "ORDER BY reward_id",
    }
    connection = sqlite3.connect(path)
    found = {name: connection.execute(query).fetchall() for name, query in queries.items()}
    connection.close()
    return found


def test_both_sides_write_the_same_rows(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.db", tmp_path / "theirs.db"
    rates = asyncio.run(grouped(ours, SECONDS)), one_by_one(theirs, SECONDS)
    mine, other = kept(ours), kept(theirs)
    for table in ("decisions", "rewards"):
        names = {row[1 if table == "rewards" else 0] for row in other[table]}
        common = {row for row in mine[table] if row[1 if table == "rewards" else 0] in names}
        assert len(common) >= 64
        assert common <= set(other[table])
    for rate, rows in zip(rates, (mine, other), strict=True):
        assert 0 < rate * SECONDS <= len(rows["decisions"]) + len(rows["rewards"])
