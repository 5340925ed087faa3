"""What is known of a catalogue's items, by column: numbers, and texts and flags as codes.

A column is made when a rule first asks for it. Shapes: I items (rows), N entries (an item may have several texts).
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from actors.features.features import Floats, Ints

Kind: TypeAlias = Literal["number", "text", "flag"]
Mask: TypeAlias = NDArray[np.bool_]

TEXTS = ("provider_id", "category", "brand")
MOMENTS = ("created_at", "expires_at")
ATTRIBUTE = "attributes."
_MASKS = 32
_LONG = 20_000  # items from which a column is not made on the event loop
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Column:
    """numbers_I: NaN where there is none. codes: of each text and flag there is; row_N has the value code_N."""

    numbers_I: Floats
    codes: dict[str | bool, int]
    row_N: Ints
    code_N: Ints

    @cached_property
    def kinds(self) -> frozenset[Kind]:
        """Of the values that there are."""
        found: set[Kind] = {"flag" if isinstance(value, bool) else "text" for value in self.codes}
        return frozenset(found | {"number"} if not np.isnan(self.numbers_I).all() else found)

    @classmethod
    def of(cls, items: int, values: list[Any], row_N: Ints, place_N: Ints) -> "Column":
        """Item row_N has values[place_N]; a list is each of its texts, null is nothing."""
        codes: dict[str | bool, int] = {}
        code_P = [_codes(value, codes) for value in values]
        number_P = np.array([value if _is_number(value) else np.nan for value in values], np.float64)
        numbers_I = np.full(items, np.nan)
        numbers_I[row_N] = number_P[place_N]
        count_P = np.array([len(found) for found in code_P], np.int64)
        start_P = np.cumsum(count_P) - count_P
        count_N = count_P[place_N]
        within_N = np.arange(count_N.sum()) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        code_N = np.array([code for found in code_P for code in found], np.int64)
        entry_N = np.repeat(start_P[place_N], count_N) + within_N
        return cls(numbers_I, codes, np.repeat(row_N, count_N), code_N[entry_N])

    def among(self, values: Iterable[str | bool | float]) -> Mask:
        """Items that have one of the values."""
        texts = [self.codes[value] for value in values if isinstance(value, str | bool) and value in self.codes]
        numbers = [value for value in values if not isinstance(value, str | bool)]
        mask_I: Mask = np.isin(self.numbers_I, numbers) if numbers else np.zeros(len(self.numbers_I), np.bool_)
        if texts:
            mask_I[self.row_N[np.isin(self.code_N, texts)]] = True
        return mask_I


class Part:
    """The columns of a table of items (`records.ITEMS`), and masks made of them lately."""

    def __init__(self, items: pa.Table) -> None:
        self.items = items
        self._columns: dict[str, Column] = {}
        self._masks: OrderedDict[Hashable, Mask] = OrderedDict()

    @property
    def rows(self) -> int:
        return int(self.items.num_rows)

    def has(self, name: str) -> bool:
        """Whether the column is made."""
        return name in self._columns

    def column(self, name: str) -> Column:
        if name not in self._columns:
            self._columns[name] = self._made(name)
        return self._columns[name]

    def mask(self, key: Hashable, make: Callable[["Part"], Mask]) -> Mask:
        """`make(self)`, kept under `key`; not to be changed."""
        found = self._masks.get(key)
        if found is None:
            found = self._masks[key] = make(self)
            while len(self._masks) > _MASKS:
                self._masks.popitem(last=False)
        return found

    def _made(self, name: str) -> Column:
        attribute = name.startswith(ATTRIBUTE)
        source = "attributes" if attribute else name
        if source not in self.items.column_names:
            return Column.of(self.rows, [], _NONE, _NONE)
        values = self.items[source].combine_chunks()
        if attribute:
            return _attribute(values, name.removeprefix(ATTRIBUTE))
        if name in TEXTS:
            encoded = values.dictionary_encode()
            place_N = encoded.indices.drop_null().to_numpy().astype(np.int64)
            return Column.of(len(values), encoded.dictionary.to_pylist(), _rows(values.is_valid()), place_N)
        if name in MOMENTS:
            values = values.cast(pa.timestamp("us", "UTC")).cast(pa.int64())
        numbers = pc.fill_null(values.cast(pa.float64(), safe=False), float("nan"))
        return Column(numbers.to_numpy(), {}, _NONE, _NONE)


class Columns:
    """The columns of a catalogue: those of its first items, and of the items after them."""

    def __init__(self, base: Part, more: Part | None = None) -> None:
        self._base = base
        self._more = more

    def followed(self, items: pa.Table) -> "Columns":
        """These rows and then those of `items`; nothing is made again of the first ones."""
        if self._more is not None:
            items = pa.concat_tables([self._more.items, items], promote_options="default").combine_chunks()
        return Columns(self._base, Part(items))

    def kinds(self, name: str) -> frozenset[Kind]:
        return frozenset[Kind]().union(*(part.column(name).kinds for part in self._parts))

    def mask(self, key: Hashable, make: Callable[[Part], Mask]) -> Mask:
        """The masks of the rows, one after another; not to be changed."""
        masks = [part.mask(key, make) for part in self._parts]
        return masks[0] if len(masks) == 1 else np.concatenate(masks)

    def unread(self, names: Iterable[str]) -> list[str]:
        """Which of these columns take a while to make, up to a second for a million items, and are not made yet."""
        return [name for name in names if any(part.rows > _LONG and not part.has(name) for part in self._parts)]

    def read(self, names: Iterable[str]) -> None:
        """Make columns."""
        for name in names:
            for part in self._parts:
                part.column(name)

    @cached_property
    def ends_E(self) -> Floats:
        """Every moment at which an item expires, ascending, microseconds since 1970."""
        ends = np.concatenate([part.column("expires_at").numbers_I for part in self._parts])
        return np.unique(ends[~np.isnan(ends)])

    @property
    def _parts(self) -> tuple[Part, ...]:
        return (self._base,) if self._more is None else (self._base, self._more)


def _attribute(pairs: Any, name: str) -> Column:
    """A column of a map of JSON texts, of which each different one is read once."""
    at_N = _rows(pc.fill_null(pc.equal(pairs.keys, name), False))
    row_N = np.searchsorted(pairs.offsets.to_numpy(), at_N, side="right") - 1
    inside_N = (row_N >= 0) & (row_N < len(pairs))  # the keys of a slice are those of the whole array
    encoded = pairs.items.take(pa.array(at_N[inside_N])).dictionary_encode()
    values = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    return Column.of(len(pairs), values, row_N[inside_N], encoded.indices.to_numpy().astype(np.int64))


def _rows(mask: Any) -> Ints:
    return np.flatnonzero(mask.to_numpy(zero_copy_only=False))


def _codes(value: Any, codes: dict[str | bool, int]) -> list[int]:
    texts = value if isinstance(value, list) else [value]
    return [codes.setdefault(text, len(codes)) for text in texts if isinstance(text, str | bool)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
