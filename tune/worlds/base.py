"""What a simulated environment is: situations in order, and an answer to any choice made in them.

A draw is a pure function of (seed, row, item, position): two policies that choose the same item in the same situation
get the same reward, so that their difference is theirs and not luck's.

Shapes: N situations, K items.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

import pyarrow as pa

from actors.features.features import Floats
from cluster.records import Value, decode


@runtime_checkable
class World(Protocol):
    """Answers to choices. `events` has the EVENTS schema; what was done in it is ignored.

    Rewards are in the units of the reward kind, not scaled. `position` is the slot of an answer that an item fills,
    0 the first.
    """

    @property
    def events(self) -> pa.Table: ...

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        """Expected reward of each item in that slot of situation `row`, (K,)."""

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        """The reward that this choice earns."""

    def delay_s(self, row: int, item_id: str) -> float:
        """Seconds from the choice to its reward."""


@dataclass(frozen=True)
class Situation:
    """One request: who, when, in what context, among which items (None: the whole catalogue)."""

    row: int
    client_id: str
    user_id: str | None
    session_id: str | None
    timestamp: datetime
    context: dict[str, Value]
    candidates: tuple[str, ...] | None


class Situations(Sequence[Situation]):
    """The events of a world as requests, in order."""

    def __init__(self, events: pa.Table):
        names = ("client_id", "user_id", "session_id", "timestamp", "context", "candidates")
        self._columns = {name: events[name] for name in names}
        self._length = len(events)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, row: int) -> Situation:  # type: ignore[override]
        if not -self._length <= row < self._length:
            raise IndexError(f"situation {row} of {self._length}")
        row %= self._length
        values = {name: column[row].as_py() for name, column in self._columns.items()}
        candidates = values.pop("candidates")
        return Situation(
            row=row,
            candidates=None if candidates is None else tuple(candidates),
            context=decode(values.pop("context")),
            **values,
        )

    def __iter__(self) -> Iterator[Situation]:
        return (self[row] for row in range(self._length))


def draw(seed: int, row: int, item_id: str) -> float:
    """A number in [0, 1), the same for the same three arguments everywhere."""
    key = f"{seed}/{row}/{item_id}".encode()
    return (int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 11) * 2.0**-53
