"""What the engine chose for one request: how it is answered, and what is kept of it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actors.bandits import law
from actors.bandits.members import Shared, view
from actors.bandits.published import Published
from actors.features.features import Features, Floats
from cluster.journal.journal import Agreement
from serve.decisions import evidence
from serve.decisions.current import Current

REASONS = 3


@dataclass(frozen=True)
class Choice:
    """A decision of the law over `items`; `features` are theirs in the same order.

    part: what was scored of a large catalogue, as `evidence.pack_part` writes it; None where the items are all that
    were eligible. forgotten: the user's history may have been dropped for want of room.
    """

    current: Current
    items: Sequence[str]
    features: Features
    decision: law.Decision
    part: str | None = None
    forgotten: bool = False

    def slots(self) -> list[dict[str, Any]]:
        """As in `messages.Slot`."""
        return [
            {
                "item_id": self.items[slot.index],
                "score": slot.score,
                "propensity": slot.propensity,
                "explored": slot.explored,
                "models": slot.models,
                "contributions": contributions(self.current.published, slot),
                "reasons": reasons(self.current, self.features, slot),
            }
            for slot in self.decision.slots
        ]

    def evidence(self, seen: Collection[str]) -> bytes:
        return self._packed(self.decision.slots, seen)

    def lesson(self, own: Sequence[str]) -> bytes:
        """Evidence of the caller's own choice, which is certain; no member had a say."""
        first, means_MK = self.decision.slots[0], self.decision.member_means_MK
        certain = replace(first, propensity=1.0, member_propensities_M=np.zeros_like(first.member_propensities_M))
        places = [self.items.index(item) for item in own]
        means = [first.member_means_M if means_MK is None else means_MK[:, place] for place in places]
        slots = [replace(certain, index=p, member_means_M=mean_M) for p, mean_M in zip(places, means, strict=True)]
        return self._packed(slots, ())

    def agreement(self, own: Sequence[str]) -> Agreement:
        """Whether the first slot is the caller's own choice too, and how probable that one was."""
        place = self.items.index(own[0])
        return Agreement(1, int(self.decision.slots[0].index == place), float(self.decision.first_K[place]))

    def _packed(self, slots: Sequence[law.Slot], seen: Collection[str]) -> bytes:
        ids = [self.items[slot.index] for slot in slots]
        return evidence.pack(
            self.features, slots, ids, self.current.catalogue.revision, self.part, seen, self.forgotten
        )


@dataclass(frozen=True)
class Draft:
    """A choice before the law has decided."""

    current: Current
    items: Sequence[str]
    question: law.Question
    part: str | None = None
    forgotten: bool = False

    def choice(self, decision: law.Decision) -> Choice:
        return Choice(self.current, self.items, self.question.features, decision, self.part, self.forgotten)


def contributions(published: Published, slot: law.Slot) -> dict[str, float]:
    """What each model added to the score, in units of the reward: (high − low)·w_m·μ_m; `low` and these sum to it."""
    shares_M = published.shares_M if slot.shares_M is None else slot.shares_M
    added_M = (published.high - published.low) * shares_M * slot.member_means_M
    return dict(zip(published.names, added_M.tolist(), strict=True))


def reasons(current: Current, features: Features, slot: law.Slot) -> list[dict[str, Any]]:
    """The features that moved the linear members' blended mean most, with what each added to the reward.

    Contribution of feature d is (high − low)·φ_d·Σ_m w_m μ_m,d over the linear members; intercepts are left out.
    """
    linear_D = _linear(current, features, slot)
    if linear_D is None:
        return []
    moved_D = features.phi_KD[slot.index] * linear_D
    moved_D[list(current.loaded.version.feature_map.intercepts)] = 0.0
    top = np.argpartition(-np.abs(moved_D), min(REASONS, len(moved_D) - 1))[:REASONS]
    top = top[np.argsort(-np.abs(moved_D[top]), kind="stable")]
    return [{"feature": current.loaded.names[d], "contribution": float(moved_D[d])} for d in top if moved_D[d]]


def _linear(current: Current, features: Features, slot: law.Slot) -> Floats | None:
    """Blended coefficients of the linear members for an item, (high − low)·Σ_m w_m μ_m; None where there are none."""
    published = current.published
    if features.kin is None:  # nothing of an item but its parameter row enters: made once for a publication
        return None if current.linear_AD is None else current.linear_AD[features.arm_K[slot.index]]
    shares_M, first = published.shares_M if slot.shares_M is None else slot.shares_M, 0
    blended = []
    if published.joint is not None:
        first = len(published.joint.mean_SD)
        blended.append(shares_M[published.scored[:first]] @ published.joint.mean_SD)
    for m in published.scored[first:].tolist():
        member = published.members[m]
        if isinstance(member, Shared) and member.view != "items":
            row = view(features, member.view)[1][slot.index]
            blended.append(shares_M[m] * member.posterior.mean_AD[row])
    return (published.high - published.low) * np.sum(blended, axis=0) if blended else None
