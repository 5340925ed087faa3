"""Columns -> the context of every event, as Arrow maps of JSON text, without a loop over rows.

Shapes: N rows, X columns.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.errors import SchemaError
from cluster.faults import Faults
from cluster.importers.columns import by_value, guessed, missing, numbers, plain_array

LEAST_LISTS = 0.2
"""Share of the distinct texts of a column of lists that have a bar."""
MAP = pa.map_(pa.string(), pa.string())


@dataclass(frozen=True)
class Coded:
    """One column: index into `json` per row, -1 where the row has no value."""

    code_N: NDArray[np.int64]
    json: pa.Array

    def take(self, rows: NDArray[np.int64]) -> "Coded":
        return Coded(self.code_N[rows], self.json)


def coded_texts(values: Sequence[str | None]) -> Coded:
    """Coded JSON from JSON texts, one a row."""
    column = pa.array(values, pa.string()).dictionary_encode()
    return Coded(np.asarray(column.indices.fill_null(-1)).astype(np.int64), column.dictionary)


def code(name: str, column: pa.ChunkedArray, text: bool, faults: Faults) -> Coded | None:
    """Numbers stay numbers, categories text, lists lists; NaN and null are absent; infinity is a fault.

    Args:
        name: of the column, for faults.
        column: N values.
        text: whether the values are text whose type is to be guessed.
        faults: where a value that does not fit is told.

    Returns:
        None for a type that a context cannot hold (structures, bytes, lists of numbers).
    """
    array = plain_array(column)
    if pa.types.is_string(array.type) and text:
        kind = guessed(column)
        array = missing(array)
        if kind == "number":
            array = numbers(name, pa.chunked_array([array]), faults)
        elif kind == "boolean":
            array = by_value(array, lambda v: v.strip().lower() == "true", pa.bool_())
        elif _barred(array):
            array = by_value(array, lambda v: [part.strip() for part in v.split("|")], pa.list_(pa.string()))
    if pa.types.is_floating(array.type):
        if array.type == pa.float16():
            array = array.cast(pa.float32())
        infinite = pc.fill_null(pc.is_inf(array), False)
        faults.add(infinite, f"{name}: expected a finite number", array)
        array = pc.if_else(pc.is_finite(array), array, pa.scalar(None, array.type))
    values = _json(array)
    if values is None:
        return None
    column = values.dictionary_encode()
    return Coded(np.asarray(column.indices.fill_null(-1)).astype(np.int64), column.dictionary)


def _barred(array: pa.Array) -> bool:
    """Whether texts are lists with bars between, such as Comedy|Drama: many have one, and the parts come again."""
    values = pc.unique(array).drop_null()
    if (pc.sum(pc.match_substring(values, "|")).as_py() or 0) < LEAST_LISTS * len(values):
        return False
    parts = pc.utf8_trim_whitespace(pc.list_flatten(pc.split_pattern(values, "|")))
    return len(parts) >= 1.5 * len(pc.unique(parts))


def _json(array: pa.Array) -> pa.Array | None:
    kind = array.type
    if pa.types.is_string(kind):
        return by_value(array, lambda v: json.dumps(v, ensure_ascii=False), pa.string())
    if pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return array.cast(pa.string())
    if pa.types.is_decimal(kind):
        return array.cast(pa.float64()).cast(pa.string())
    if pa.types.is_temporal(kind) or pa.types.is_null(kind):
        return by_value(array.cast(pa.string()), json.dumps, pa.string())
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if listed and (pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)):
        lists = (None if v is None else json.dumps(v, ensure_ascii=False) for v in array.to_pylist())
        return pa.array(lists, pa.string())
    return None


def maps(columns: Mapping[str, Coded], rows: int) -> pa.Array:
    """The N maps of X columns; a row's absent values have no key."""
    names = list(columns)
    if not names:
        return pa.MapArray.from_arrays(pa.array(np.zeros(rows + 1, np.int32)), *[pa.array([], pa.string())] * 2)
    code_NX = np.stack([columns[name].code_N for name in names], axis=1)
    there_NX = code_NX >= 0
    sizes = [len(columns[name].json) for name in names]
    code_NX = code_NX + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    name_NX = np.broadcast_to(np.arange(len(names)), code_NX.shape)
    offsets = np.concatenate([[0], np.cumsum(there_NX.sum(axis=1))]).astype(np.int32)
    keys = pa.array(names, pa.string()).take(pa.array(name_NX[there_NX]))
    every = pa.concat_arrays([columns[name].json for name in names])
    return pa.MapArray.from_arrays(pa.array(offsets), keys, every.take(pa.array(code_NX[there_NX])))


def from_column(column: pa.ChunkedArray, faults: Faults) -> dict[str, Coded]:
    """A column that holds whole contexts (a map, a structure or JSON text) as one coded column per key."""
    array = plain_array(column)
    if pa.types.is_null(array.type):
        return {}
    if pa.types.is_struct(array.type):
        parts = {array.type.field(i).name: pa.chunked_array([part]) for i, part in enumerate(array.flatten())}
        found = {name: code(f"context.{name}", part, False, faults) for name, part in parts.items()}
        return {name: coded for name, coded in found.items() if coded is not None}
    if pa.types.is_string(array.type):
        array, text = by_value(array, _pairs, MAP), array
        faults.add(pc.and_(text.is_valid(), array.is_null()), "context: expected a JSON object of plain values", text)
    if not pa.types.is_map(array.type):
        raise SchemaError(f"context: expected a map, a structure or JSON text, found {array.type}")
    offsets = np.asarray(array.offsets)
    row_F = np.repeat(np.arange(len(array)), np.diff(offsets))
    flat = slice(int(offsets[0]), int(offsets[-1]))  # keys and items are those of the whole, offsets of the slice
    keys = array.keys[flat].dictionary_encode()
    values = by_value(array.items[flat].cast(pa.string()), _as_json, pa.string())
    columns: dict[str, Coded] = {}
    for i, name in enumerate(keys.dictionary.to_pylist()):
        at_F = np.asarray(keys.indices) == i
        column = values.filter(pa.array(at_F)).dictionary_encode()
        code_N = np.full(len(array), -1, np.int64)
        code_N[row_F[at_F]] = np.asarray(column.indices.fill_null(-1))
        columns[name] = Coded(code_N, column.dictionary)
    return columns


def _pairs(text: str) -> list[tuple[str, str]] | None:
    try:
        found = json.loads(text, parse_constant=float)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(_plain(value) for value in found.values()):
        return None
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in found.items() if value is not None]


def _plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, list):
        return all(isinstance(part, str) for part in value)
    return value is None or isinstance(value, bool | int | str)


def _as_json(text: str) -> str | None:
    """JSON of a plain value as it is, any other text as a JSON string."""
    try:
        value = json.loads(text, parse_constant=float)
    except ValueError:
        return json.dumps(text, ensure_ascii=False)
    if value is None:
        return None
    return text if _plain(value) else json.dumps(text, ensure_ascii=False)
