"""Words on values that can be read in two ways, so that whoever imports them sees which was taken.

Shapes: V distinct texts of a column.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from cluster.importers.columns import MISSING, NOTHING, guessed, plain_array
from cluster.importers.moments import either_way
from cluster.importers.roles import Roles
from cluster.importers.source import Source

AMOUNTS = ("price", "quantity", "reward", "propensity")
PEOPLE = ("user_id", "client_id", "session_id")
THINGS = ("item_id", "label")
_FORMS = {
    r"^[+-]?[1-9]\d{0,2}\.\d{3}$": "a decimal point (1.234 lies between 1 and 2); if it marks thousands, remove it",
    r"^[+-]?[1-9]\d{0,2}(,\d{3})+$": "marks at the thousands (1,234 is 1234); if they are decimals, write points",
    r"^\d,\d$": "a decimal comma (1,2 lies between 1 and 2); if these are two choices, write 1|2",
    r"^[1-9]\d{0,2} \d{3}$": "a blank at the thousands (1 234 is 1234); if these are codes, remove the blank",
}


def doubts(source: Source, roles: Roles) -> list[str]:
    """Notes on the columns of a source: numbers, days and words for a missing value."""
    of_role = {name: e.columns[0] for name, e in roles.expressions.items() if e.kind == "column"}
    amounts = [of_role[name] for name in AMOUNTS if name in of_role]
    amounts += [name for name in roles.context if source.text]
    asked = {*amounts, *(of_role[name] for name in (*PEOPLE, *THINGS) if name in of_role)}
    texts = {name: values for name in asked if (values := _values(source.table[name])) is not None}
    found = [_number(name, texts[name], source) for name in amounts if name in texts]
    when = roles.column("timestamp", source.table)
    days = None if when is None else _values(when)
    if days is not None and either_way(days.field(0)):
        found.append(
            f"{roles.expressions['timestamp']}: every day can be read month first or day first; it is read month "
            "first (01/02/2021 is January 2); if it is not, write the days as 2021-02-01"
        )
    found += [_missing(of_role[name], texts, MISSING, "read as missing") for name in PEOPLE if name in of_role]
    for name in THINGS:
        if name in of_role:
            found.append(_missing(of_role[name], texts, NOTHING, "read as missing"))
            found.append(_missing(of_role[name], texts, MISSING - NOTHING, "read as a name; if it is none, empty it"))
    return [note for note in found if note]


def _values(column: pa.ChunkedArray) -> pa.StructArray | None:
    """V distinct texts and how often each comes, None where a column holds no text."""
    array = plain_array(column)
    return pc.value_counts(array.drop_null()) if pa.types.is_string(array.type) else None


def _number(name: str, values: pa.StructArray, source: Source) -> str | None:
    distinct = pc.utf8_trim_whitespace(values.field(0))
    known = distinct.filter(pc.invert(pc.is_in(pc.utf8_lower(distinct), pa.array(sorted(MISSING)))))
    marked = known.filter(pc.match_substring_regex(known, r"[., ]"))
    form = next((f for f in _FORMS if len(marked) and pc.all(pc.match_substring_regex(marked, f)).as_py()), None)
    if form is None or guessed(source.table[name]) != "number":
        return None
    return f"column {name!r} is read as numbers with {_FORMS[form]}"


def _missing(name: str, texts: dict[str, pa.StructArray], words: frozenset[str], how: str) -> str | None:
    values = texts.get(name)
    if values is None:
        return None
    trimmed = pc.utf8_trim_whitespace(values.field(0))
    there = pc.is_in(pc.utf8_lower(trimmed), pa.array(sorted(words - {""})))
    rows = pc.sum(values.field(1).filter(there)).as_py()
    if not rows:
        return None
    which: Sequence[str] = sorted(set(trimmed.filter(there).to_pylist()))
    return f"column {name!r}: {rows:,} rows say {' or '.join(map(repr, which))}, {how}"
