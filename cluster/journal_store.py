"""The journal's tables and statements, the same on SQLite and on PostgreSQL.

Nothing about the journal is kept in memory: sequence numbers, the clock's last value and how far windows are
closed are read inside the transaction that uses them. So a second writer, or one that comes back after
`kill -9`, needs no recovery.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from cluster import journal_schema
from cluster.config import RewardKind
from cluster.errors import JournalError
from cluster.journal_records import (
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
from cluster.journal_schema import FORMAT
from cluster.sql import FAILURES, Sql

_LOCK = 0x6D65646C6579  # "medley": PostgreSQL's advisory lock of the journal's one order


class Store:
    """One connection. Methods run inside `begin` and `commit`, except the readers."""

    def __init__(self, url: str, make: bool = True) -> None:
        """Connect, and make the tables where they are not.

        Args:
            url: path of a SQLite file, or `postgresql://...` (`postgresql+psycopg://...` too).
            make: whether to make what is missing; a reader does not, so that it never waits for a writer.

        Raises:
            JournalError: the file or the server cannot be used, or the tables are of a newer format.
        """
        self._where = url if not url.startswith("postgresql") else "the journal's PostgreSQL database"
        if not (make or url.startswith("postgresql") or Path(url).exists()):
            raise JournalError(f"{url}: nothing has been logged here yet; `medley serve` begins a journal")
        try:
            self.sql = Sql(url)
            if make:
                self.begin()
                journal_schema.make(self.sql)
                self.commit()
            self._check_format()
        except FAILURES as error:
            raise self.failure(error) from error

    def _check_format(self) -> None:
        found = int(self.fact("format"))
        if found != FORMAT:
            remedy = (
                "upgrade Medley, or set another MEDLEY_HOME"
                if found > FORMAT
                else "`medley serve` brings it up to date"
            )
            raise JournalError(
                f"{self._where}: the journal has format {found}, this version of Medley reads {FORMAT}: {remedy}"
            )

    def failure(self, error: BaseException) -> JournalError:
        return JournalError(
            f"{self._where}: the journal cannot be read or written: {str(error).strip()}; check that the "
            "disk has space, that the place can be written and that the database runs"
        )

    def fact(self, name: str) -> str:
        return journal_schema.fact(self.sql, name)

    def begin(self) -> None:
        self.sql.begin(_LOCK)

    def commit(self) -> None:
        self.sql.commit()

    def rollback(self) -> None:
        self.sql.rollback()

    def close(self) -> None:
        self.sql.close()

    def now(self, clock: float) -> float:
        """Server time that never runs backwards, so that windows close in the order of decisions."""
        last = self.sql.one("SELECT at FROM journal_decisions ORDER BY seq DESC LIMIT 1")
        return max(clock, last or 0.0)

    def decide(self, records: Sequence[DecisionRecord], now: float) -> dict[int, Repeat]:
        """Insert; what comes back are the positions whose request_id was there already."""
        seq = self._next("journal_decisions")
        rows = [
            (
                seq + i, r.decision_id, r.client, r.user, r.request_id, r.version, r.epoch, r.slots, now,
                r.request, r.answer, r.evidence, r.mode, r.shadow,
            )
            for i, r in enumerate(records)
        ]  # fmt: skip
        done = self.sql.many(
            "INSERT INTO journal_decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (client, request_id) WHERE request_id IS NOT NULL DO NOTHING",
            rows,
        )
        repeats = {i: self._repeat(records[i]) for i, inserted in enumerate(done) if not inserted}
        self.count(decisions=len(records) - len(repeats), repeated_requests=len(repeats))
        self._agree([r for i, r in enumerate(records) if i not in repeats])
        return repeats

    def _repeat(self, record: DecisionRecord) -> Repeat:
        assert record.request_id is not None
        stored = self.answer(record.client, record.request_id, record.request)
        assert stored is not None
        return stored

    def _agree(self, records: Sequence[DecisionRecord]) -> None:
        self.sql.many(
            "INSERT INTO journal_agreements VALUES (?, ?, ?, ?) ON CONFLICT (client) DO UPDATE SET "
            "compared = journal_agreements.compared + excluded.compared, "
            "agreed = journal_agreements.agreed + excluded.agreed, "
            "propensity = journal_agreements.propensity + excluded.propensity",
            [(r.client, *astuple(r.agreement)) for r in records if r.agreement is not None],
        )

    def reward(
        self, records: Sequence[RewardRecord], now: float, kinds: Mapping[str, RewardKind]
    ) -> list[RewardStatus]:
        """Insert what may count or is merely late; a reward_id that was there changes nothing."""
        ids = sorted({r.decision_id for r in records})
        marks = ", ".join("?" * len(ids))
        query = f"SELECT decision_id, seq, at, slots FROM journal_decisions WHERE decision_id IN ({marks})"
        known = {row[0]: row[1:] for row in self.sql.rows(query, ids)}
        closed = dict(self.sql.rows("SELECT kind, decision FROM journal_closed"))
        statuses = [_status(r, known.get(r.decision_id), closed, now, kinds) for r in records]
        seq = self._next("journal_rewards")
        stored = [(i, r) for i, r in enumerate(records) if statuses[i] != "no_slot"]
        done = self.sql.many(
            "INSERT INTO journal_rewards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (client, reward_id) DO NOTHING",
            [
                (
                    seq + i, r.client, r.reward_id, r.decision_id, r.slot, r.kind, r.value, r.at, now,
                    int(statuses[i] == "late"),
                )
                for i, r in stored
            ],
        )  # fmt: skip
        for (i, _), inserted in zip(stored, done, strict=True):
            statuses[i] = statuses[i] if inserted else "duplicate"
        self.count(**{f"rewards_{s}": statuses.count(s) for s in set(statuses)})
        return statuses

    def items(self, records: Sequence[ItemRecord], now: float) -> int:
        """Append changes; returns the last revision."""
        revision = self._next("journal_items")
        rows = [(revision + i, r.client, r.item_id, r.body, now) for i, r in enumerate(records)]
        self.sql.many("INSERT INTO journal_items VALUES (?, ?, ?, ?, ?)", rows)
        return revision + len(records) - 1

    def begin_kinds(self, now: float, kinds: Mapping[str, RewardKind]) -> None:
        """See that each kind's windows are counted; a new kind begins with decisions whose window is open."""
        for name, kind in kinds.items():
            self._closed(name, kind, now)

    def close_windows(self, now: float, kinds: Mapping[str, RewardKind], limit: int) -> int:
        """Append the outcomes of decisions whose window has closed; returns how many were added."""
        return sum(self._close(name, kind, now, limit) for name, kind in kinds.items())

    def _close(self, name: str, kind: RewardKind, now: float, limit: int) -> int:
        after = self._closed(name, kind, now)
        query = "SELECT seq, slots FROM journal_decisions WHERE seq > ? AND at <= ? ORDER BY seq LIMIT ?"
        due = self.sql.rows(query, (after, now - kind.window_s, limit))
        if not due:
            return 0
        rewards: dict[tuple[int, int], list[float]] = {}
        joined = (
            "SELECT d.seq, r.slot, r.value FROM journal_decisions d "
            "JOIN journal_rewards r ON r.decision_id = d.decision_id "
            "WHERE d.seq > ? AND d.seq <= ? AND r.kind = ? AND r.late = 0 ORDER BY r.seq"
        )
        for decision, slot, value in self.sql.rows(joined, (after, due[-1][0], name)):
            rewards.setdefault((decision, slot), []).append(value)
        seq = self._next("journal_outcomes")
        rows: list[tuple[object, ...]] = []
        for decision, slots in due:
            for slot in range(slots):
                values = rewards.get((decision, slot), [])
                reward = reduce(kind, values)
                rows.append((seq + len(rows), decision, slot, name, reward, len(values), now))
        self.sql.many("INSERT INTO journal_outcomes VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self.sql.many("UPDATE journal_closed SET decision = ? WHERE kind = ?", [(due[-1][0], name)])
        self.count(outcomes=len(rows))
        return len(rows)

    def _closed(self, name: str, kind: RewardKind, now: float) -> int:
        """The last decision whose window is closed."""
        after = self.sql.one("SELECT decision FROM journal_closed WHERE kind = ?", (name,))
        if after is None:
            query = "SELECT max(seq) FROM journal_decisions WHERE at <= ?"
            after = self.sql.one(query, (now - kind.window_s,)) or 0
            self.sql.many("INSERT INTO journal_closed (kind, decision) VALUES (?, ?)", [(name, after)])
        return int(after)

    def count(self, **added: int) -> None:
        self.sql.many(
            "INSERT INTO journal_counters (name, value) VALUES (?, ?) ON CONFLICT (name) "
            "DO UPDATE SET value = journal_counters.value + excluded.value",
            [(name, number) for name, number in added.items() if number],
        )

    def counts(self) -> dict[str, int]:
        return dict(self.sql.rows("SELECT name, value FROM journal_counters"))

    def outcomes(self, after: int, limit: int, kind: str) -> list[OutcomeRow]:
        """Outcomes of one kind with seq > after, in order."""
        query = (
            "SELECT o.seq, d.decision_id, d.client, d.user_key, d.version, d.epoch, o.slot, o.kind, o.reward, "
            "o.events, d.request, d.evidence, d.mode FROM journal_outcomes o JOIN journal_decisions d "
            "ON d.seq = o.decision WHERE o.seq > ? AND o.kind = ? ORDER BY o.seq LIMIT ?"
        )
        return [OutcomeRow(*row) for row in self.sql.rows(query, (after, kind, limit))]

    def finals(self, after: int, through: int, limit: int) -> list[Final]:
        """Outcomes of all kinds with after < seq <= through and their decisions, in order."""
        query = (
            "SELECT o.seq, d.decision_id, d.client, d.at, d.mode, o.slot, o.kind, o.reward, o.events, "
            "d.request, d.answer, d.evidence FROM journal_outcomes o JOIN journal_decisions d "
            "ON d.seq = o.decision WHERE o.seq > ? AND o.seq <= ? ORDER BY o.seq LIMIT ?"
        )
        return [Final(*row) for row in self.sql.rows(query, (after, through, limit))]

    def last_outcome(self) -> int:
        """The greatest seq of an outcome, 0 where there is none."""
        return self._next("journal_outcomes") - 1

    def decision(self, decision_id: str) -> DecisionRecord | None:
        """A decision as it was kept, None where there is none of this id."""
        query = (
            "SELECT decision_id, client, user_key, request_id, version, epoch, slots, request, answer, evidence, "
            "mode, shadow FROM journal_decisions WHERE decision_id = ?"
        )
        rows = self.sql.rows(query, (decision_id,))
        return DecisionRecord(*rows[0]) if rows else None

    def answer(self, client: str, request_id: str, request: str) -> Repeat | None:
        """The stored answer to a request_id, and whether its request was `request`; None where it is new."""
        query = "SELECT request, answer FROM journal_decisions WHERE client = ? AND request_id = ?"
        rows = self.sql.rows(query, (client, request_id))
        return Repeat(rows[0][1], json.loads(rows[0][0]) == json.loads(request)) if rows else None

    def shown(self, client: str, user: str, since_s: float, after_seq: int) -> list[Shown]:
        """What a user was shown at or after `since_s` (server time) by decisions with seq > after_seq, in order."""
        query = (
            "SELECT seq, at, answer FROM journal_decisions "
            "WHERE client = ? AND user_key = ? AND seq > ? AND at >= ? ORDER BY seq"
        )
        rows = self.sql.rows(query, (client, user, after_seq, since_s))
        return [Shown(seq, at, tuple(s["item_id"] for s in from_json(answer)["slots"])) for seq, at, answer in rows]

    def agreements(self) -> dict[str, Agreement]:
        """By client, over all decisions that an engine made beside a baseline."""
        rows = self.sql.rows("SELECT client, compared, agreed, propensity FROM journal_agreements ORDER BY client")
        return {row[0]: Agreement(*row[1:]) for row in rows}

    def changes(self, after: int) -> list[tuple[int, ItemRecord]]:
        """Catalogue changes with revision > after, in order."""
        query = "SELECT revision, client, item_id, body FROM journal_items WHERE revision > ? ORDER BY revision"
        return [(row[0], ItemRecord(*row[1:])) for row in self.sql.rows(query, (after,))]

    def _next(self, table: str) -> int:
        key = "revision" if table == "journal_items" else "seq"
        return int(self.sql.one(f"SELECT max({key}) FROM {table}") or 0) + 1


def reduce(kind: RewardKind, values: Sequence[float]) -> float:
    """The reward of a slot from its rewards in the order of their arrival.

    A sum may leave the kind's range; it is clipped, because models rely on the range.
    """
    if not values:
        return kind.default
    if kind.reducer == "mean":
        return sum(values) / len(values)
    if kind.reducer == "sum":
        return min(max(sum(values), kind.low), kind.high)
    if kind.reducer in ("min", "max"):
        return min(values) if kind.reducer == "min" else max(values)
    return values[0] if kind.reducer == "first" else values[-1]


def _status(
    record: RewardRecord,
    decision: tuple[Any, ...] | None,
    closed: Mapping[str, int],
    now: float,
    kinds: Mapping[str, RewardKind],
) -> RewardStatus:
    if decision is None:
        return "parked"
    seq, at, slots = decision
    if record.slot >= slots:
        return "no_slot"
    if seq <= closed.get(record.kind, 0) or now > at + kinds[record.kind].window_s:
        return "late"
    return "accepted"
