"""The items that a context calls recent, `context["recent"]`: ids, the latest last.

Shapes: N events, R recent items.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from actors.features.columns import context_table
from actors.features.features import Ints

RECENT = "recent"
MOST = 10


def recent_rows(events: pa.Table, index: Mapping[str, int]) -> list[Ints]:
    """Catalogue rows of each event's recent items that the catalogue knows, in their order."""
    number_N, lists = context_table(events["context"]).get(RECENT, (np.full(len(events), -1), []))
    known = [known_recent(value, index) for value in [*lists, None]]
    return [known[number] for number in number_N]


def known_recent(value: Any, index: Mapping[str, int]) -> Ints:
    """Catalogue rows of a context's list of recent items; anything but a list of known ids is left out."""
    names = value if isinstance(value, list) else []
    rows = [index[name] for name in names if isinstance(name, str) and name in index]
    return np.array(rows[-MOST:], np.int64)


def recent_padded(events: pa.Table, index: Mapping[str, int]) -> Ints:
    """Catalogue rows of each event's recent items, recent_NR, padded with -1."""
    recent_N = recent_rows(events, index)
    width = max(map(len, recent_N), default=0)
    recent_NR = np.full((len(recent_N), width), -1, np.int64)
    for n, rows in enumerate(recent_N):
        recent_NR[n, : len(rows)] = rows
    return recent_NR
