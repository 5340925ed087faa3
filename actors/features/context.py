"""A context and its user's attributes -> context_X.

The features are: numbers through the basis, one-hot levels, lists as several levels at once, and the same
for the user's attributes (by user_id; a user that the map does not know has all of them missing).
Where there are more than `limit`, linear terms come first, then indicators and levels by their variance on the
fit rows, then hinges by theirs.

Shapes: B rows, N numbers, L levels, X features, U users.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.basis import Basis, fit_basis
from actors.features.columns import (
    Reader,
    Table,
    attribute_table,
    context_table,
    fit_reader,
)
from actors.features.features import Floats, Ints

RECENT = "recent"


@dataclass(frozen=True)
class Users:
    """What is known of users: numbers and levels of their attributes; the last row is an unknown user."""

    ids: tuple[str, ...]
    reader: Reader
    numbers_UN: Floats
    on_UL: NDArray[np.bool_]
    _row: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_row", {name: i for i, name in enumerate(self.ids)})

    def rows(self, user_ids: list[str | None]) -> Ints:
        """Row of each user; -1, the last, for one that is not known."""
        return np.array([self._row.get(name, -1) if name else -1 for name in user_ids], np.int64)

    def row(self, user_id: str | None) -> int:
        return self._row.get(user_id, -1) if user_id else -1


@dataclass(frozen=True)
class ContextBlock:
    """`one` for a decision, `many` for a table of events; both end in the same arithmetic."""

    reader: Reader
    users: Users
    basis: Basis
    level_T: Ints

    @property
    def size(self) -> int:
        return sum(self.basis.sizes) + len(self.level_T)

    @property
    def names(self) -> tuple[str, ...]:
        numbers = self.reader.number_names + [f"user.{n}" for n in self.users.reader.number_names]
        levels = self.reader.code_names + [f"user.{n}" for n in self.users.reader.code_names]
        return (*self.basis.names(numbers), *(levels[code] for code in self.level_T))

    def one(self, context: Mapping[str, Any], user_id: str | None) -> Floats:
        """context_X of one decision."""
        numbers, codes = self.reader.read(context)
        on_L = np.zeros(self.reader.width + self.users.reader.width)
        on_L[codes] = 1.0
        numbers_N = np.array(numbers)
        if self.users.ids:
            user = self.users.row(user_id)
            numbers_N = np.concatenate([numbers_N, self.users.numbers_UN[user]])
            on_L[self.reader.width :] = self.users.on_UL[user]
        context_BX = self._encode(numbers_N[None], on_L[None])
        return context_BX.reshape(-1)

    def many(self, events: pa.Table) -> Floats:
        """context_BX of a table of events."""
        numbers_BN, on_BL = read_situations(self.reader, self.users, events)
        return self._encode(numbers_BN, on_BL)

    def _encode(self, numbers_BN: Floats, on_BL: NDArray[Any]) -> Floats:
        return np.concatenate([self.basis.features(numbers_BN), on_BL[:, self.level_T]], axis=1)


def read_situations(reader: Reader, users: Users, events: pa.Table) -> tuple[Floats, NDArray[np.bool_]]:
    """Events -> numbers_BN and on_BL of context and user together."""
    rows = len(events)
    numbers_BN, on_BL = reader.read_table(context_table(events["context"]), rows)
    if not users.ids:
        return numbers_BN, on_BL
    user_B = users.rows(events["user_id"].to_pylist())
    return (
        np.concatenate([numbers_BN, users.numbers_UN[user_B]], axis=1),
        np.concatenate([on_BL, users.on_UL[user_B]], axis=1),
    )


def fit_context(
    events: pa.Table, users: pa.Table, levels: int, limit: int, hinges_until: int, recent_levels: bool
) -> tuple[ContextBlock, Floats]:
    """The block fitted on these events, and its features there.

    Args:
        events: the fit rows.
        users: attributes of users; those of users without a fit row count for nothing here.
        levels: levels kept of a column.
        limit: most features.
        hinges_until: hinges fill up only to this number of features.
        recent_levels: read the list of recent items as levels (where no similarity reads it).
    """
    table = dict(context_table(events["context"]))
    if not recent_levels:
        table.pop(RECENT, None)
    reader = fit_reader(table, len(events), levels)
    known = fit_users(users, set(events["user_id"].to_pylist()), levels)
    numbers_BN, on_BL = read_situations(reader, known, events)
    basis = fit_basis(numbers_BN)
    block = ContextBlock(reader, known, basis, np.arange(on_BL.shape[1]))
    context_BX = block._encode(numbers_BN, on_BL)
    keep_X = _strongest(context_BX, basis, limit, hinges_until)
    split = sum(basis.sizes)
    block = ContextBlock(reader, known, basis.select(keep_X[:split]), np.flatnonzero(keep_X[split:]))
    return block, block._encode(numbers_BN, on_BL)


def _strongest(context_BX: Floats, basis: Basis, limit: int, hinges_until: int) -> NDArray[np.bool_]:
    """Which features stay: by tier (linear; indicators and levels; hinges), then variance, at most `limit`."""
    t, h, _, _ = basis.sizes
    variance_X = context_BX.var(axis=0)
    tier_X = np.ones(len(variance_X))
    tier_X[:t] = 0
    tier_X[t : t + h] = 2
    order = np.lexsort((-np.round(variance_X, 9), tier_X))
    order = order[variance_X[order] > 1e-12]
    plain = int((tier_X[order] < 2).sum())
    keep_X = np.zeros(len(variance_X), np.bool_)
    keep_X[order[: min(limit, max(plain, hinges_until))]] = True
    return keep_X


def fit_users(users: pa.Table, present: set[str | None], levels: int) -> Users:
    """Attributes and descriptions' absence aside: every user of the table, by columns that fit users show."""
    if not len(users):
        return Users((), Reader(()), np.zeros((1, 0)), np.zeros((1, 0), np.bool_))
    ids = users["user_id"].to_pylist()
    table = attribute_table(users["attributes"])
    fit_U = np.array([name in present for name in ids], np.bool_)
    fit_table: Table = {name: (index_B[fit_U], values) for name, (index_B, values) in table.items()}
    reader = fit_reader(fit_table, int(fit_U.sum()), levels)
    if not reader.columns:
        return Users((), Reader(()), np.zeros((1, 0)), np.zeros((1, 0), np.bool_))
    numbers_UN, on_UL = reader.read_table(table, len(ids))
    unknown_N, unknown_L = reader.read_table({}, 1)
    return Users(tuple(ids), reader, np.concatenate([numbers_UN, unknown_N]), np.concatenate([on_UL, unknown_L]))
