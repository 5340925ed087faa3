"""A request with its candidates, and the record that it becomes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cluster.journal.journal import DecisionRecord
from serve.decisions import baseline, evidence
from serve.decisions.asked import Asked, Reason
from serve.decisions.baseline import record
from serve.decisions.choice import Choice
from serve.decisions.current import Current


@dataclass(frozen=True)
class Case:
    """items: what may be shown. revision: the catalogue change up to which they are known."""

    asked: Asked
    current: Current | None
    items: Sequence[str]
    revision: int

    @property
    def reason(self) -> Reason | None:
        """Why no model is asked."""
        return self.asked.reason if self.current is not None else "no_version"

    @property
    def asks(self) -> bool:
        """Whether models choose, in the modes shadow and apprentice beside the caller's own choice."""
        return self.reason is None and self.asked.mode != "off"

    def record(self, choice: Choice | None) -> DecisionRecord:
        """What is kept of the decision, its answer among it; `choice` is the models', None where they were not asked
        or broke."""
        if choice is not None and self.asked.mode == "live":
            return self._live(choice)
        return self._own(choice, "broken" if self.asks and choice is None else self.reason)

    def _live(self, choice: Choice) -> DecisionRecord:
        asked, number, epoch = self.asked, choice.current.loaded.number, choice.current.published.epoch
        answer = {"decision_id": asked.decision_id, "version": number, "mode": "live", "slots": choice.slots()}
        return record(asked.client, asked.request, answer, number, epoch, packed=choice.evidence(asked.seen))

    def _own(self, choice: Choice | None, reason: Reason | None) -> DecisionRecord:
        """The caller's own choice as the answer, what models chose beside it, and what an apprentice learns."""
        asked, current = self.asked, self.current
        own = baseline.own_choice(asked.request, self.items)
        answer = baseline.answer(asked.decision_id, "baseline" if asked.mode == "live" else asked.mode, own)
        number, epoch = (None, 0) if current is None else (current.loaded.number, current.published.epoch)
        beside: dict[str, Any] = {"revision": self.revision}
        if reason is not None:
            beside["reason"] = reason
        if asked.seen:
            beside["seen"] = sorted(asked.seen)
        if choice is not None:
            beside["slots"] = choice.slots()
            if choice.part is not None:
                beside["part"] = choice.part
            if choice.forgotten:
                beside["forgotten"] = True
            if choice.features.code_H is not None:
                beside["code"] = evidence.pack_numbers(choice.features.code_H)
        made = record(asked.client, asked.request, answer, number, epoch, beside=beside, reason=reason)
        if choice is not None and asked.mode == "apprentice":
            return replace(made, evidence=choice.lesson(own), agreement=choice.agreement(own))
        return made
