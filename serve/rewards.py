"""Rewards: which can be taken, and what became of each."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.config import RewardKind
from cluster.journal import Journal, RewardRecord
from serve.durable import Durable
from serve.ids import DecisionIds
from serve.messages import Rejected, RewardAnswer, RewardEvent
from serve.metrics import Metrics


@dataclass(frozen=True)
class Fault:
    """Why a reward is not taken: the HTTP status and the field that say it."""

    status: int
    field: str
    text: str


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

    async def take(self, client: str, events: Sequence[RewardEvent]) -> tuple[RewardAnswer, dict[int, Fault]]:
        """Take what can be taken; the answer, and the faults of the others by their place.

        Raises:
            JournalError: nothing was made durable.
        """
        faults = {i: fault for i, event in enumerate(events) if (fault := self._fault(client, event))}
        good = [(i, event) for i, event in enumerate(events) if i not in faults]
        self._metrics.count("medley_rewards_total", "rejected", by=len(faults))
        statuses = await self._durable(self._journal.rewarding([_record(client, event) for _, event in good]))
        late = {}
        for (i, event), status in zip(good, statuses, strict=True):
            self._metrics.count("medley_rewards_total", status)
            if status == "no_slot":
                faults[i] = Fault(422, "slot", f"the decision has no slot {event.slot}")
            elif status == "late":
                late[i] = f"late: the window of {event.kind!r} has closed; kept, but it changes no outcome"
        reasons = late | {i: f"{fault.field}: {fault.text}" for i, fault in faults.items()}
        answer = RewardAnswer(
            accepted=sum(status in ("accepted", "parked") for status in statuses),
            duplicates=statuses.count("duplicate"),
            rejected=[Rejected(index=i, reason=reasons[i]) for i in sorted(reasons)],
        )
        return answer, faults

    def _fault(self, client: str, event: RewardEvent) -> Fault | None:
        if not self._ids.belongs(event.decision_id, client):
            return Fault(404, "decision_id", f"no decision {event.decision_id!r} of this client")
        kind = self._kinds.get(event.kind)
        if kind is None:
            return Fault(422, "kind", f"{event.kind!r} is not one of {sorted(self._kinds)}")
        if not kind.low <= event.value <= kind.high:
            text = f"{event.value} is outside [{kind.low}, {kind.high}], the range of {event.kind!r}"
            return Fault(422, "value", text)
        return None


def _record(client: str, event: RewardEvent) -> RewardRecord:
    at = event.at.isoformat() if event.at else None
    reward_id = event.reward_id
    if reward_id is None:
        parts = f"{event.decision_id}/{event.slot}/{event.kind}/{at}/{event.value!r}"
        reward_id = f"auto/{hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()}"
    return RewardRecord(client, event.decision_id, event.slot, event.kind, event.value, reward_id, at)
