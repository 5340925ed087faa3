"""What a column tells by being the same, or one more, from row to row.

Shapes: N rows, V values.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.faults import Faults
from cluster.importers.columns import numbers
from cluster.importers.context import Coded
from cluster.importers.source import Source

Ints = NDArray[np.int64]

LEAST_ROWS = 30
MOST_CHANGING = 0.05
MOST_ERRING = 0.01
"""The smell of a mushroom errs 0.03 as often, and is no label in other words."""
LEAST_SURPRISE = 10.0
"""Nats: by chance a column passes once in 22,000."""


def counts_rows(source: Source, name: str) -> bool:
    """Whether a column only counts the rows of its file, as a saved index does: from row to row it grows by one."""
    column = source.table[name]
    few, whole = column.slice(0, LEAST_ROWS), column
    return len(source) >= LEAST_ROWS and all(_counts(part, source) for part in (few, whole))


def _counts(column: pa.ChunkedArray, source: Source) -> bool:
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return False
    faults = Faults(len(column))
    found = numbers("", column, faults)
    if found.null_count:
        return False
    start_N = np.asarray(found) - source.row_N[: len(column)]
    first = np.searchsorted(source.file_N[: len(column)], source.file_N[: len(column)])
    return bool((start_N == start_N[first]).all())


def describes(code_N: Ints, group_N: Ints) -> bool:
    """Whether a column says what a group is: it is the same in all rows of a group, but for 5 % of the groups that
    would differ by chance, and chance does not explain it.

    Args:
        code_N: the column's values as whole numbers.
        group_N: group of each row. Rows with -1, for none, in either are left aside.
    """
    there = (group_N >= 0) & (code_N >= 0)
    if not there.any():
        return False
    _, codes = np.unique(code_N[there], return_inverse=True)
    _, groups, size_G = np.unique(group_N[there], return_inverse=True, return_counts=True)
    changing = int((values_of(groups, codes) - 1).sum())
    if changing > MOST_CHANGING * (size_G > 1).sum():
        return False
    share_V = np.bincount(codes) / len(codes)
    sizes, times = np.unique(np.minimum(size_G, 50), return_counts=True)  # of larger groups no more is needed
    same = np.array([(share_V**size).sum() for size in sizes]).clip(1e-300, 1.0)
    expected = float((times * (1.0 - same)).sum())
    return changing <= MOST_CHANGING * expected and float(-(times * np.log(same)).sum()) >= LEAST_SURPRISE


def values_of(group_N: Ints, code_N: Ints) -> Ints:
    """How many different values each group has, by the number of the group (from 0 to the greatest)."""
    width = int(code_N.max(initial=0)) + 2  # -1 is a value too
    pairs = np.unique(group_N * width + code_N + 1)
    return np.bincount(pairs // width, minlength=int(group_N.max(initial=-1)) + 1)


def tells(code_N: Ints, label_N: Ints) -> bool:
    """Whether a column is another column in other words: half of the rows or more are of values that come again, and
    there the commonest label of a value errs a hundredth as often as the commonest of all rows would."""
    _, codes, size_V = np.unique(code_N, return_inverse=True, return_counts=True)
    again_N = (size_V[codes] > 1) & (code_N >= 0)
    rows = int(again_N.sum())
    expected = rows * (1.0 - np.bincount(label_N).max() / len(label_N))
    if 2 * rows < len(code_N) or expected < LEAST_SURPRISE:
        return False
    pairs, counts = np.unique(np.stack([codes[again_N], label_N[again_N]]), axis=1, return_counts=True)
    right = np.maximum.reduceat(counts, np.flatnonzero(np.diff(pairs[0], prepend=-1))).sum()
    return bool(rows - right <= MOST_ERRING * expected)


def leaks(context: Mapping[str, Coded], label_E: Ints, rows: Ints, what: str, when: str) -> list[str]:
    """Words on columns that tell the label of these rows. `what`: the label in a word. `when`: when that is a fault."""
    return [
        f"column {name!r} tells the {what}; if it is {when}, leave it out with --exclude {name}"
        for name, coded in context.items()
        if tells(coded.code_N[rows], label_E)
    ]
