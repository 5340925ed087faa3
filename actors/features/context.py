"""A context and its user's attributes -> context_X.

The features are: numbers through the basis, one-hot levels, lists as several levels at once, and the same
for the user's attributes (by user_id; a user that the map does not know has all of them missing).

Shapes: B rows, N numbers, L levels, T of them kept, X features, U users.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.basis import Basis
from actors.features.columns import Reader, context_table
from actors.features.features import Floats, Ints


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
    """`some` for a few decisions, `many` for a table of events; both end in the same arithmetic."""

    reader: Reader
    users: Users
    basis: Basis
    level_T: Ints

    @property
    def size(self) -> int:
        return sum(self.basis.sizes) + len(self.level_T)

    @property
    def plain(self) -> Ints:
        """Linear terms and levels: what is no hinge, product, point or indicator of missing."""
        return np.append(np.arange(len(self.basis.linear_T)), np.arange(sum(self.basis.sizes), self.size))

    @property
    def names(self) -> tuple[str, ...]:
        numbers = self.reader.number_names + [f"user.{n}" for n in self.users.reader.number_names]
        levels = self.reader.code_names + [f"user.{n}" for n in self.users.reader.code_names]
        return (*self.basis.names(numbers), *(levels[code] for code in self.level_T))

    def some(self, situations: Sequence[tuple[Mapping[str, Any], str | None]]) -> Floats:
        """context_BX of contexts with their users."""
        on_BL = np.zeros((len(situations), self.reader.width + self.users.reader.width))
        read = []
        for on_L, (context, _) in zip(on_BL, situations, strict=True):
            numbers, codes = self.reader.read(context)
            on_L[codes] = 1.0
            read.append(numbers)
        numbers_BN = np.array(read)
        if self.users.ids:
            user_B = [self.users.row(user_id) for _, user_id in situations]
            numbers_BN = np.concatenate([numbers_BN, self.users.numbers_UN[user_B]], axis=1)
            on_BL[:, self.reader.width :] = self.users.on_UL[user_B]
        return self.encode(numbers_BN, on_BL)

    def many(self, events: pa.Table) -> Floats:
        """context_BX of a table of events."""
        numbers_BN, on_BL = read_situations(self.reader, self.users, events)
        return self.encode(numbers_BN, on_BL)

    def encode(self, numbers_BN: Floats, on_BL: NDArray[Any]) -> Floats:
        """What `read_situations` gives -> context_BX."""
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
