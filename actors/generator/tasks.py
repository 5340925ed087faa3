"""Tasks: what one user did, as the generator trains on it.

A task is a user's last `limit` final rewards (a session's where there is no user, a single row where there is
neither) and the text of the context before the first of them.

Shapes: U tasks, N rows of all tasks, D features, X context features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.actions import actions
from actors.features.features import FeatureBatch, Floats, Ints
from actors.generator.serialise import Serialiser, attributes_of
from cluster.errors import EvidenceError
from cluster.records import Dataset, Value, decode, tasks


class Source(Protocol):
    """What is used of a feature map (`actors.features`)."""

    @property
    def arms(self) -> int: ...

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def batch(self, events: pa.Table) -> FeatureBatch: ...


@dataclass(frozen=True)
class Tasks:
    """Rows of task u are start_U[u] to start_U[u + 1]; `start_U` has U + 1 entries.

    keys: as `user_keys` gives them. texts: the situation before the task. histories: the same with what
    followed (language model only). context_UX: context features of the first event.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    histories: tuple[str, ...]
    context_UX: Floats
    start_U: Ints
    phi_ND: Floats
    arm_N: Ints
    reward_N: Floats

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def sizes_U(self) -> Ints:
        return np.diff(self.start_U)

    def take(self, tasks: Ints) -> "Tasks":
        """Only these tasks, in this order."""
        pieces = [np.arange(self.start_U[u], self.start_U[u + 1]) for u in tasks]
        rows = np.concatenate(pieces) if pieces else np.zeros(0, np.int64)
        return Tasks(
            tuple(self.keys[u] for u in tasks),
            tuple(self.texts[u] for u in tasks),
            tuple(self.histories[u] for u in tasks),
            self.context_UX[tasks],
            np.concatenate([[0], np.cumsum(self.sizes_U[tasks])]).astype(np.int64),
            self.phi_ND[rows],
            self.arm_N[rows],
            self.reward_N[rows],
        )


def user_keys(events: pa.Table) -> list[str]:
    """The key of each event's task, by client: its user, else its session, else itself."""
    keys: list[str] = tasks(events).to_pylist()
    return keys


def group(keys: Sequence[str], limit: int) -> dict[str, Ints]:
    """Positions of the last `limit` rows of each key, in order; keys in order of first appearance."""
    rows: dict[str, list[int]] = {}
    for position, key in enumerate(keys):
        rows.setdefault(key, []).append(position)
    return {key: np.asarray(positions[-limit:], np.int64) for key, positions in rows.items()}


@dataclass(frozen=True)
class Logged:
    """φ, arm, scaled reward and context features of the logged items of some events, with the events.

    Events without a reward are not among them.
    """

    events: pa.Table
    phi_ND: Floats
    arm_N: Ints
    reward_N: Floats
    context_NX: Floats

    @classmethod
    def of(cls, dataset: Dataset, rows: Ints, source: Source, low: float, high: float) -> "Logged":
        """Read events `rows`; rewards are scaled from [low, high] to [0, 1]."""
        events = dataset.events.take(pa.array(rows))
        events = events.filter(pc.is_valid(events["reward"]))
        if not len(events):
            raise EvidenceError(
                f"none of {len(rows)} events has a reward; the generator learns from rewarded events only"
            )
        done = actions(source, events)
        reward_N = events["reward"].to_numpy().astype(np.float64)
        return cls(events, done.phi_ND, done.arm_N, (reward_N - low) / (high - low), done.context_NX)


def build(dataset: Dataset, logged: Logged, serialiser: Serialiser, *, limit: int, most: int, seed: int) -> Tasks:
    """Tasks of the logged events, at most `most` of them, drawn by `seed`, with at most `limit` rows each."""
    groups = group(user_keys(logged.events), limit)
    keys = sample(list(groups), most, seed)
    pieces = [groups[key] for key in keys]
    rows = np.concatenate(pieces)
    start_U = np.concatenate([[0], np.cumsum([len(p) for p in pieces])]).astype(np.int64)
    texts, histories = _texts(dataset, logged.events.take(pa.array(rows)), start_U, serialiser)
    return Tasks(
        tuple(keys),
        texts,
        histories,
        logged.context_NX[rows[start_U[:-1]]],
        start_U,
        logged.phi_ND[rows],
        logged.arm_N[rows],
        logged.reward_N[rows],
    )


@dataclass(frozen=True)
class Traffic:
    """Users for whom candidates are wanted: their keys, and the context each came with, as text and features."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    context_UX: Floats

    @classmethod
    def of(
        cls, dataset: Dataset, rows: Ints, serialiser: Serialiser, source: Source, *, limit: int, most: int, seed: int
    ) -> "Traffic":
        """The users of events `rows`, at most `most`, with the context before the last `limit` of each."""
        groups = group(user_keys(dataset.events.take(pa.array(rows))), limit)
        keys = sample(list(groups), most, seed)
        first = np.asarray([rows[groups[key][0]] for key in keys], np.int64)
        texts = tuple(serialiser.text(context) for context in contexts(dataset, first))
        return cls(tuple(keys), texts, actions(source, dataset.events.take(pa.array(first))).context_NX)


def contexts(dataset: Dataset, rows: Ints) -> list[dict[str, Value]]:
    """Context and user attributes of each event, as one mapping (the context's word counts)."""
    events = dataset.events.select(["user_id", "context"]).take(pa.array(rows))
    known = _attributes(dataset, set(events["user_id"].to_pylist()))
    pairs = zip(events["user_id"].to_pylist(), events["context"].to_pylist(), strict=True)
    return [{**known.get(user, {}), **decode(context)} for user, context in pairs]


def sample(keys: list[str], most: int, seed: int) -> list[str]:
    """At most `most` of the keys, drawn by `seed`, in their order."""
    if len(keys) <= most:
        return keys
    chosen = np.sort(np.random.default_rng(seed).choice(len(keys), most, replace=False))
    return [keys[i] for i in chosen]


def _texts(
    dataset: Dataset, events: pa.Table, start_U: Ints, serialiser: Serialiser
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = events.take(pa.array(start_U[:-1]))
    users = first["user_id"].to_pylist()
    known = _attributes(dataset, set(users))
    items, rewards = events["item_id"].to_pylist(), events["reward"].to_pylist()
    texts, histories = [], []
    for u, (user, pairs) in enumerate(zip(users, first["context"].to_pylist(), strict=True)):
        context, rows = decode(pairs), slice(start_U[u], start_U[u + 1])
        texts.append(serialiser.text(context, known.get(user)))
        outcomes = zip(items[rows], rewards[rows], strict=True)
        histories.append(serialiser.history(context, known.get(user), outcomes))
    return tuple(texts), tuple(histories)


def _attributes(dataset: Dataset, users: set[str | None]) -> dict[str | None, dict[str, Value]]:
    table = dataset.users
    if not len(table):
        return {}
    found = table.filter(pc.is_in(table["user_id"], pa.array([u for u in users if u is not None], pa.string())))
    columns = (found[name].to_pylist() for name in ("user_id", "attributes", "description"))
    return {user: attributes_of(a, d) for user, a, d in zip(*columns, strict=True)}
