"""Which columns of a log are of the situation, and which of the item that was shown.

A column that is the same in all rows of an item describes it (title, genre): as context it would tell what the log
chose. But where a policy goes by segment, the segment is the same in all rows of an item too, and no log shows which
of the two it is. Then what does less harm is taken, and told.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.importers.catalogue import ITEM_ROLES, TOLD
from cluster.importers.context import Coded
from cluster.importers.names import plain
from cluster.importers.roles import Roles
from cluster.importers.telling import describes, values_of

MOST_SEGMENTS = 31
"""Hours, weekdays, days of a month, segments; a column of more values, each of one item, names the items."""
_READ = {"context": "context", "item": "data of the item"}
_USUAL = {plain(name) for role in ITEM_ROLES for name in (role.name, *role.usual)}


def apart(
    context: Mapping[str, Coded], roles: Roles, table: pa.Table, rows: NDArray[np.int64]
) -> tuple[dict[str, Coded], dict[str, Coded], list[str]]:
    """Columns of the situation, those of the item, and words on those that could be either.

    What was said by mapping stands. What is the same in all rows of a user is of the user. A column with one value
    to each of a few items and none of the names of an item's data stays context, as does one without which a log
    without users would have no context.
    """
    item_E, user_E = (codes_of(table[name], rows) for name in ("item_id", "user_id"))
    same = [
        name
        for name, coded in context.items()
        if name not in roles.placed
        and describes(coded.code_N[rows], item_E)
        and not describes(coded.code_N[rows], user_E)
    ]
    doubtful = [name for name in same if not _usual(name)]
    nothing_else = len(same) == len(context) and bool((user_E < 0).all())
    kept = [name for name in doubtful if nothing_else or _one_to_one(context[name].code_N[rows], item_E)]
    of_item = [name for name in context if roles.placed.get(name) == "item" or (name in same and name not in kept)]
    moved = [name for name in doubtful if name not in kept]
    return (
        {name: coded for name, coded in context.items() if name not in of_item},
        {name: context[name] for name in of_item},
        _words(roles, kept, "context", "item") + _words(roles, moved, "item", "context"),
    )


def codes_of(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    coded = column.take(pa.array(rows)).combine_chunks().dictionary_encode()
    return np.asarray(coded.indices.fill_null(-1)).astype(np.int64)


def _usual(name: str) -> bool:
    return plain(name) in _USUAL or plain(name).endswith(("name", *map(plain, TOLD)))


def _one_to_one(code_E: NDArray[np.int64], item_E: NDArray[np.int64]) -> bool:
    there = code_E >= 0
    values = values_of(code_E[there], item_E[there])
    return bool(np.count_nonzero(values) <= MOST_SEGMENTS and values.max(initial=0) <= 1)


def _words(roles: Roles, names: Sequence[str], taken: str, other: str) -> list[str]:
    return [
        f"column {name!r} is the same in all rows of an item; it is read as {_READ[taken]}; if it is {_READ[other]}, "
        + (
            f"say --map {other}.{name}={name}, or leave it out with --exclude {name}"
            if name in roles.context
            else "give it a column of its own, and say which with --map"
        )
        for name in names
    ]
