"""Texts and numbers -> moments in UTC.

Read are ISO 8601, the usual orders of day, month and year with or without a clock, those of web servers and mail,
seconds (to nanoseconds) since 1970, and digits such as 20111209. All texts of a column are read month first or all
day first, whichever leaves fewer unread; of equals, month first. A zone that is named counts, else it is UTC.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

STAMP = pa.timestamp("us", "UTC")
LOOKED_AT = 1_000
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_MONTH_FIRST = ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y", "%m-%d-%y")
_DAY_FIRST = ("%d/%m/%Y", "%d-%m-%Y", "%d/%m/%y", "%d-%m-%y")
_EITHER = ("%d.%m.%Y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d, %Y", "%b %d %Y", "%d%b%Y", "%Y %b %d")
_WHOLE = (
    "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %z %Y",
    "%a %b %d %H:%M:%S %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S",
)
_DIGITS = {4: "%Y", 6: "%Y%m", 8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
_PART = r"(?P<clock>:\d\d:\d\d)[.,](?P<part>\d+)"
_NUMBERED = r"^\d{1,2}[/-]\d{1,2}[/-]\d{2,4}"
_FIRST, _LAST = (pa.scalar(datetime(year, 1, 1, tzinfo=UTC), STAMP) for year in (1000, 9999))


def of_texts(array: pa.Array) -> pa.Array:
    """STAMP of N texts, null where one cannot be read as a date."""
    coded = array.dictionary_encode()
    plain, part = _whole(coded.dictionary)
    return pc.add(_seconds(plain, coded.indices), part.take(coded.indices))


def either_way(array: pa.Array) -> bool:
    """Whether all of N texts, 01/02/2021 say, can be read month first and day first."""
    plain, _ = _whole(pc.unique(array).drop_null())
    if not len(plain) or pc.all(pc.match_substring_regex(plain, _NUMBERED)).as_py() is False:
        return False
    return all(not _filled(pa.nulls(len(plain), STAMP), plain, forms).null_count for forms in _by_order())


def _by_order() -> list[list[str]]:
    return [[day + clock for day in days for clock in _CLOCKS] for days in (_MONTH_FIRST, _DAY_FIRST)]


def _whole(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Plain texts of whole seconds, and the parts of a second that were cut off."""
    found = pc.fill_null(pc.struct_field(pc.extract_regex(texts, _PART), "part"), "")
    digits = pc.utf8_slice_codeunits(pc.utf8_rpad(found, 6, "0"), 0, 6)
    return _plain(pc.replace_substring_regex(texts, _PART, r"\1")), digits.cast(pa.int64()).cast(pa.duration("us"))


def _seconds(plain: pa.Array, index_N: pa.Array) -> pa.Array:
    """STAMP of N plain texts; `index_N`: which of them each row has."""
    iso = pa.array([_iso(text) for text in plain.to_pylist()], STAMP)
    if iso.null_count:
        clocked = [day + clock for day in _EITHER for clock in _CLOCKS]
        iso = _filled(iso, plain, (*clocked, *_WHOLE))
        read = [_filled(iso, plain, forms) for forms in _by_order()] if iso.null_count else [iso]
        return min((found.take(index_N) for found in read), key=lambda found: found.null_count)
    return iso.take(index_N)


def of_numbers(array: pa.Array) -> pa.Array:
    """STAMP of N float64: digits of a date such as 20111209 where all can be, else time since 1970."""
    written = _written(array)
    if written is not None:
        return written
    unit = _seconds_per_unit(array)
    coded = array.dictionary_encode()
    stamps = [_instant(value * unit) for value in coded.dictionary.to_pylist()]
    return pa.array(stamps, STAMP).take(coded.indices)


def _plain(texts: pa.Array) -> pa.Array:
    """Without blanks at the ends and other words and marks for what _CLOCKS and ISO say."""
    for pattern, instead in (
        (r"^\s+|\s+$", ""),
        (r"^(\d{4})/(\d{1,2})/", r"\1-\2-"),
        (r"^(\d+[/.-]\d+[/.-]\d+),?[\sT]+(\d)", r"\1 \2"),
        (r"\s*(?:UTC|GMT|Z)$", "+00:00"),
    ):
        texts = pc.replace_substring_regex(texts, pattern, instead)
    return texts


def _iso(text: str | None) -> datetime | None:
    try:
        when = datetime.fromisoformat(text or "")
        return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _filled(found: pa.Array, texts: pa.Array, forms: Sequence[str]) -> pa.Array:
    """`found`, and what the forms read of the rest: again and again the form that reads most of a part of it."""
    while found.null_count:
        unread = pc.if_else(found.is_null(), texts, pa.scalar(None, pa.string()))
        rest = unread.drop_null()
        part = rest.take(pa.array(np.arange(0, len(rest), 1 + len(rest) // LOOKED_AT)))
        form = min(forms, key=lambda form: _by_form(part, form).null_count)
        if _by_form(part, form).null_count == len(part):
            break
        read = _without_rolled(unread, _by_form(unread, form), form)
        if read.null_count == len(read):
            break
        found = pc.coalesce(found, read)
    return found


def _by_form(texts: pa.Array, form: str) -> pa.Array:
    bare = texts if "%z" in form else pc.replace_substring_regex(texts, r"\+00:00$", "")
    try:
        stamps = pc.strptime(bare, format=form, unit="us", error_is_null=True).cast(STAMP)
    except pa.ArrowException:
        return pa.nulls(len(texts), STAMP)
    sane = pc.and_(pc.greater_equal(stamps, _FIRST), pc.less(stamps, _LAST))  # %Y takes 10 for the year 10
    return pc.if_else(sane, stamps, pa.scalar(None, STAMP))


def _without_rolled(texts: pa.Array, stamps: pa.Array, form: str) -> pa.Array:
    """Null where a day is not in its month: Arrow reads 30.02.2021 as the second of March."""
    early = pc.and_(pc.less_equal(pc.day(stamps), 4), pc.match_substring_regex(texts, "29|30|31"))
    at = np.flatnonzero(np.asarray(pc.fill_null(early, False)))
    if not len(at):
        return stamps
    rolled_N = np.zeros(len(texts), bool)
    rolled_N[at] = [_impossible(text, form) for text in texts.take(pa.array(at)).to_pylist()]
    return pc.if_else(pa.array(rolled_N), pa.scalar(None, STAMP), stamps)


def _impossible(text: str, form: str) -> bool:
    try:
        datetime.strptime(text, form)
    except ValueError as error:
        return "out of range" in str(error)
    return False


def _written(array: pa.Array) -> pa.Array | None:
    """Whole numbers of equally many digits that are all dates from 1900 to 2100."""
    values = array.drop_null()
    if not len(values) or not pc.all(pc.equal(values, pc.floor(values))).as_py():
        return None
    low, high = (pc.min_max(values)[side].as_py() for side in ("min", "max"))
    form = _DIGITS.get(len(f"{low:.0f}"))
    years = 10 ** (len(f"{low:.0f}") - 4)
    if form is None or not (1900 * years <= low and high < 2101 * years):
        return None
    whole = pc.if_else(array.is_null(), pa.scalar(None, pa.int64()), array.cast(pa.int64(), safe=False))
    digits = whole.cast(pa.string())
    found = _by_form(digits, form)
    return _without_rolled(digits, found, form) if found.null_count == array.null_count else None


def _instant(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _seconds_per_unit(stamps: pa.Array) -> float:
    """Seconds, milli-, micro- or nanoseconds since 1970, told apart by size (a stamp lies before the year 5138)."""
    middle = float(np.nan_to_num(pc.quantile(pc.abs(stamps), 0.5)[0].as_py() or 0.0))
    return next((unit for unit in (1.0, 1e-3, 1e-6) if middle * unit < 1e11), 1e-9)
