"""What was acknowledged against what the journal holds, and a learner's state against an oracle's."""

import json
from typing import Any

from actors.bandits import learn
from actors.bandits.version import Version
from cluster.config import Settings
from cluster.journal.journal import OutcomeRow, Reader, journal_url
from cluster.registry import DEFAULT_NAME, Registry
from cluster.sql import Sql
from serve.decisions import evidence
from serve.learning import checkpoint
from serve.learning.service import ledger_url
from tests.load import Load
from tests.served import until


def check_kept(settings: Settings, load: Load) -> None:
    """No acknowledged decision or reward is lost or kept twice, and each slot gets one outcome, in order."""
    _wait_for_outcomes(settings)
    journal = journal_url(settings)
    decisions = _rows(journal, "SELECT decision_id, request_id, slots, answer FROM journal_decisions ORDER BY seq")
    rewards = _rows(journal, "SELECT reward_id, decision_id, slot, value, late FROM journal_rewards ORDER BY seq")
    asked = {name: json.loads(answer) for _, name, _, answer in decisions if name is not None}
    assert len(asked) == sum(name is not None for _, name, _, _ in decisions)
    assert {name: asked.get(name) for name in load.decided} == load.decided
    given = {name: (decision, value, not late) for name, decision, _, value, late in rewards}
    assert len(given) == len(rewards)
    assert {name: given.get(name) for name in load.rewarded} == load.rewarded
    counted = {(decision, slot): value for _, decision, slot, value, late in rewards if not late}
    closed = [(name, slot, counted.get((name, slot), 0.0)) for name, _, slots, _ in decisions for slot in range(slots)]
    outcomes = "SELECT o.seq, d.decision_id, o.slot, o.reward FROM journal_outcomes o JOIN journal_decisions d"
    expected = [(seq, *slot) for seq, slot in enumerate(closed, start=1)]
    assert _rows(journal, f"{outcomes} ON d.seq = o.decision ORDER BY o.seq") == expected


def check_learned(settings: Settings) -> None:
    """Each checkpoint has the bits of an oracle that learns its version's outcomes once, in order."""
    _wait_for_outcomes(settings)
    reader, registry = Reader(journal_url(settings)), Registry(settings.registry_uri)
    rows = reader.outcomes(0, 1_000_000, settings.reward_kind)
    reader.close()
    ledger = ledger_url(settings, 0)
    saved_until = "SELECT max(seq) FROM learner_checkpoints"
    until(lambda: _rows(ledger, saved_until) == [(rows[-1].seq,)], "a checkpoint after the last outcome")
    for client, number, seq, found in _rows(ledger, "SELECT client, version, seq, state FROM learner_checkpoints"):
        ensemble = Version.load(registry.fetch(DEFAULT_NAME, number)).ensemble.of(client)
        state = learn.start(ensemble)
        for row in rows:
            if (row.client, row.version, row.mode) == (client, number, "live") and row.seq <= seq:
                learn.step(state, _outcome(row))
        state.epoch = checkpoint.load(ensemble, found).epoch  # how often it published is a matter of time
        assert checkpoint.dump(state) == found


def _outcome(row: OutcomeRow) -> learn.Outcome:
    assert row.evidence is not None
    known, slot = evidence.unpack(row.evidence), row.slot
    return known.outcome(slot, row.user, row.reward, asked=True)


def _wait_for_outcomes(settings: Settings) -> None:
    slots, closed = "SELECT sum(slots) FROM journal_decisions", "SELECT count(*) FROM journal_outcomes"
    journal = journal_url(settings)
    until(lambda: _rows(journal, slots) == _rows(journal, closed), "an outcome of every slot")


def _rows(url: str, query: str) -> list[tuple[Any, ...]]:
    sql = Sql(url)
    try:
        return sql.rows(query)
    finally:
        sql.close()
