"""Named values of any JSON type -> numbers and codes of levels, by what the fit rows held.

Fallbacks, so that no context can fail: a key that is absent, null, of the wrong type, not finite or beyond 1e100
is *missing*; a level not seen in fit, or too rare there, is *other*.

Shapes: B rows, N number columns, L codes of levels over all columns.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from actors.features.features import Floats, Ints
from cluster.records import Value

LARGEST = 1e100

Table = Mapping[str, tuple[Ints, list[Value]]]
"""Column name -> (index into the distinct values, -1 where the key is absent; the distinct values)."""


def number_of(value: Any) -> float:
    """A finite number, or NaN for missing. Numeric text counts as its number, booleans as 0 and 1."""
    if isinstance(value, bool | int | float | str):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            return math.nan
        return number if abs(number) <= LARGEST else math.nan
    return math.nan


def level_of(value: Any) -> str | None:
    """The text that names a level, or None for missing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    number = number_of(value)
    return None if math.isnan(number) else f"{number:.12g}"


@dataclass(frozen=True)
class Column:
    """How one key is read. kind: `number`, `category` (one level), `list` (any number of levels)."""

    name: str
    kind: str
    levels: tuple[str, ...] = ()
    other: bool = False
    missing: bool = False

    @property
    def names(self) -> list[str]:
        """A name for each code."""
        rest = ["(other)"] * self.other + ["(missing)"] * self.missing
        return [f"{self.name}={level}" for level in [*self.levels, *rest]]

    def codes(self, value: Any) -> list[int]:
        """Positions in `names` that are on for this value; none for what has no name."""
        number = {level: i for i, level in enumerate(self.levels)}
        return _codes(self, number, 0, value)


def _codes(column: Column, number: Mapping[str, int], start: int, value: Any) -> list[int]:
    end = start + len(column.levels)
    if column.kind == "list":
        parts = value if isinstance(value, list) else []
        found = {number.get(level, end if column.other else -1) for level in map(level_of, parts) if level is not None}
        return sorted(found - {-1}) or ([end + column.other] if column.missing and not parts else [])
    level = level_of(value)
    if level is None:
        return [end + column.other] if column.missing else []
    code = number.get(level, end if column.other else -1)
    return [code] if code >= 0 else []


def infer(name: str, values: Iterable[tuple[Value, int]], rows: int, limit: int) -> Column | None:
    """The column that (value, count) pairs of `rows` fit rows ask for; None where it cannot tell rows apart.

    A column is a list if most of its values are; a number if 95 % of them are numbers or booleans, or numeric
    texts with more distinct values than `limit`; else a category. A level needs two rows and a thousandth of
    all; the commonest `limit` are kept (ties by text).
    """
    kinds: Counter[str] = Counter()
    levels: Counter[str] = Counter()
    distinct_numbers: set[float] = set()
    for value, count in values:
        parts = value if isinstance(value, list) else [value]
        for level in {level_of(part) for part in parts} - {None}:
            levels[str(level)] += count
        number = number_of(value)
        text = isinstance(value, str)
        kinds["list" if isinstance(value, list) else "none" if value is None else "text" if text else "raw"] += count
        if not math.isnan(number):
            kinds["numeric text" if text else "number"] += count
            distinct_numbers.add(number)
    seen = kinds["list"] + kinds["text"] + kinds["raw"]
    if not seen:
        return None
    if kinds["list"] > seen / 2:
        return _levelled(name, "list", levels, rows, rows - kinds["list"], limit)
    numbers = kinds["number"] + (kinds["numeric text"] if len(distinct_numbers) > limit else 0)
    if numbers >= 0.95 * seen:
        return Column(name, "number") if len(distinct_numbers) > 1 or numbers < rows else None
    return _levelled(name, "category", levels, rows, rows - sum(levels.values()), limit)


def _levelled(name: str, kind: str, levels: Counter[str], rows: int, missing: int, limit: int) -> Column | None:
    least = max(2, math.ceil(rows / 1_000))
    ranked = sorted((level for level in levels if levels[level] >= least), key=lambda v: (-levels[v], v))
    kept = tuple(ranked[:limit])
    rest = sum(levels.values()) - sum(levels[level] for level in kept)
    column = Column(name, kind, kept, other=bool(kept) and rest >= least, missing=bool(kept) and missing >= least)
    constant = kind == "category" and len(column.names) < 2
    return None if constant or not kept else column


@dataclass(frozen=True)
class Reader:
    """Columns read together: numbers in their order, codes counted through all columns."""

    columns: tuple[Column, ...]
    _numbers: list[str] = field(init=False, repr=False, compare=False)
    _levels: list[tuple[Column, dict[str, int], int]] = field(init=False, repr=False, compare=False)
    width: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers, levels, start = [], [], 0
        for column in self.columns:
            if column.kind == "number":
                numbers.append(column.name)
            else:
                levels.append((column, {v: start + i for i, v in enumerate(column.levels)}, start))
                start += len(column.names)
        object.__setattr__(self, "_numbers", numbers)
        object.__setattr__(self, "_levels", levels)
        object.__setattr__(self, "width", start)

    @property
    def number_names(self) -> list[str]:
        return list(self._numbers)

    @property
    def code_names(self) -> list[str]:
        return [name for column, _, _ in self._levels for name in column.names]

    def read(self, values: Mapping[str, Any]) -> tuple[list[float], list[int]]:
        """One row -> numbers (N, NaN missing) and the codes that are on."""
        numbers = [number_of(values.get(name)) for name in self._numbers]
        codes: list[int] = []
        for column, number, start in self._levels:
            codes += _codes(column, number, start, values.get(column.name))
        return numbers, codes

    def read_table(self, table: Table, rows: int) -> tuple[Floats, NDArray[np.bool_]]:
        """Columns -> numbers_BN (NaN missing), on_BL. Every distinct value is read once."""
        numbers_BN = np.full((rows, len(self._numbers)), np.nan)
        for n, name in enumerate(self._numbers):
            if name in table:
                index_B, values = table[name]
                numbers_BN[:, n] = np.array([*map(number_of, values), math.nan])[index_B]
        on_BL = np.zeros((rows, self.width), np.bool_)
        for column, number, start in self._levels:
            index_B, values = table.get(column.name, (np.full(rows, -1), []))
            width = len(column.names)
            on_VL = np.zeros((len(values) + 1, width), np.bool_)
            for v, value in enumerate([*values, None]):
                on_VL[v, [code - start for code in _codes(column, number, start, value)]] = True
            on_BL[:, start : start + width] = on_VL[index_B]
        return numbers_BN, on_BL


def fit_reader(table: Table, rows: int, limit: int) -> Reader:
    """The columns of a table that are worth reading, in the order of their names."""
    columns = []
    for name in sorted(table):
        index_B, values = table[name]
        counts = np.bincount(index_B[index_B >= 0], minlength=len(values))
        pairs = [(value, int(count)) for value, count in zip(values, counts, strict=True) if count]
        column = infer(name, pairs, rows, limit)
        if column is not None:
            columns.append(column)
    return Reader(tuple(columns))


def context_table(maps: pa.ChunkedArray | pa.Array) -> Table:
    """A column of map<string, JSON text> -> its keys as columns. Every distinct text is parsed once."""
    return _map_table(maps, json.loads)


def attribute_table(maps: pa.ChunkedArray | pa.Array) -> Table:
    """A column of map<string, string> -> its keys as columns. A text that is JSON counts as its value."""
    return _map_table(maps, _attribute)


def _attribute(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _map_table(maps: pa.ChunkedArray | pa.Array, parse: Any) -> dict[str, tuple[Ints, list[Value]]]:
    whole = maps.combine_chunks() if isinstance(maps, pa.ChunkedArray) else maps
    rows = len(whole)
    places = np.flatnonzero(whole.is_valid().to_numpy(zero_copy_only=False))
    whole = whole.drop_null()
    if not len(whole):
        return {}
    ends = whole.offsets.to_numpy()
    parent_E = np.repeat(places, np.diff(ends))
    keys = whole.keys.slice(ends[0], ends[-1] - ends[0]).dictionary_encode()
    texts = whole.items.slice(ends[0], ends[-1] - ends[0])
    key_E = keys.indices.to_numpy()
    table: dict[str, tuple[Ints, list[Value]]] = {}
    for k, name in enumerate(keys.dictionary.to_pylist()):
        on_E = key_E == k
        coded = texts.filter(pa.array(on_E)).dictionary_encode()
        index_B = np.full(rows, -1, np.int64)
        index_B[parent_E[on_E]] = pc.fill_null(coded.indices, -1).to_numpy()
        table[name] = (index_B, [parse(text) for text in coded.dictionary.to_pylist()])
    return table
