"""A column of any type -> the type of the contract, with a fault for every value that does not fit.

Shapes: N rows.
"""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import SchemaError
from cluster.faults import Faults

STAMP = pa.timestamp("us", "UTC")
_FORMATS = ("%m/%d/%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y", "%d/%m/%Y")
_MISSING = {"", "?", "na", "n/a", "nan", "null", "none"}


def plain_array(column: pa.ChunkedArray) -> pa.Array:
    """One array, strings as `string`, dictionaries decoded."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type):
        column = column.cast(pa.string())
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole


def by_value(array: pa.Array, change: Callable[[Any], Any], type_: pa.DataType) -> pa.Array:
    """`change` applied once to each distinct value; null stays null."""
    coded = array.dictionary_encode()
    values = pa.array([change(value) for value in coded.dictionary.to_pylist()], type_)
    return values.take(coded.indices)


def _scalars(name: str, column: pa.ChunkedArray, expected: str) -> pa.Array:
    """Raises SchemaError where the column holds lists, maps, structures or bytes."""
    array = plain_array(column)
    if pa.types.is_nested(array.type) or pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        raise SchemaError(f"{name}: expected a column of {expected}, found {array.type}; map another column")
    return array


def texts(name: str, column: pa.ChunkedArray) -> pa.Array:
    """Ids and labels as text: whole numbers without a decimal point, blanks at the ends removed, empty is null."""
    array = _scalars(name, column, "text")
    if pa.types.is_string(array.type):
        trimmed = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
        distinct = pc.unique(array).drop_null()
        if len(distinct) and pc.all(pc.match_substring_regex(distinct, r"^\d+\.0$")).as_py():
            array = pc.utf8_slice_codeunits(array, 0, -2)
        return array
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), pa.scalar(None, array.type), array)
        values = array.drop_null()
        whole = pc.and_(pc.less(pc.abs(values), 2.0**63), pc.equal(values, pc.round(values)))
        if pc.all(whole).as_py() is not False:
            array = array.cast(pa.int64(), safe=False)
    return array.cast(pa.string())


def numbers(name: str, column: pa.ChunkedArray, faults: Faults) -> pa.Array:
    """Float64 values; null stays null; a value that is no number is a fault and becomes null."""
    array = _scalars(name, column, "numbers")
    if pa.types.is_temporal(array.type):
        raise SchemaError(f"{name}: expected a column of numbers, found {array.type}; map another column")
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_null(array.type) or pa.types.is_primitive(array.type) or pa.types.is_decimal(array.type):
        return array.cast(pa.float64(), safe=False)
    found = by_value(array, _number, pa.float64())
    faults.add(pc.and_(array.is_valid(), found.is_null()), f"{name}: expected a number", array)
    return found


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return {"true": 1.0, "false": 0.0}.get(str(value).strip().lower())


def times(name: str, column: pa.ChunkedArray, faults: Faults) -> pa.Array:
    """Microseconds UTC from timestamps, dates, ISO text, month/day/year text or seconds (to nanoseconds) since 1970."""
    array = _scalars(name, column, "times")
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(STAMP)
    if pa.types.is_date(array.type):
        return array.cast(pa.timestamp("us")).cast(STAMP)
    if not pa.types.is_string(array.type):
        stamps = numbers(name, column, faults)
        unit = _seconds_per_unit(stamps)
        found = by_value(stamps, lambda value: _instant(value * unit), STAMP)
    else:
        found = _parsed(array)
    faults.add(pc.and_(array.is_valid(), found.is_null()), f"{name}: expected a date and time", array)
    return found


def _parsed(array: pa.Array) -> pa.Array:
    """The reading of the texts, all by the same form, that leaves the fewest unread."""
    if (found := by_value(array, _iso, STAMP)).null_count == array.null_count:
        return found
    for form in _FORMATS:
        try:
            stamps = pc.strptime(array, format=form, unit="us", error_is_null=True).cast(STAMP)
        except pa.ArrowException:
            continue
        found = min(found, stamps, key=lambda a: a.null_count)
    epoch = Faults(len(array))
    stamps = numbers("", pa.chunked_array([array]), epoch)
    unit = _seconds_per_unit(stamps)
    return min(found, by_value(stamps, lambda v: _instant(v * unit), STAMP), key=lambda a: a.null_count)


def _iso(text: str) -> datetime | None:
    try:
        when = datetime.fromisoformat(text.strip())
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _instant(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _seconds_per_unit(stamps: pa.Array) -> float:
    """Seconds, milli-, micro- or nanoseconds since 1970, told apart by size (a stamp lies before the year 5138)."""
    middle = pc.quantile(pc.abs(stamps), 0.5)[0].as_py() or 0.0
    return next((unit for unit in (1.0, 1e-3, 1e-6) if middle * unit < 1e11), 1e-9)


def lists(name: str, column: pa.ChunkedArray, faults: Faults) -> pa.Array:
    """Lists of ids from Arrow lists, JSON text such as ["a", "b"], or ids with bars between: a|b."""
    array = plain_array(column)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths))]).astype(np.int32)
        flat = texts(name, pa.chunked_array([pc.list_flatten(array)]))
        return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=array.is_null())
    found = by_value(texts(name, column), _ids, pa.list_(pa.string()))
    faults.add(pc.and_(array.is_valid(), found.is_null()), f"{name}: expected a list of item ids", array)
    return found


def _ids(text: str) -> list[str] | None:
    if not text.startswith("["):
        return [part.strip() for part in text.split("|")]
    try:
        return [str(value) for value in json.loads(text)]
    except ValueError:
        return None


def integers(name: str, column: pa.ChunkedArray, faults: Faults, type_: pa.DataType) -> pa.Array:
    found = numbers(name, column, faults)
    whole = pc.and_(pc.equal(found, pc.round(found)), pc.less(pc.abs(found), 2.0**31))
    wrong = pc.invert(pc.fill_null(whole, True))
    faults.add(wrong, f"{name}: expected a whole number", found)
    return pc.if_else(wrong, pa.scalar(None, pa.float64()), found).cast(type_)


def guessed(column: pa.ChunkedArray) -> str:
    """What a text column holds: `number` where at least 99 % of its values are (codes such as 007 are not), else
    `boolean` or `text`."""
    counts = pc.value_counts(plain_array(column).drop_null())
    by_text = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
    known = {value: count for value, count in by_text if value.strip().lower() not in _MISSING}
    if not known:
        return "text"
    if {v.lower() for v in known} <= {"true", "false"}:
        return "boolean"
    if any(re.match(r"\s*-?0\d", v) for v in known):
        return "text"
    numeric = sum(count for v, count in known.items() if _number(v) is not None)
    return "number" if numeric >= 0.99 * sum(known.values()) else "text"


def missing(array: pa.Array) -> pa.Array:
    """Text with the usual words for a missing value made null."""
    return by_value(array, lambda v: None if v.strip().lower() in _MISSING else v, pa.string())
