"""Rules of a request on what may be shown: conditions on the items' columns, all of which must hold.

An item without a value meets `!=` and `not_in`, and no other condition. A list attribute meets `==` and `in` where one
of its texts does.
"""

import operator
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from cluster.errors import RequestError
from serve.decisions.columns import ATTRIBUTE, MOMENTS, TEXTS, Columns, Kind, Mask, Part
from serve.messages import Condition

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXT, _NUMBER = frozenset[Kind](("text",)), frozenset[Kind](("number",))
_FIELDS = {**dict.fromkeys(TEXTS, _TEXT), "price": _NUMBER, **dict.fromkeys(MOMENTS, _NUMBER)}


def eligible(columns: Columns, conditions: Sequence[Condition], index: int) -> Mask:
    """The items that meet all conditions of request `index` of a call.

    Raises:
        RequestError: a field that is none, or a value or operator that does not fit it.
    """
    masks = [
        _mask(columns, condition, ("body", "requests", index, "where", i)) for i, condition in enumerate(conditions)
    ]
    return masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)


def is_field(name: str) -> bool:
    """Whether conditions may be on it."""
    return name in _FIELDS or (name.startswith(ATTRIBUTE) and name != ATTRIBUTE)


def open_at(columns: Columns, at_us: int) -> Mask | None:
    """The items that have not expired by then (microseconds since 1970); None for all."""
    ended = int(np.searchsorted(columns.ends_E, at_us, side="right"))
    if not ended:
        return None
    last = columns.ends_E[ended - 1]
    return columns.mask(("open", last), lambda part: ~(part.column("expires_at").numbers_I <= last))


def _mask(columns: Columns, condition: Condition, where: tuple[str | int, ...]) -> Mask:
    name, values = condition.field, _values(condition, where)
    if not is_field(name):
        raise RequestError((*where, "field"), f"{name!r} is none of {', '.join(_FIELDS)}, attributes.NAME")
    kinds = _FIELDS[name] if name in _FIELDS else columns.kinds(name)
    found = {_kind(value) for value in values}
    if kinds and not found <= kinds:
        raise RequestError((*where, "value"), f"{name} is a {' or '.join(sorted(kinds))}, not a {_kind(values[0])}")

    def make(part: Part) -> Mask:
        column = part.column(name)
        if condition.op in _ORDER:
            return np.asarray(_ORDER[condition.op](column.numbers_I, values[0]))
        found_I = column.among(values)
        return ~found_I if condition.op in ("!=", "not_in") else found_I

    return columns.mask((name, condition.op, tuple((_kind(value), value) for value in values)), make)


def _values(condition: Condition, where: tuple[str | int, ...]) -> list[Any]:
    """What a column is compared with."""
    value, many = condition.value, condition.op in ("in", "not_in")
    if isinstance(value, list) != many:
        raise RequestError((*where, "value"), f"{condition.op!r} needs {'a list' if many else 'one value, no list'}")
    values = value if isinstance(value, list) else [value]
    if condition.field in MOMENTS:
        values = [_moment(one, where) for one in values]
    if condition.op in _ORDER and _kind(values[0]) != "number":
        raise RequestError((*where, "value"), f"{condition.op!r} compares numbers, not a {_kind(values[0])}")
    return values


def _moment(value: object, where: tuple[str | int, ...]) -> float:
    """Microseconds since 1970."""
    try:
        return float((datetime.fromisoformat(str(value)) - _EPOCH) // timedelta(microseconds=1))
    except (ValueError, TypeError):  # no moment, or one without a zone
        raise RequestError((*where, "value"), f"{value!r} is no moment such as 2026-01-01T10:00:00Z") from None


def _kind(value: object) -> Kind:
    if isinstance(value, bool):
        return "flag"
    return "text" if isinstance(value, str) else "number"
