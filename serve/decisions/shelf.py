"""What is eligible of a large catalogue: all of it but a few, as rows, never as a million names."""

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Ints
from serve.decisions.catalogue import Catalogue


class Shelf(Sequence[str]):
    """The catalogue's items in their order, without those that are closed.

    Args:
        closed: ids that are not eligible; those that the catalogue does not have are no matter.
        passed_I: rows of the feature map that rules let pass, None for all.
    """

    def __init__(
        self, catalogue: Catalogue, closed: Collection[str] = (), passed_I: NDArray[np.bool_] | None = None
    ) -> None:
        self.catalogue = catalogue
        row = catalogue.feature_map.row
        self._closed = np.array(sorted({row[name] for name in closed if name in row}), np.int64)
        self._passed_I = passed_I

    @cached_property
    def open_I(self) -> NDArray[np.bool_] | None:
        """Which rows of the feature map are eligible; None where all are."""
        kept_I, passed_I = self.catalogue.open_I, self._passed_I
        if passed_I is not None and kept_I is not None:
            open_I = passed_I & kept_I
        elif passed_I is not None or kept_I is not None:
            open_I = (kept_I if passed_I is None else passed_I).copy()  # type: ignore[union-attr]
        elif not len(self._closed):
            return None
        else:
            open_I = np.ones(len(self.catalogue.feature_map.item_ids), np.bool_)
        open_I[self._closed] = False
        return open_I

    @cached_property
    def rows(self) -> Ints:
        """The eligible rows, in order."""
        if self.open_I is None:
            return np.arange(len(self.catalogue.feature_map.item_ids))
        return np.flatnonzero(self.open_I)

    def names(self, rows: Ints) -> list[str]:
        ids = self.catalogue.feature_map.item_ids
        return [ids[row] for row in rows.tolist()]

    def beyond(self, rows: Ints, places: Sequence[int]) -> Ints:
        """The eligible rows at these places of the order of those that are not among `rows` (sorted)."""
        taken = np.searchsorted(self.rows, rows)
        found = []
        for place in places:
            for earlier in taken.tolist():
                place += place >= earlier
            found.append(place)
        return self.rows[np.array(found, np.int64)]

    def __len__(self) -> int:
        if self._passed_I is None:
            return len(self.catalogue) - len(self._closed)
        return len(self.rows)

    def __contains__(self, name: object) -> bool:
        row = self.catalogue.feature_map.row.get(name) if isinstance(name, str) else None
        return row is not None and (self.open_I is None or bool(self.open_I[row]))

    def __iter__(self) -> Iterator[str]:
        ids, open_I = self.catalogue.feature_map.item_ids, self.open_I
        return (name for row, name in enumerate(ids) if open_I is None or open_I[row])

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return self.names(self.rows[place])
        return self.catalogue.feature_map.item_ids[int(self.rows[place])]


def shelved(
    catalogue: Catalogue, closed: Collection[str], passed_I: NDArray[np.bool_] | None, part: bool = False
) -> Sequence[str]:
    """What is eligible of a catalogue, as in `Shelf`: a shelf where a part of it is scored (`part`, or because it is
    large), else its ids."""
    shelf = Shelf(catalogue, closed, passed_I)
    if part or (catalogue.retrieval is not None and catalogue.large is not None and len(shelf) > catalogue.large.above):
        return shelf
    return catalogue.ids if passed_I is None and not closed else shelf[:]
