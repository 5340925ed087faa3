"""How the numbers of a text column are written: 1234.5, 1,234.5, 1.234,5 or 1 234,5, with a currency or percent sign.

All values of a column are read in one way, the one that reads most of them: 1,234 beside 0,5 is a decimal comma,
alone it is a thousand.
"""

import re
from collections.abc import Callable, Mapping

LOOKED_AT = 1_000
"""Values that are looked at before a column without a number is given up."""
_MONEY = re.compile(r"^([+-]?)\s*[$€£¥₹]\s*|\s*[$€£¥₹]$")
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}(?:(?:,\d{3})+|(?:[\s'’]\d{3})+)(?:\.\d+)?")
_COMMA = re.compile(r"[+-]?(?:\d+|[1-9]\d{0,2}(?:(?:\.\d{3})+|(?:[\s'’]\d{3})+))(?:,\d+)?(?:[eE][+-]?\d+)?")
_MARKS = re.compile(r"[\s'’,.]")


def number(text: str) -> float | None:
    """The number that Python would write as `text`."""
    try:
        return float(text)
    except ValueError:
        return None


def reading(values: Mapping[str, int]) -> Callable[[str], float | None]:
    """What reads most of the values (each counted as often as said), None for those that it cannot.

    The earlier of equals wins: as Python writes numbers, with a mark at each thousand, with a decimal comma.
    """
    forms = (_signed(number), _signed(_grouped), _signed(_comma))
    some = list(values)[:: 1 + len(values) // LOOKED_AT]
    if all(number(value) is not None for value in values) or not any(
        form(v) is not None for form in forms for v in some
    ):
        return number
    return max(forms, key=lambda form: sum(count for value, count in values.items() if form(value) is not None))


def _signed(form: Callable[[str], float | None]) -> Callable[[str], float | None]:
    """The form without currency signs, negative in brackets, a hundredth with a percent sign."""

    def read(text: str) -> float | None:
        text = _MONEY.sub(r"\1", text.strip())
        if text.endswith("%"):
            share = form(text[:-1].rstrip())
            return None if share is None else share / 100
        if text.startswith("(") and text.endswith(")"):
            amount = form(text[1:-1])
            return None if amount is None else -amount
        return form(text)

    return read


def _grouped(text: str) -> float | None:
    return float(re.sub(r"[\s'’,]", "", text)) if _GROUPED.fullmatch(text) else number(text)


def _comma(text: str) -> float | None:
    if not _COMMA.fullmatch(text):
        return None
    whole, _, rest = text.partition(",")
    return float(_MARKS.sub("", whole) + ("." + rest if rest else ""))
