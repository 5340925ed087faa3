"""Signed buckets for the levels that the base features do not tell apart: rare cities, user ids, items of a large
catalogue.

The hashing trick (Weinberger et al. 2009): a level adds +1 or -1, by its own hash, to a bucket of its own hash, so that
levels that share a bucket do not add up on average. With arms, a level of the context or the user has one bucket. In a
joint map it has one for each item axis, times the item's place on that axis: its own taste; and each level of
an item has one.

Shapes: B decisions, K items, T tokens (hashed levels; 0 pads), Q item axes, W buckets, U users.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from actors.features.catalogue import item_table
from actors.features.columns import context_table, level_of
from actors.features.extended import extend, widened
from actors.features.features import Floats, Ints, Keys
from actors.features.keys import key

BLOCK = 1_000
"""Decisions of a joint map hashed at a time, for bounded memory."""


@dataclass(frozen=True)
class Hashed:
    """What is hashed, and where to.

    columns, item_columns: whose levels are hashed, of the context and of the items.
    known, known_items: levels of context and users, and of items, that the base has, as `column=level`.
    labels: names of the W buckets.
    user_UT: tokens of the attributes of `users`, and of nobody. item_IT: tokens of the catalogue, and of no item.
    """

    columns: tuple[str, ...]
    item_columns: tuple[str, ...]
    known: tuple[str, ...]
    known_items: tuple[str, ...]
    labels: tuple[str, ...]
    users: tuple[str, ...]
    user_UT: Keys
    item_IT: Keys
    _known: frozenset[str] = field(init=False, repr=False, compare=False)
    _row: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_known", frozenset(self.known))
        object.__setattr__(self, "_row", {name: u for u, name in enumerate(self.users)})

    def with_items(self, items: pa.Table) -> "Hashed":
        """The same buckets over another catalogue."""
        known = frozenset(self.known_items)
        return replace(self, item_IT=pad([tokens(own, known) for own in item_levels(items, self.item_columns)]))

    def followed(self, more: "Hashed") -> "Hashed":
        """The same buckets over this catalogue and then that of `more`."""
        width = max(self.item_IT.shape[1], more.item_IT.shape[1])
        return replace(self, item_IT=extend(widened(self.item_IT, width), widened(more.item_IT, width)))

    @property
    def size(self) -> int:
        return len(self.labels)

    def one(self, context: Mapping[str, Any], user_id: str | None) -> Keys:
        """tokens_T of one decision."""
        found = [token for name in self.columns for token in tokens(levels(name, context.get(name)), self._known)]
        return np.concatenate([np.array(found, np.uint64), self._user(user_id)])

    def many(self, events: pa.Table) -> Keys:
        """tokens_BT of a table of events; every distinct value is hashed once."""
        table, parts = context_table(events["context"]), [np.zeros((len(events), 0), np.uint64)]
        for name in self.columns:
            if name in table:
                index_B, values = table[name]
                parts.append(pad([tokens(levels(name, value), self._known) for value in [*values, None]])[index_B])
        users = events["user_id"].combine_chunks().dictionary_encode()
        index_B = users.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        parts.append(np.stack([self._user(name) for name in [*users.dictionary.to_pylist(), None]])[index_B])
        return np.concatenate(parts, axis=1)

    def _user(self, user_id: str | None) -> Keys:
        own = key(f"user={user_id}") if user_id else 0
        return np.append(self.user_UT[self._row.get(user_id, -1) if user_id else -1], np.uint64(own))

    def rows(self, tokens_BT: Keys) -> Floats:
        """hashed_BW of the tokens of each row."""
        place_BT, sign_BT = places(tokens_BT, self.size)
        return summed(place_BT, sign_BT, self.size)

    def crossed(self, tokens_BT: Keys, axes_BKQ: Floats, rows_BK: Ints) -> Floats:
        """hashed_BKW: tokens of the decision times the items' axes, and tokens of the items (rows of the catalogue)."""
        b, k, q = axes_BKQ.shape
        hashed_BKW = self.rows(self.item_IT.take(rows_BK.ravel(), axis=0)).reshape(b, k, self.size)
        for start in range(0, b, BLOCK):
            part_BT = tokens_BT[start : start + BLOCK]
            n, t = part_BT.shape
            taste_BQW = self.rows(on_axes(part_BT, q).reshape(n * q, t)).reshape(n, q, self.size)
            hashed_BKW[start : start + n] += axes_BKQ[start : start + n] @ taste_BQW
        return hashed_BKW


def levels(name: str, value: Any) -> list[str]:
    """`name=level` of a value, or of each part of a list, each once."""
    parts = value if isinstance(value, list) else [value]
    found = {level_of(part) for part in parts} - {None}
    return sorted(f"{name}={level}" for level in found)


def tokens(named: Sequence[str], known: Collection[str]) -> list[int]:
    """Hashes of those levels that the base does not have."""
    return [key(level) for level in named if level not in known]


def pad(lists: list[list[int]]) -> Keys:
    """Lists of tokens -> tokens_BT."""
    tokens_BT = np.zeros((len(lists), max(map(len, lists), default=0)), np.uint64)
    for row_T, tokens in zip(tokens_BT, lists, strict=True):
        row_T[: len(tokens)] = tokens
    return tokens_BT


def on_axes(tokens_BT: Keys, axes: int) -> Keys:
    """tokens_BQT: another token for each axis."""
    steps_Q = np.arange(1, axes + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.where(tokens_BT[:, None] > 0, tokens_BT[:, None] ^ steps_Q[:, None], np.uint64(0))


def places(tokens: Keys, buckets: int) -> tuple[Ints, Floats]:
    """Bucket and sign of each token, 0 for padding; bits are mixed as by SplitMix64 (Steele et al. 2014)."""
    mixed = (tokens ^ (tokens >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    sign = np.where(tokens > 0, 1.0 - 2.0 * (mixed & np.uint64(1)), 0.0)
    return ((mixed >> np.uint64(1)) % np.uint64(buckets)).astype(np.int64), sign


def summed(place_NT: Ints, sign_NT: Floats, buckets: int) -> Floats:
    """Signs added up by row and bucket: (N, W)."""
    flat_NT = place_NT + buckets * np.arange(len(place_NT))[:, None]
    sums = np.bincount(flat_NT.ravel(), sign_NT.ravel(), minlength=buckets * len(place_NT))
    return np.asarray(sums.reshape(-1, buckets), np.float64)


def item_levels(items: pa.Table, columns: Sequence[str]) -> list[list[str]]:
    """`column=level` of each item in these columns, its id among them; the unknown item, last, has none."""
    table = item_table(items)
    found = [[f"item={name}"] for name in items["item_id"].to_pylist()] + [[]]
    for name in columns:
        index_I, values = table.get(name, (np.full(len(found), -1), []))
        for own, index in zip(found, index_I.tolist(), strict=True):
            own += levels(name, values[index]) if index >= 0 else []
    return found
