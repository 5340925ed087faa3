"""What a journal's writer does, the same on SQLite and on PostgreSQL, in few statements for many records.

Nothing about the journal is kept in memory between transactions: sequence numbers, the clock's last value and how far
windows are closed are read inside the transaction that uses them. So a second writer, or one that comes back after
`kill -9`, needs no recovery.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from cluster.config import RewardKind
from cluster.journal.queries import LOCK, Connection
from cluster.journal.records import Agreement, DecisionRecord, ItemRecord, Repeat, RewardRecord, RewardStatus


class Store(Connection):
    """A connection that writes. Methods run between `begin` and `commit`."""

    def __init__(self, url: str) -> None:
        """Raises JournalError as `Connection` does."""
        super().__init__(url)
        self._last: dict[str, int] = {}
        self._counted: Counter[str] = Counter()
        self._agreed: dict[str, Agreement] = {}

    def begin(self, clock: float) -> float:
        """Begin to write; returns the server's time.

        It never runs backwards, so that windows close in the order of decisions.
        """
        self.sql.begin(LOCK)
        self._counted.clear()
        self._agreed.clear()
        newest = self.sql.rows("SELECT seq, at FROM journal_decisions ORDER BY seq DESC LIMIT 1")
        seq, at = newest[0] if newest else (0, 0.0)
        self._last = {"journal_decisions": seq}
        return float(max(clock, at))

    def commit(self) -> None:
        self.sql.insert(
            "journal_counters",
            [(name, number) for name, number in self._counted.items() if number],
            "ON CONFLICT (name) DO UPDATE SET value = journal_counters.value + excluded.value",
        )
        self.sql.insert(
            "journal_agreements",
            [(client, *astuple(agreement)) for client, agreement in self._agreed.items()],
            "ON CONFLICT (client) DO UPDATE SET compared = journal_agreements.compared + excluded.compared, "
            "agreed = journal_agreements.agreed + excluded.agreed, "
            "propensity = journal_agreements.propensity + excluded.propensity",
        )
        self.sql.commit()

    def rollback(self) -> None:
        self.sql.rollback()

    def decide(self, records: Sequence[DecisionRecord], now: float) -> dict[int, Repeat]:
        """Insert; what comes back are the positions whose request_id was there already."""
        first = self._numbers("journal_decisions", len(records))
        rows = [
            (
                seq, r.decision_id, r.client, r.user, r.request_id, r.version, r.epoch, r.slots, now,
                r.request, r.answer, r.evidence, r.mode, r.shadow,
            )
            for seq, r in enumerate(records, first)
        ]  # fmt: skip
        unique = "ON CONFLICT (client, request_id) WHERE request_id IS NOT NULL DO NOTHING"
        inserted = self.sql.insert("journal_decisions", rows, unique)
        left_out = [] if inserted == len(rows) else self._left_out("journal_decisions", first, len(rows))
        repeats = {i: self._repeat(records[i]) for i in left_out}
        self._counted["decisions"] += inserted
        self._counted["repeated_requests"] += len(repeats)
        for i, record in enumerate(records):
            if record.agreement is not None and i not in repeats:
                self._agreed[record.client] = _sum(self._agreed.get(record.client), record.agreement)
        return repeats

    def _repeat(self, record: DecisionRecord) -> Repeat:
        assert record.request_id is not None
        stored = self.answer(record.client, record.request_id, record.request)
        assert stored is not None
        return stored

    def reward(
        self, records: Sequence[RewardRecord], now: float, kinds: Mapping[str, RewardKind]
    ) -> list[RewardStatus]:
        """Insert what may count or is merely late; a reward_id that was there changes nothing."""
        ids = list({r.decision_id for r in records})
        found = self.sql.among("SELECT decision_id, seq, at, slots FROM journal_decisions WHERE decision_id", ids)
        known = {row[0]: row[1:] for row in found}
        closed = dict(self.sql.rows("SELECT kind, decision FROM journal_closed"))
        statuses = [_status(r, known.get(r.decision_id), closed, now, kinds) for r in records]
        kept = [i for i, status in enumerate(statuses) if status != "no_slot"]
        first = self._numbers("journal_rewards", len(kept))
        rows = [
            (
                seq, r.client, r.reward_id, r.decision_id, r.slot, r.kind, r.value, r.at, now,
                int(statuses[i] == "late"),
            )
            for seq, i in enumerate(kept, first)
            for r in (records[i],)
        ]  # fmt: skip
        inserted = self.sql.insert("journal_rewards", rows, "ON CONFLICT (client, reward_id) DO NOTHING")
        if inserted < len(rows):
            for place in self._left_out("journal_rewards", first, len(rows)):
                statuses[kept[place]] = "duplicate"
        self._counted.update(f"rewards_{status}" for status in statuses)
        return statuses

    def items(self, records: Sequence[ItemRecord], now: float) -> int:
        """Append changes; returns the last revision."""
        first = self._numbers("journal_items", len(records), "revision")
        rows = [(revision, r.client, r.item_id, r.body, now) for revision, r in enumerate(records, first)]
        self.sql.insert("journal_items", rows)
        return first + len(records) - 1

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
        finals = [(seq, slot, rewards.get((seq, slot), [])) for seq, slots in due for slot in range(slots)]
        first = self._numbers("journal_outcomes", len(finals))
        rows = [
            (number, decision, slot, name, reduce(kind, values), len(values), now)
            for number, (decision, slot, values) in enumerate(finals, first)
        ]
        self.sql.insert("journal_outcomes", rows)
        self.sql.run("UPDATE journal_closed SET decision = ? WHERE kind = ?", (due[-1][0], name))
        self._counted["outcomes"] += len(rows)
        return len(rows)

    def _closed(self, name: str, kind: RewardKind, now: float) -> int:
        """The last decision whose window is closed."""
        after = self.sql.one("SELECT decision FROM journal_closed WHERE kind = ?", (name,))
        if after is None:
            query = "SELECT max(seq) FROM journal_decisions WHERE at <= ?"
            after = self.sql.one(query, (now - kind.window_s,)) or 0
            self.sql.insert("journal_closed", [(name, after)])
        return int(after)

    def _numbers(self, table: str, count: int, key: str = "seq") -> int:
        """The first of `count` sequence numbers that follow on the table's last."""
        if table not in self._last:
            self._last[table] = int(self.sql.one(f"SELECT max({key}) FROM {table}") or 0)
        first = self._last[table] + 1
        self._last[table] += count
        return first

    def _left_out(self, table: str, first: int, count: int) -> list[int]:
        """Which of the rows just numbered from `first` on were there already, under another number."""
        there = {row[0] for row in self.sql.rows(f"SELECT seq FROM {table} WHERE seq >= ?", (first,))}
        return [i for i in range(count) if first + i not in there]


def _sum(one: Agreement | None, other: Agreement) -> Agreement:
    if one is None:
        return other
    return Agreement(one.compared + other.compared, one.agreed + other.agreed, one.propensity + other.propensity)


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
