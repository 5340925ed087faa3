"""What a learner had published at an epoch, made again from the journal.

The ledger says after which outcome a publication was made, for those within the longest wait window. Of older ones it
keeps the last of each hour; between two that are kept, every state that may have been published is made in turn, and
the caller sees which it was: the state that gives the answer that was logged.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import StateError
from cluster.journal.journal import DecisionRecord, OutcomeRow, Reader
from serve.decisions.current import Update
from serve.learner import Learner
from serve.learning.ledger import Ledger, read_publications
from serve.learning.service import ledger_url

MOST = 5_000
"""Outcomes that are tried one after the other."""


@dataclass
class Past:
    """A client's outcomes up to `seq`, as its learner read them."""

    reader: Reader
    client: str
    seq: int

    def outcomes(self, after: int, limit: int, kind: str) -> list[OutcomeRow]:
        while after < self.seq and (rows := self.reader.outcomes(after, limit, kind)):
            if found := [row for row in rows if row.seq <= self.seq and row.client == self.client]:
                return found
            after = rows[-1].seq
        return []


@dataclass(frozen=True)
class Rebuilt:
    """A state, after `outcomes` outcomes of the version, the last with number `seq` in the journal."""

    seq: int
    outcomes: int
    updates: list[Update]


def rebuilt(
    settings: Settings, reader: Reader, version: Callable[[int], Version], record: DecisionRecord
) -> Iterator[Rebuilt]:
    """The state at a decision's epoch; where its publication was pruned, those that it may have been, in order.

    Raises:
        StateError: the ledger knows no publication of that epoch or after it, or there are too many states.
    """
    assert record.version is not None
    watermark = version(record.version).facts.get("watermark")
    first, last = _span(settings, record, int(watermark or 0))
    past = Past(reader, record.client, first)
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Ledger(str(Path(folder) / "learner.db"))) as own:
        learner = Learner(version, past, own, settings.reward_kind)
        while learner.advance():
            continue
        learner.adopt(record.version)  # as its learner did, which does not wait for an outcome of its own
        published = learner.publish()
        if first == last:
            yield _state(learner, record)
            return
        past.seq = last - 1
        for _ in range(MOST):
            if not learner.advance(1):
                return
            learner.adopt(record.version)
            if learner.publish() > published:
                published = learner.number
                yield _state(learner, record)
    raise StateError(
        f"decision {record.decision_id}: publication {record.epoch} of version {record.version} was pruned, and more "
        f"than {MOST:,} outcomes lie between those that are kept around it; it is not searched for"
    )


def _span(settings: Settings, record: DecisionRecord, watermark: int) -> tuple[int, int]:
    """The outcome after which the publication was made, twice; or those of the kept ones before and after it.

    watermark: an outcome before which the version learned nothing.
    """
    assert record.version is not None
    rows = read_publications(ledger_url(settings, 0), record.client, record.version)
    found = next((row for row in rows if row.epoch == record.epoch), None)
    if found is not None:
        return found.seq, found.seq
    before = [row.seq for row in rows if row.epoch < record.epoch]
    after = [row.seq for row in rows if row.epoch > record.epoch]
    if not after:
        raise StateError(
            f"decision {record.decision_id}: publication {record.epoch} of version {record.version} is not in the "
            "learner's ledger, nor any after it; the ledger is another home's"
        )
    return max(before, default=watermark), min(after)


def _state(learner: Learner, record: DecisionRecord) -> Rebuilt:
    assert record.version is not None
    updates = [replace(u, epoch=record.epoch) for u in learner.since(0)[1] if u.version == record.version]
    outcomes = learner.state(record.client, record.version).count if updates else 0
    return Rebuilt(learner.seq, outcomes, updates)
