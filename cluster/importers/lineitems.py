"""The catalogue that purchase lines imply.

Shapes: N lines, I items.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.importers.catalogue import in_order, items_of
from cluster.importers.columns import texts
from cluster.importers.context import Coded, maps
from cluster.importers.roles import Roles
from cluster.importers.source import Source
from cluster.importers.telling import values_of

Ints = NDArray[np.int64]


def of_items(code_N: Ints, group_N: Ints, other_N: Ints) -> bool:
    """Whether a column is the same throughout a group (an invoice, or an item), in 99 % of the groups that could
    show otherwise: those with two values of `other_N` or more."""
    shown = np.flatnonzero(values_of(group_N, other_N) > 1)
    changing = values_of(group_N, code_N) > 1
    return bool(len(shown)) and float(changing[shown].mean()) <= 0.01


def describing(item_N: Ints, early: int) -> Ints:
    """The lines that describe items: the `early` first ones and, of an item that has none of these, its first line.

    So nothing of an item comes from the lines of the world, but that it came at all.
    """
    _, first = np.unique(item_N, return_index=True)
    return np.concatenate([np.arange(early), first[first >= early]])


def items_table(
    source: Source,
    roles: Roles,
    typed: dict[str, pa.Array],
    row_N: Ints,
    item_ids: pa.Array,
    item_N: Ints,
    attributes: dict[str, Coded],
) -> pa.Table:
    """ITEMS: the most frequent text and the median price of each item, its commonest category, brand and so on.

    Args:
        row_N, item_N: source row and item of the N lines that describe items; `attributes` are of these lines too.
    """
    order = pc.index_in(in_order(item_ids), value_set=item_ids)
    columns: dict[str, pa.Array] = {}
    for name in ("title", "category", "brand", "provider_id"):
        values = roles.column(name, source.table)
        if values is not None:
            column = texts(name, values).take(pa.array(row_N)).dictionary_encode()
            codes_N = np.asarray(column.indices.fill_null(-1)).astype(np.int64)
            best_I = commonest(item_N, codes_N, len(item_ids))
            columns[name] = column.dictionary.take(pa.array(best_I, mask=best_I < 0)).take(order)
    if "price" in typed:
        price_N = np.asarray(typed["price"].take(pa.array(row_N)).fill_null(np.nan))
        columns["price"] = pa.array(medians(item_N, price_N, len(item_ids)), from_pandas=True).take(order)
    if attributes:
        found = {n: Coded(commonest(item_N, c.code_N, len(item_ids)), c.json) for n, c in attributes.items()}
        columns["attributes"] = maps(found, len(item_ids)).take(order)
    return items_of(item_ids.take(order), **columns)


def commonest(group_N: Ints, code_N: Ints, groups: int) -> Ints:
    """The most frequent code of each group, the smaller of equals; -1 where a group has none (codes of -1)."""
    there = code_N >= 0
    pairs, counts = np.unique(np.stack([group_N[there], code_N[there]]), axis=1, return_counts=True)
    order = np.lexsort((-pairs[1], counts))
    best = np.full(groups, -1, np.int64)
    best[pairs[0][order]] = pairs[1][order]  # the last write wins: the most frequent
    return best


def medians(group_N: Ints, value_N: NDArray[np.float64], groups: int) -> NDArray[np.float64]:
    """The median of each group's values that are not NaN; NaN where it has none."""
    there = np.flatnonzero(~np.isnan(value_N))
    order = there[np.lexsort((value_N[there], group_N[there]))]
    bounds = np.searchsorted(group_N[order], np.arange(groups + 1))
    count = np.diff(bounds)
    found = np.full(groups, np.nan)
    some = count > 0
    low, high = bounds[:-1] + (count - 1) // 2, bounds[:-1] + count // 2
    found[some] = value_N[order[low[some]]] / 2 + value_N[order[high[some]]] / 2  # the sum may be beyond a float
    return found
