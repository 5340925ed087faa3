"""Rewards: which can be taken, and what became of each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cluster.config import RewardKind
from cluster.journal.journal import Journal, RewardRecord, RewardStatus
from serve.durable import Durable
from serve.ids import DecisionIds
from serve.messages import Rejected, RewardAnswer, RewardEvent
from serve.observed.metrics import Metrics


@dataclass(frozen=True)
class Outcome:
    """What became of a reward: `status` as the journal says it, or `rejected`.

    http, field: of one that cannot be taken, the HTTP status and the field that say why.
    """

    status: RewardStatus | Literal["rejected"]
    reason: str | None = None
    http: int | None = None
    field: str = ""

    @property
    def answer(self) -> Literal["accepted", "duplicate", "rejected"]:
        """As callers see it: late ones are kept, and yet change nothing; early ones count when their decision comes."""
        if self.status in ("accepted", "parked"):
            return "accepted"
        return "duplicate" if self.status == "duplicate" else "rejected"


class Rewarding:
    """Makes rewards durable. `kinds` are the reward kinds by name."""

    def __init__(
        self, ids: DecisionIds, kinds: Mapping[str, RewardKind], journal: Journal, durable: Durable, metrics: Metrics
    ) -> None:
        self._ids = ids
        self._kinds = kinds
        self._journal = journal
        self._durable = durable
        self._metrics = metrics

    async def take(self, client: str, events: Sequence[RewardEvent]) -> list[Outcome]:
        """Take what can be taken.

        Raises:
            JournalError: nothing was made durable.
        """
        found = [self._fault(client, event) for event in events]
        good = [i for i, fault in enumerate(found) if fault is None]
        records = [_record(client, events[i]) for i in good]
        statuses = await self._durable(self._journal.rewarding(records))
        for i, status in zip(good, statuses, strict=True):
            found[i] = _outcome(events[i], status)
        outcomes = [outcome for outcome in found if outcome is not None]
        for outcome in outcomes:
            self._metrics.count("medley_rewards_total", outcome.status)
        return outcomes

    def _fault(self, client: str, event: RewardEvent) -> Outcome | None:
        if not self._ids.belongs(event.decision_id, client):
            return Outcome("rejected", f"no decision {event.decision_id!r} of this client", 404, "decision_id")
        kind = self._kinds.get(event.kind)
        if kind is None:
            return Outcome("rejected", f"{event.kind!r} is not one of {sorted(self._kinds)}", 422, "kind")
        if not kind.low <= event.value <= kind.high:
            text = f"{event.value} is outside [{kind.low}, {kind.high}], the range of {event.kind!r}"
            return Outcome("rejected", text, 422, "value")
        return None


def answered(outcomes: Sequence[Outcome]) -> RewardAnswer:
    """Outcomes as the answer of a call."""
    answers = [outcome.answer for outcome in outcomes]
    return RewardAnswer(
        accepted=answers.count("accepted"),
        duplicates=answers.count("duplicate"),
        rejected=[
            Rejected(index=i, reason=f"{outcome.field}: {outcome.reason}" if outcome.field else outcome.reason or "")
            for i, outcome in enumerate(outcomes)
            if answers[i] == "rejected"
        ],
    )


def _outcome(event: RewardEvent, status: RewardStatus) -> Outcome:
    if status == "no_slot":
        return Outcome(status, f"the decision has no slot {event.slot}", 422, "slot")
    if status == "late":
        return Outcome(status, f"late: the window of {event.kind!r} has closed; kept, but it changes no outcome")
    return Outcome(status)


def _record(client: str, event: RewardEvent) -> RewardRecord:
    at = event.at.isoformat() if event.at else None
    reward_id = event.reward_id
    if reward_id is None:
        parts = f"{event.decision_id}/{event.slot}/{event.kind}/{at}/{event.value!r}"
        reward_id = f"auto/{hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()}"
    return RewardRecord(client, event.decision_id, event.slot, event.kind, event.value, reward_id, at)
