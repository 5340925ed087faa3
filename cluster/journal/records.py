"""What the journal takes and gives, one row of each of its tables."""

from dataclasses import dataclass
from typing import Literal

_TO_BASE32 = str.maketrans("0123456789ABCDEFGHJKMNPQRSTVWXYZ", "0123456789abcdefghijklmnopqrstuv")


@dataclass(frozen=True)
class Agreement:
    """Decisions of an engine beside a baseline: how many, in how many its first item was the baseline's too, and
    the sum of its probabilities of the baseline's first item."""

    compared: int
    agreed: int
    propensity: float


@dataclass(frozen=True)
class DecisionRecord:
    """What is kept of one decision.

    `evidence` is what its learner needs, opaque here. `mode` says what answered: live (the engine), baseline (no
    version, or one that failed), or the client's mode shadow, apprentice or off, in which a baseline answers.
    `shadow` is the JSON of what the engine would have answered. `agreement` is not kept with the decision but
    added to the client's, and `reason`, why no model answered, is kept in `shadow` alone.
    """

    decision_id: str
    client: str
    user: str | None
    request_id: str | None
    version: int | None
    epoch: int
    slots: int
    request: str
    answer: str
    evidence: bytes | None
    mode: str = "live"
    shadow: str | None = None
    agreement: Agreement | None = None
    reason: str | None = None


@dataclass(frozen=True)
class RewardRecord:
    client: str
    decision_id: str
    slot: int
    kind: str
    value: float
    reward_id: str
    at: str | None = None


@dataclass(frozen=True)
class ItemRecord:
    """A change of a client's catalogue; `body` is JSON, None deletes."""

    client: str
    item_id: str
    body: str | None


@dataclass(frozen=True)
class Repeat:
    """A request_id that was there before: the stored answer, and whether the request was the same."""

    answer: str
    same: bool


RewardStatus = Literal["accepted", "parked", "duplicate", "late", "no_slot"]


@dataclass(frozen=True)
class OutcomeRow:
    """The final reward of one slot; `events` rewards were reduced to it, 0 means the default."""

    seq: int
    decision_id: str
    client: str
    user: str | None
    version: int | None
    epoch: int
    slot: int
    kind: str
    reward: float
    events: int
    request: str
    evidence: bytes | None
    mode: str


@dataclass(frozen=True)
class Final:
    """An outcome with all that is kept of its decision, for export; `at` is when it was decided, server time."""

    seq: int
    decision_id: str
    client: str
    at: float
    mode: str
    slot: int
    kind: str
    reward: float
    events: int
    request: str
    answer: str
    evidence: bytes | None


@dataclass(frozen=True)
class Shown:
    """Decision `seq` showed a user these items `at` (server time, seconds)."""

    seq: int
    at: float
    item_ids: tuple[str, ...]


def moment_us(decision_id: str) -> int:
    """When a decision's id (serve.ids) was made, microseconds since 1970 (whole milliseconds).

    It is made before the decision, which is by this moment; `Final.at` is the commit's.

    >>> moment_us("01ARYZ6S410000000000000000")
    1469918176385000
    """
    return int(decision_id[:10].translate(_TO_BASE32), 32) * 1_000
