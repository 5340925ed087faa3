"""How alike two column names are."""

import difflib
import re
from collections.abc import Iterable


def plain(name: str) -> str:
    """Lower case, letters and digits only: `User ID`, `user_id` and `userId` are the same."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def nearest(name: str, known: Iterable[str], least: float = 0.6) -> str | None:
    """The known name most like `name`, if any is alike enough."""
    plains = {plain(k): k for k in known}
    found = difflib.get_close_matches(plain(name), plains, 1, least)
    return plains[found[0]] if found else None
