"""What the vector store knows of an item, what may be changed of it, and what comes back as a neighbour.

Light: NumPy alone, so that who only asks a store need not load FAISS.

Shapes: E size of the embedding, Q queries, K neighbours.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cluster.errors import DataError

Vectors: TypeAlias = NDArray[np.float32]
Scope: TypeAlias = Literal["provider", "cluster", "all"]

UNIT = 1e-3
"""How far the length of an embedding, or the sum of an entry's weights, may be from one; both are then scaled to it."""

ROUNDING = 1e-6
"""How far from one the length of a scaled float32 vector can be; within it a vector is left as it is, bit by bit."""


@dataclass(frozen=True)
class Outcomes:
    """Decayed sums over an entry's rewards of one kind: of 1, of r and of r²."""

    count: float = 0.0
    reward: float = 0.0
    square: float = 0.0

    def after(self, reward: float, decay: float) -> "Outcomes":
        return Outcomes(self.count * decay + 1, self.reward * decay + reward, self.square * decay + reward * reward)


@dataclass(frozen=True, eq=False)
class Entry:
    """embedding_E: unit vector, float32. models: weights that sum to one (or none yet). outcomes: by kind of reward."""

    item_id: str
    provider_id: str
    cluster: str
    embedding_E: Vectors
    models: Mapping[str, float] = field(default_factory=dict)
    outcomes: Mapping[str, Outcomes] = field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        facts = [(e.item_id, e.provider_id, e.cluster, dict(e.models), dict(e.outcomes)) for e in (self, other)]
        return facts[0] == facts[1] and np.array_equal(self.embedding_E, other.embedding_E)

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Put:
    """Add an entry, or replace the whole of the one that is there."""

    entry: Entry


@dataclass(frozen=True)
class Feedback:
    """A reward: the entry as it is now, its stored outcomes of this kind one reward further.

    `entry.outcomes` counts only where the item was not in the store, or was of another provider: then it begins anew.
    """

    entry: Entry
    kind: str
    reward: float


@dataclass(frozen=True)
class Delete:
    """Of an item that is not there: nothing."""

    item_id: str


@dataclass(frozen=True)
class Move:
    """All of a provider's entries in `source` are of the cluster `target` from now on."""

    provider_id: str
    source: str
    target: str


Change: TypeAlias = Put | Feedback | Delete | Move


@dataclass(frozen=True, eq=False)
class Filter:
    """Which entries may be neighbours: of these items and of these providers; None is any.

    Make one and ask with it again and again: what it selects is kept until the entries change.
    """

    item_ids: Sequence[str] | None = None
    providers: Sequence[str] | None = None
    key: bytes = field(init=False)

    def __post_init__(self) -> None:
        parts = [b"" if part is None else b"\1" + "\0".join(part).encode() for part in (self.item_ids, self.providers)]
        object.__setattr__(self, "key", b"".join(blake2b(part, digest_size=16).digest() for part in parts))


@dataclass(frozen=True)
class Neighbours:
    """The nearest first; of equal ones the one that came first. Fewer than k where all entries that may be are fewer.

    scope: where they were sought, the narrowest that has k.
    """

    item_ids: list[str]
    similarity_K: Vectors
    scope: Scope


class VectorStore(Protocol):
    """What system B asks of a vector store; `store.Store` is one, `shards.Shards` several, and Milvus could be."""

    def commit(self, changes: Sequence[Change]) -> None:
        """All of the changes in order, durable, or none of them.

        Raises:
            DataError: a change that cannot be, with its place among them.
            StateError: they could not be made durable.
        """

    def get(self, item_ids: Iterable[str]) -> dict[str, Entry]:
        """The entries of those items that are there."""

    def search(
        self,
        query_QE: Vectors,
        k: int,
        cluster: str | None = None,
        provider_id: str | None = None,
        where: Filter | None = None,
        own: Sequence[str | None] | None = None,
        wider: bool = True,
    ) -> list[Neighbours]:
        """The k nearest by cosine of each query, in the narrowest of three scopes that has k which may be neighbours.

        Args:
            cluster, provider_id: the first scope is the provider within the cluster, the second the cluster, the last
                all. An unknown one has no entries.
            own: for each query the item whose entry is never its neighbour.
            wider: False looks into the first scope alone, and finds what it has.
        """

    def __len__(self) -> int: ...


def checked(change: Change, width: int) -> Change:
    """The change with its embedding and weights scaled to exactly one.

    Raises:
        DataError: an embedding of the wrong size, not finite or not of length one, weights that are negative or do not
            sum to one, a reward that is not finite, an empty name.
    """
    match change:
        case Put(entry):
            return Put(_entry(entry, width))
        case Feedback(entry, kind, reward):
            if not math.isfinite(reward):
                raise DataError(f"item {entry.item_id!r}: reward {reward} of kind {kind!r}; expected a finite number")
            _named(kind, "a kind of reward")
            return Feedback(_entry(entry, width), kind, float(reward))
        case Delete(item_id):
            _named(item_id, "item_id")
        case Move(provider_id, source, target):
            for name in (provider_id, source, target):
                _named(name, "a provider's or cluster's name")
    return change


def unit(vector_E: Vectors, width: int, whose: str) -> Vectors:
    """A vector as float32 of length one. Raises DataError."""
    vector_E = np.ascontiguousarray(vector_E, np.float32)
    if vector_E.shape != (width,):
        raise DataError(
            f"{whose}: embedding of shape {vector_E.shape}, expected ({width},); it comes from another encoder: "
            "embed it again, or open a store of that size in a folder of its own"
        )
    length = math.sqrt(float(vector_E.astype(np.float64) @ vector_E.astype(np.float64)))
    if not abs(length - 1) <= UNIT:  # also where it is not a number
        raise DataError(f"{whose}: embedding of length {length:.6g}, expected 1; divide it by its length")
    return vector_E if abs(length - 1) <= ROUNDING else (vector_E / length).astype(np.float32)


def _entry(entry: Entry, width: int) -> Entry:
    _named(entry.item_id, "item_id")
    whose = f"item {entry.item_id!r}"
    _named(entry.provider_id, f"{whose}: provider_id")
    _named(entry.cluster, f"{whose}: cluster")
    embedding_E = unit(entry.embedding_E, width, whose)
    return replace(entry, embedding_E=embedding_E, models=_weights(entry.models, whose), outcomes=_sums(entry, whose))


def _named(name: str, what: str) -> None:
    if not isinstance(name, str) or not name or "\0" in name:
        raise DataError(f"{what} {name!r}: expected a text that is not empty, without the character NUL")


def _weights(models: Mapping[str, float], whose: str) -> dict[str, float]:
    total = math.fsum(models.values())
    if models and not (abs(total - 1) <= UNIT and min(models.values()) >= 0):
        raise DataError(f"{whose}: weights of models {dict(models)} sum to {total:.6g}; expected shares that sum to 1")
    for name in models:
        _named(name, f"{whose}: a model's name")
    return {name: float(weight) / total for name, weight in models.items()}


def _sums(entry: Entry, whose: str) -> dict[str, Outcomes]:
    for kind, sums in entry.outcomes.items():
        if not (math.isfinite(sums.count) and math.isfinite(sums.reward) and math.isfinite(sums.square)):
            raise DataError(f"{whose}: outcomes of kind {kind!r} are {sums}; expected finite sums")
    return dict(entry.outcomes)
