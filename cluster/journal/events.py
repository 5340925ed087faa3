"""Final outcomes as events: what was decided, for whom, among what, how probably, and what it earned.

One row for each outcome: a slot of a decision and a reward kind. Columns are those of EVENTS and

- mode: what answered (`DecisionRecord.mode`); the propensity is null unless the engine did, because a baseline's
  choice says nothing of what other items would have earned;
- excluded: where candidates are null, the items of the client's catalogue that this slot could not take; null too
  where what was eligible is not known (the journal does not name the items that a rule of `where` left out), and then
  the propensity is null as well;
- catalogue: number of the client's last catalogue change that the decision knew;
- rewards: how many were reduced to the reward, 0 means the kind's default;
- outcome: number of the outcome in the journal.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from cluster.errors import ConfigError
from cluster.journal.journal import Final, Reader
from cluster.records import EVENTS, encode

FINALS = pa.schema(
    [
        *EVENTS,
        pa.field("mode", pa.string(), nullable=False),
        pa.field("excluded", pa.list_(pa.string())),
        pa.field("catalogue", pa.int64()),
        pa.field("rewards", pa.int32(), nullable=False),
        pa.field("outcome", pa.int64(), nullable=False),
    ]
)
_EVIDENCE = struct.Struct("<4sqIII")
"""How evidence begins (serve.decisions.evidence): "MEV1", the catalogue's revision, slots, features, members.
Then 3 numbers, features and members of each slot as float64, and JSON, which may name what the user had seen."""
BLOCK = 10_000
"""Outcomes in memory at a time."""


@dataclass(frozen=True)
class Choice:
    """Which outcomes: of this client, decided at or after `since` and before `until` (UTC); None is no bound."""

    client: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def parse(cls, client: str | None, since: str | None, until: str | None) -> "Choice":
        """From command-line words. Raises ConfigError."""
        return cls(client, _moment(since) if since else None, _moment(until) if until else None)

    def of(self, table: pa.Table) -> pa.Table:
        """The rows of a table of events that are meant."""
        if self.client is not None:
            table = table.filter(pc.equal(table["client_id"], self.client))
        if self.since is not None:
            table = table.filter(pc.greater_equal(table["timestamp"], pa.scalar(self.since)))
        if self.until is not None:
            table = table.filter(pc.less(table["timestamp"], pa.scalar(self.until)))
        return table

    def facts(self) -> dict[str, str | None]:
        bounds = {name: getattr(self, name) for name in ("since", "until")}
        return {"client": self.client} | {name: at and at.isoformat() for name, at in bounds.items()}


def blocks(reader: Reader, after: int, last: int, size: int = BLOCK) -> Iterator[tuple[int, pa.Table]]:
    """(last outcome, FINALS) of outcomes after < seq <= last, block by block."""
    while rows := reader.finals(after, last, size):
        after = rows[-1].seq
        yield after, events(rows)


def events(rows: Sequence[Final]) -> pa.Table:
    """FINALS of outcomes, in their order."""
    parsed: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    out = []
    for row in rows:
        if row.decision_id not in parsed:
            parsed[row.decision_id] = from_json(row.request), from_json(row.answer)
        out.append(_event(row, *parsed[row.decision_id]))
    return pa.Table.from_pylist(out, FINALS)


def _event(row: Final, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    chosen = [slot["item_id"] for slot in answer["slots"]]
    revision, seen = _evidence(row.evidence)
    listed = request.get("items")
    known = "where" not in request and ("unseen_s" not in request or (row.mode == "live" and revision is not None))
    out = [*request.get("exclude", ()), *seen, *chosen[: row.slot]]
    return {
        "event_id": f"{row.decision_id}/{row.slot}",
        "timestamp": datetime.fromtimestamp(row.at, UTC),
        "client_id": row.client,
        "user_id": request.get("user_id"),
        "session_id": request.get("session_id"),
        "context": encode(request.get("context", {})),
        "candidates": [item for item in listed if item not in set(out)] if listed is not None and known else None,
        "item_id": chosen[row.slot],
        "position": row.slot,
        "propensity": answer["slots"][row.slot]["propensity"] if row.mode == "live" and known else None,
        "reward": row.reward,
        "reward_kind": row.kind,
        "version": answer["version"],
        "mode": row.mode,
        "excluded": out if listed is None and known else None,
        "catalogue": revision,
        "rewards": row.events,
        "outcome": row.seq,
    }


def _evidence(evidence: bytes | None) -> tuple[int | None, list[str]]:
    """The catalogue that the decision knew, and the items that it left out because the user had seen them."""
    if evidence is None or not evidence.startswith(b"MEV1"):
        return None, []
    _, revision, slots, features, members = _EVIDENCE.unpack_from(evidence)
    names = from_json(evidence[_EVIDENCE.size + 8 * slots * (3 + features + members) :])
    return revision, names.get("seen", []) if isinstance(names, dict) else []


def _moment(text: str) -> datetime:
    """A day or a moment in ISO 8601, UTC unless it says otherwise. Raises ConfigError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no day or moment; expected 2026-01-31 or 2026-01-31T10:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
