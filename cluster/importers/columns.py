"""A column of any type -> the type of the contract, with a fault for every value that does not fit.

Shapes: N rows.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import SchemaError
from cluster.faults import Faults
from cluster.importers import moments
from cluster.importers.moments import STAMP
from cluster.importers.numerals import reading

NOTHING = frozenset(("", "?", "n/a", "#n/a", "#na", "nan", "-nan", "nat", "null", "(null)", "<null>", "<na>", "\\n"))
"""Words for a missing value that nothing is called by, in lower case."""
MISSING = NOTHING | {"na", "none", "nil", "n.a.", "-", "--", "—", "."}
"""These mean that too among numbers, times and people; an item or a class may be called so."""
_TRUTH = {"true": 1.0, "false": 0.0}
_ANSWERS = _TRUTH | {"yes": 1.0, "no": 0.0, "y": 1.0, "n": 0.0, "t": 1.0, "f": 0.0, "1": 1.0, "0": 0.0}
_PRINTED = re.compile(r"""'([^']*)'|"([^"]*)"|([^\s,'"]+)""")


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


def texts(name: str, column: pa.ChunkedArray, absent: frozenset[str] = frozenset()) -> pa.Array:
    """Ids and labels as text: whole numbers without a decimal point, blanks at the ends removed, empty is null.

    Args:
        absent: words, in lower case, that are null too.
    """
    array = _scalars(name, column, "text")
    if pa.types.is_string(array.type):
        trimmed = pc.utf8_trim_whitespace(array)
        array = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
        if absent:
            array = by_value(array, lambda v: None if v.lower() in absent else v, pa.string())
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
    """Float64 values; null stays null; a value that is no number is a fault and becomes null.

    Texts are numbers as `numerals` reads them, true or false, or all of them yes or no; words for a missing value are
    null.
    """
    array = _scalars(name, column, "numbers")
    if pa.types.is_temporal(array.type):
        raise SchemaError(f"{name}: expected a column of numbers, found {array.type}; map another column")
    if pa.types.is_boolean(array.type):
        return array.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_null(array.type) or pa.types.is_primitive(array.type) or pa.types.is_decimal(array.type):
        return array.cast(pa.float64(), safe=False)
    array = missing(array)
    known = _counts(array)
    words = _ANSWERS if {v.strip().lower() for v in known} <= set(_ANSWERS) else _TRUTH
    read = reading(known)
    found = by_value(array, lambda v: words.get(v.strip().lower()) if (n := read(v)) is None else n, pa.float64())
    faults.add(pc.and_(array.is_valid(), found.is_null()), f"{name}: expected a number", array)
    return found


def _counts(array: pa.Array) -> dict[str, int]:
    counts = pc.value_counts(array.drop_null())
    return dict(zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True))


def times(name: str, column: pa.ChunkedArray, faults: Faults) -> pa.Array:
    """Microseconds UTC from timestamps, dates, texts and numbers; see `moments`."""
    array = _scalars(name, column, "times")
    if pa.types.is_timestamp(array.type):
        return array.cast(pa.timestamp("us", array.type.tz), safe=False).cast(STAMP)
    if pa.types.is_date(array.type):
        return array.cast(pa.timestamp("us")).cast(STAMP)
    if pa.types.is_string(array.type):
        array = missing(array)
        found = moments.of_texts(array)
        if found.null_count > array.null_count:
            counted = moments.of_numbers(numbers(name, pa.chunked_array([array]), Faults(len(array))))
            found = min((found, counted), key=lambda stamps: stamps.null_count)
    else:
        found = moments.of_numbers(numbers(name, column, faults))
    faults.add(pc.and_(array.is_valid(), found.is_null()), f"{name}: expected a date and time", array)
    return found


def lists(name: str, column: pa.ChunkedArray, faults: Faults) -> pa.Array:
    """Lists of ids from Arrow lists, or texts: JSON such as ["a", "b"], what Python or NumPy print, or ids with bars,
    semicolons, commas or blanks between (the first of these that any text of the column has)."""
    array = plain_array(column)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        array = array.cast(pa.list_(array.type.value_type))
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        offsets = np.concatenate([[0], np.cumsum(np.asarray(lengths))]).astype(np.int32)
        flat = texts(name, pa.chunked_array([pc.list_flatten(array)]))
        return pa.ListArray.from_arrays(pa.array(offsets), flat, mask=array.is_null())
    words = texts(name, column, NOTHING)
    bare = words.filter(pc.invert(pc.fill_null(pc.match_substring_regex(words, r"^[\[(]"), True)))
    mark = next((m for m in "|;," if pc.any(pc.match_substring(bare, m)).as_py()), None)
    parsed = {text: _ids(text, mark) for text in pc.unique(words).drop_null().to_pylist()}
    known = {part for parts in parsed.values() if parts and len(parts) > 1 for part in parts}
    words = by_value(words, lambda v: None if v.lower() in MISSING and v not in known else v, pa.string())
    found = by_value(words, parsed.get, pa.list_(pa.string()))
    faults.add(pc.and_(words.is_valid(), found.is_null()), f"{name}: expected a list of item ids", array)
    flat = texts(name, pa.chunked_array([found.values]))
    return pa.ListArray.from_arrays(found.offsets, flat, mask=found.is_null())


def _ids(text: str, mark: str | None) -> list[str] | None:
    if text[0] not in "[(":
        return [part.strip() for part in text.split(mark)]
    try:
        return [str(value) for value in json.loads(text)]
    except ValueError:
        whole = text[-1] == {"[": "]", "(": ")"}[text[0]]
        return [one or two or bare for one, two, bare in _PRINTED.findall(text[1:-1])] if whole else None


def integers(name: str, column: pa.ChunkedArray, faults: Faults, type_: pa.DataType) -> pa.Array:
    found = numbers(name, column, faults)
    whole = pc.and_(pc.equal(found, pc.round(found)), pc.less(pc.abs(found), 2.0**31))
    wrong = pc.invert(pc.fill_null(whole, True))
    faults.add(wrong, f"{name}: expected a whole number", found)
    return pc.if_else(wrong, pa.scalar(None, pa.float64()), found).cast(type_)


def guessed(column: pa.ChunkedArray) -> str:
    """What a text column holds: `number` where at least 99 % of its values are (codes such as 007 are not), else
    `boolean` or `text`."""
    known = _counts(missing(plain_array(column)))
    if not known:
        return "text"
    if {v.lower() for v in known} <= {"true", "false"}:
        return "boolean"
    if any(re.match(r"\s*-?0\d", v) for v in known):
        return "text"
    read = reading(known)
    numeric = sum(count for v, count in known.items() if read(v) is not None)
    return "number" if numeric >= 0.99 * sum(known.values()) else "text"


def missing(array: pa.Array) -> pa.Array:
    """Text with the usual words for a missing value made null."""
    return by_value(array, lambda v: None if v.strip().lower() in MISSING else v, pa.string())
