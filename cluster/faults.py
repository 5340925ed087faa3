"""What the data contracts forbid in a row, so that a bad row is set aside and the good ones go on.

Shapes: N rows of a table, F candidates of all rows, flat.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Bools = NDArray[np.bool_]

OUTCOME = ("client_id", "event_id", "item_id", "reward_kind")
"""Columns in which no two events are alike: the places of a page, and the click and the purchase of one decision, share
an event_id."""


class Faults:
    """Why each of N rows cannot be used; the first reason found stands."""

    def __init__(self, rows: int) -> None:
        self.reason_N: NDArray[np.object_] = np.full(rows, None, dtype=object)
        self.good_N: Bools = np.ones(rows, bool)

    def add(self, wrong_N: Any, expected: str, found_N: Any = None) -> None:
        """Mark rows: `expected` says what should be there; `found_N` (an Arrow or NumPy array) what is."""
        for row in np.flatnonzero(np.asarray(wrong_N, bool) & self.good_N):
            found = "" if found_N is None else f", found {_short(found_N[row])}"
            self.reason_N[row] = expected + found
            self.good_N[row] = False


def _short(value: Any) -> str:
    text = repr(value.as_py() if isinstance(value, pa.Scalar) else getattr(value, "item", lambda: value)())
    return text if len(text) <= 80 else text[:77] + "..."


def event_faults(events: pa.Table, items: pa.Table | None = None, faults: Faults | None = None) -> Faults:
    """What the contract forbids in rows of EVENTS.

    Args:
        events: N rows in the columns of EVENTS.
        items: the catalogue; actions and candidates outside it are faults. None accepts any id.
        faults: reasons found earlier, which stand.
    """
    faults = faults or Faults(len(events))
    for name in ("event_id", "timestamp", "client_id", "item_id"):
        faults.add(events[name].is_null(), f"{name}: expected a value, found none")
    again = "event_id: expected once for each item and reward kind, found again"
    faults.add(_repeated_outcomes(events), again, events["event_id"])
    reward = events["reward"]
    faults.add(reward.is_null(), "reward: expected a finite number, found none")
    faults.add(_not(pc.is_finite(reward)), "reward: expected a finite number", reward)
    propensity = events["propensity"]
    inside = pc.and_(pc.greater(propensity, 0.0), pc.less_equal(propensity, 1.0))
    faults.add(_not(inside), "propensity: expected above 0 and at most 1", propensity)
    _candidate_faults(events, items, faults)
    return faults


def row_faults(table: pa.Table, key: str, faults: Faults | None = None) -> Faults:
    """Rows of ITEMS or USERS whose id is absent or not the first of its kind; prices that are no price."""
    faults = faults or Faults(len(table))
    faults.add(table[key].is_null(), f"{key}: expected a value, found none")
    faults.add(repeated(table[key]), f"{key}: expected once, found again", table[key])
    if "price" in table.column_names:
        price = table["price"]
        wrong = pc.or_(_not(pc.is_finite(price)), pc.fill_null(pc.less(price, 0.0), False))
        faults.add(wrong, "price: expected a finite number, not negative", price)
    return faults


def _candidate_faults(events: pa.Table, items: pa.Table | None, faults: Faults) -> None:
    candidates = events["candidates"].combine_chunks()
    action = events["item_id"].combine_chunks()
    if items is not None:
        known = items["item_id"].combine_chunks()
        faults.add(~_within(action, known), "item_id: expected an item of the catalogue", action)
    listed_N = _bools(candidates.is_valid())
    if not listed_N.any():
        return
    parent_F = np.asarray(pc.list_parent_indices(candidates))
    flat = pc.list_flatten(candidates)
    count_N = np.bincount(parent_F, minlength=len(events))
    faults.add(listed_N & (count_N == 0), "candidates: expected at least one item, found none")
    chosen_F = _bools(pc.fill_null(pc.equal(flat, action.take(pa.array(parent_F))), False))
    taken_N = np.bincount(parent_F[chosen_F], minlength=len(events))
    faults.add(listed_N & (taken_N == 0), "item_id: expected one of the candidates", action)
    void_N = np.bincount(parent_F[_bools(flat.is_null())], minlength=len(events))
    faults.add(void_N > 0, "candidates: expected item ids, found null among them")
    if items is not None:
        foreign_N = np.bincount(parent_F[~_within(flat, known)], minlength=len(events))
        faults.add(foreign_N > 0, "candidates: expected items of the catalogue", candidates)
    pairs = pa.table({"parent": parent_F, "item": flat}).group_by(["parent", "item"]).aggregate([([], "count_all")])
    twice_N = np.bincount(pairs["parent"].filter(pc.greater(pairs["count_all"], 1)), minlength=len(events))
    faults.add(twice_N > 0, "candidates: expected each item once", candidates)


def repeated(ids: pa.ChunkedArray) -> Bools:
    """True at the second and later rows of a value (nulls do not repeat)."""
    codes_N = np.asarray(ids.combine_chunks().dictionary_encode().indices.fill_null(-1))
    _, first = np.unique(codes_N, return_index=True)
    again_N = np.ones(len(codes_N), bool)
    again_N[first] = False
    return again_N & (codes_N >= 0)


def _repeated_outcomes(events: pa.Table) -> Bools:
    """True at the second and later rows of one outcome."""
    codes = [events[name].combine_chunks().dictionary_encode("encode").indices for name in OUTCOME]
    _, first = np.unique(np.stack([np.asarray(code) for code in codes]), axis=1, return_index=True)
    again_N = np.ones(len(events), bool)
    again_N[first] = False
    return again_N & _bools(events["event_id"].is_valid())


def _within(ids: pa.Array, known: pa.Array) -> Bools:
    return _bools(pc.is_in(ids, value_set=known))


def _not(mask: pa.ChunkedArray) -> Bools:
    return ~_bools(pc.fill_null(mask, True))


def _bools(mask: Any) -> Bools:
    return np.asarray(mask).astype(bool)
