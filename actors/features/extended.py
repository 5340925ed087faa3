"""A catalogue that grows without a copy: the rows that are there, and after them those of later items."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Ints


class Extended:
    """Rows of `base` and then those of `more`, as far as `take`, `len` and `shape` go.

    The last row of `base` stands for an unknown item and is not counted among the items: it is row -1 here too.
    axis: the one that counts rows.
    """

    def __init__(self, base: NDArray[Any], more: NDArray[Any], axis: int = 0) -> None:
        self.base, self.more, self.axis = base, more, axis
        self._items = base.shape[axis] - 1

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.base.shape)
        shape[self.axis] += self.more.shape[self.axis]
        return tuple(shape)

    def take(self, rows: Ints, axis: int = 0) -> NDArray[Any]:
        """As of an array whose last row is the unknown item's."""
        later = rows >= self._items
        taken = self.base.take(np.where(later, -1, rows), axis=axis)
        if later.any():
            place = (slice(None),) * axis
            taken[(*place, later)] = self.more.take(rows[later] - self._items, axis=axis)
        return taken


def extend(rows: Any, more: Any, axis: int = 0) -> Any:
    """`rows` (an array or Extended, its last row an unknown item's) and after them `more` (an array that has such a
    row too, which is dropped). Answers in the name of an array: whoever takes rows need not know."""
    added = np.delete(more, -1, axis=axis)
    if isinstance(rows, Extended):
        return Extended(rows.base, np.concatenate([rows.more, added], axis=axis), axis)
    return Extended(rows, added, axis)


def widened(rows: Any, width: int) -> Any:
    """Rows (axis 0) with zeros after their columns."""
    if isinstance(rows, Extended):
        return Extended(widened(rows.base, width), widened(rows.more, width))
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


class Places(Mapping[str, int]):
    """Row of each id: `later` says more than `base`, and None that there is no such item any more."""

    def __init__(self, base: Mapping[str, int], later: Mapping[str, int | None]) -> None:
        self._base, self._later = base, later

    def __getitem__(self, name: str) -> int:
        found = self._later[name] if name in self._later else self._base[name]
        if found is None:
            raise KeyError(name)
        return found

    def get(self, name: str, default: Any = None) -> Any:
        if name in self._later:
            found = self._later[name]
            return default if found is None else found
        return self._base.get(name, default)

    def __contains__(self, name: object) -> bool:
        return self._later[name] is not None if name in self._later else name in self._base  # type: ignore[index]

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._base if name not in self._later)
        yield from (name for name, row in self._later.items() if row is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def changed(self, later: Mapping[str, int | None]) -> "Places":
        return Places(self._base, {**self._later, **later})


def places(row: Mapping[str, int], later: Mapping[str, int | None]) -> Mapping[str, int]:
    """`row` with what later changes say of it."""
    return row.changed(later) if isinstance(row, Places) else Places(row, later)
