"""Purchase lines in time order -> what a customer bought before, what was on sale, and candidates.

Shapes: N lines of the whole history, E kept events (lines), I items, K candidates. Items, invoices and customers
are whole numbers; -1 is no customer.
"""

from collections.abc import Callable
from itertools import islice

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

RECENT_ITEMS = 10
SHELF_DAYS = 28


def earlier_items(customer_N: Ints, invoice_N: Ints, item_N: Ints, time_N: Ints) -> dict[int, list[int]]:
    """The last ten distinct items, latest last, that the customer of an invoice bought in earlier invoices.

    An invoice begins with its first line; invoices that begin at the same moment do not see each other. Invoices
    without a customer have no entry.

    Returns:
        By invoice.
    """
    named = np.flatnonzero(customer_N >= 0)
    if not len(named):
        return {}
    begin = np.full(int(invoice_N.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(begin, invoice_N, time_N)
    order = named[np.lexsort((named, invoice_N[named], begin[invoice_N[named]], customer_N[named]))]
    starts = np.flatnonzero(np.diff(invoice_N[order], prepend=-1))
    ends = np.append(starts[1:], len(order))
    recent: dict[int, list[int]] = {}
    bought: dict[int, None] = {}
    waiting: list[int] = []
    now = (-1, -1)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        invoice = int(invoice_N[order[start]])
        moment = (int(customer_N[order[start]]), int(begin[invoice]))
        if moment != now:
            bought = bought if moment[0] == now[0] else {}
            for item in waiting if moment[0] == now[0] else ():
                bought.pop(item, None)
                bought[item] = None
            waiting, now = [], moment
        recent[invoice] = list(islice(reversed(bought), RECENT_ITEMS))[::-1]
        waiting += item_N[order[start:end]].tolist()
    return recent


def on_sale(day_N: Ints, item_N: Ints) -> Callable[[int], Ints]:
    """The items on sale on a day: those sold in the 28 days up to and including it.

    Only sales up to the day itself count, so that the last days of a history are like the others. Lines are in
    time order.
    """

    def items(day: int) -> Ints:
        first = int(np.searchsorted(day_N, day - SHELF_DAYS + 1))
        last = int(np.searchsorted(day_N, day, side="right"))
        return np.unique(item_N[first:last])

    return items


def distinct_draws(pool: int, rows: int, size: int, rng: np.random.Generator) -> Ints:
    """[rows, size] numbers below `pool`, distinct within a row, every ordered choice equally likely."""
    if pool <= 4 * size:
        return np.argsort(rng.random((rows, pool)), axis=1)[:, :size]
    drawn = rng.integers(pool, size=(rows, size))
    while True:
        ordered = np.sort(drawn, axis=1)
        again = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if not len(again):
            return drawn
        drawn[again] = rng.integers(pool, size=(len(again), size))


def candidate_sets(
    lines: Ints, day_N: Ints, invoice_N: Ints, item_N: Ints, size: int, rng: np.random.Generator
) -> list[Ints]:
    """The bought item of each of E lines among uniform negatives, in random order.

    Negatives are on sale that day and not of the line's invoice. Where fewer than `size` - 1 are left, all are taken.

    Args:
        lines: E indices of lines, those of an invoice and day together or not.
        day_N, invoice_N, item_N: of the whole history in time order.
        size: K, the bought item included.
        rng: decides the negatives and their order.

    Returns:
        E arrays of at most K items.
    """
    shelf = on_sale(day_N, item_N)
    by_invoice = np.argsort(invoice_N, kind="stable")
    bounds = np.searchsorted(invoice_N[by_invoice], np.arange(int(invoice_N.max()) + 2))
    order = np.lexsort((invoice_N[lines], day_N[lines]))
    sets: list[Ints] = [np.empty(0, np.int64)] * len(lines)
    groups = np.flatnonzero(np.diff(day_N[lines][order], prepend=-1) | np.diff(invoice_N[lines][order], prepend=-1))
    day, stock = None, np.empty(0, np.int64)
    for group in np.split(order, groups[1:]):
        line = lines[group[0]]
        if day_N[line] != day:
            day, stock = day_N[line], shelf(int(day_N[line]))
        invoice = invoice_N[line]
        own = item_N[by_invoice[bounds[invoice] : bounds[invoice + 1]]]
        pool = np.setdiff1d(stock, own)
        negatives = pool[distinct_draws(len(pool), len(group), min(size - 1, len(pool)), rng)]
        together = np.concatenate([item_N[lines[group]][:, None], negatives], axis=1)
        for row, shuffled in zip(group.tolist(), rng.permuted(together, axis=1), strict=True):
            sets[row] = shuffled
    return sets
