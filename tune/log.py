"""Logged feedback as arrays: what was done, with which probability, what came of it.

Shapes: N events, K candidates of an event (padded), U users.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tune.split import task_codes

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Log:
    """N logged events.

    action_N: column of the item taken, among the event's candidates.
    reward_N: scaled to [0, 1] by the declared range.
    propensity_N: probability with which the action was taken; None where the log does not say.
    user_N: whole numbers 0 <= u < U, the unit of resampling.
    mask_NK: false on padding.
    position_N: the slot of a slate that the event filled; None where not every event says.

    Raises EvidenceError where an action is not among the candidates, a number is not finite, or a
    propensity of a taken action is not in (0, 1].
    """

    action_N: Ints
    reward_N: Floats
    propensity_N: Floats | None
    user_N: Ints
    mask_NK: Bools
    position_N: Ints | None = None

    def __post_init__(self) -> None:
        n, k = self.mask_NK.shape
        inside_N = (self.action_N >= 0) & (self.action_N < k)
        inside_N &= self.mask_NK[np.arange(n), np.clip(self.action_N, 0, k - 1)] if k else False
        _refuse(~inside_N, self.action_N, "action", "is not among the event's candidates", _CANDIDATES)
        _refuse(~np.isfinite(self.reward_N), self.reward_N, "reward", "is not a finite number", _IMPORT)
        if self.propensity_N is not None:
            wrong_N = ~((self.propensity_N > 0) & (self.propensity_N <= 1))
            _refuse(wrong_N, self.propensity_N, "propensity", "of a taken action is not in (0, 1]", _PROPENSITY)

    def __len__(self) -> int:
        return len(self.action_N)

    @property
    def users(self) -> int:
        return int(self.user_N.max()) + 1 if len(self) else 0

    def propensity(self, event: int) -> float:
        """Of the action of an event; 1 where the log does not say."""
        return 1.0 if self.propensity_N is None else float(self.propensity_N[event])

    def take(self, rows: Ints) -> "Log":
        """These events only; users are numbered anew, in order of appearance."""
        propensity_N = None if self.propensity_N is None else self.propensity_N[rows]
        return Log(
            self.action_N[rows],
            self.reward_N[rows],
            propensity_N,
            renumber(self.user_N[rows]),
            self.mask_NK[rows],
            None if self.position_N is None else self.position_N[rows],
        )

    def without_propensities(self) -> "Log":
        return replace(self, propensity_N=None)


_CANDIDATES = "list the taken item among the candidates, or leave candidates null for the whole catalogue"
_IMPORT = "import the data again: such rows go to quarantine"
_PROPENSITY = "give the logging policy's true probability, or leave the column out for model-based estimates"


def _refuse(wrong_N: Bools, values_N: NDArray[np.generic], name: str, fault: str, remedy: str) -> None:
    if wrong_N.any():
        row = int(np.argmax(wrong_N))
        raise EvidenceError(f"event {row}: {name} {values_N[row]} {fault} ({int(wrong_N.sum())} such events); {remedy}")


def renumber(codes_N: Ints) -> Ints:
    """The same grouping by whole numbers 0, 1, ... in order of appearance."""
    _, first, inverse = np.unique(codes_N, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first, kind="stable")] = np.arange(len(first))
    return rank[inverse]


def read(events: pa.Table, catalogue: Sequence[str], kind: RewardKind) -> Log:
    """The log of an EVENTS table.

    Candidates are those of the event, in its order, or the catalogue where they are null, so that columns
    agree with `FeatureMap.batch`. An event without a reward counts as the kind's default. Propensities are
    used only if every event has one.

    Raises EvidenceError as Log does, and where an event lists a candidate twice.
    """
    lists = events["candidates"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    n = len(lists)
    index = {item: number for number, item in enumerate(catalogue)}
    size_N = np.asarray(pc.fill_null(pc.list_value_length(lists), len(index)), dtype=np.int64)
    item_N = events["item_id"].to_pylist()
    action_N = np.full(n, -1, dtype=np.int64)
    whole_N = np.asarray(pc.is_null(lists))
    action_N[whole_N] = [index.get(item_N[row], -1) for row in np.flatnonzero(whole_N)]
    chosen = pa.array(item_N, pa.string()).take(pc.list_parent_indices(lists))
    flat = pc.list_flatten(lists)
    hits = np.asarray(pc.fill_null(pc.equal(flat, chosen), False), dtype=bool)
    parents = np.asarray(pc.list_parent_indices(lists), dtype=np.int64)
    _refuse_repeated(flat, parents)
    starts_N = np.cumsum(np.where(whole_N, 0, size_N)) - np.where(whole_N, 0, size_N)
    taken = np.flatnonzero(hits)
    action_N[parents[taken]] = taken - starts_N[parents[taken]]
    reward_N = np.asarray(pc.fill_null(events["reward"], kind.default), dtype=np.float64)
    propensities = events["propensity"]
    known = n > 0 and propensities.null_count == 0
    width = int(size_N.max()) if n else 0
    placed = n > 0 and events["position"].null_count == 0
    return Log(
        action_N,
        (reward_N - kind.low) / (kind.high - kind.low),
        np.asarray(propensities, dtype=np.float64) if known else None,
        task_codes(events),
        np.arange(width)[None, :] < size_N[:, None],
        np.asarray(events["position"], dtype=np.int64) if placed else None,
    )


def _refuse_repeated(flat: pa.Array, parents: Ints) -> None:
    """Where an item is listed twice, its probability is not that of either place."""
    codes = flat.dictionary_encode(null_encoding="encode")
    keys = parents * (len(codes.dictionary) + 1) + np.asarray(codes.indices, dtype=np.int64)
    keys.sort()
    again = keys[1:][np.diff(keys) == 0]
    if not len(again):
        return
    row, code = divmod(int(again[0]), len(codes.dictionary) + 1)
    raise EvidenceError(
        f"event {row}: candidate {codes.dictionary[code].as_py()} is listed twice; list each item once, and give as "
        "propensity the probability of the item, not of a place"
    )
