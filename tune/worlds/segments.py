"""Groups of events that a world should get right: by item, client, hour, time, and what is told of a situation.

Shapes: N events, G groups.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.features import Floats, Ints
from cluster.records import Dataset
from tune.worlds.design import Column, told, value_of
from tune.worlds.wrapped import time_shares

GROUPS, COLUMNS = 20, 12
"""Groups of a segment at most, and columns told of a situation."""
OTHERS = "(others)"


@dataclass(frozen=True)
class Segment:
    """A grouping of events: names of the G groups, and which each event is of."""

    name: str
    group_N: Ints
    names: tuple[str, ...]


def segments(dataset: Dataset, events: pa.Table) -> tuple[Segment, ...]:
    """The groupings that tell events apart at all."""
    hours = (pc.hour(events["timestamp"]).to_numpy() // 4).tolist()
    quarters = np.minimum((4 * time_shares(events)).astype(int), 3).tolist()
    columns = sorted(told(dataset, events).items(), key=lambda each: (-len(each[1].rows), each[0]))
    found = [
        levels("item", events["item_id"].to_pylist()),
        levels("client", events["client_id"].to_pylist()),
        levels("time of day", [f"{4 * hour:02d}:00 to {4 * hour + 4:02d}:00" for hour in hours]),
        levels("part of the time", [f"quarter {quarter + 1}" for quarter in quarters]),
        *(column(name, cells, len(events)) for name, cells in columns[:COLUMNS]),
    ]
    return tuple(segment for segment in found if segment is not None and len(segment.names) > 1)


def levels(name: str, values: Sequence[str]) -> Segment:
    """The most frequent values, and all others as one."""
    counts = Counter(values)
    common = sorted(counts, key=lambda value: (-counts[value], value))
    names = common if len(common) <= GROUPS else [*common[: GROUPS - 1], OTHERS]
    index = {value: g for g, value in enumerate(names)}
    return Segment(name, np.array([index.get(value, len(names) - 1) for value in values], np.int64), tuple(names))


def column(name: str, cells: Column, rows: int) -> Segment | None:
    """What is told under one name: numbers by quartile, other values as they are; lists are left out."""
    values = [value_of(text) for text in cells.texts]
    if any(isinstance(value, list) for value in values):
        return None
    words = ["(none)"] * rows
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    shown = _quartiles(np.array(values, np.float64)) if numeric and len(set(values)) > GROUPS else map(str, values)
    for row, word in zip(cells.rows, shown, strict=True):
        words[row] = word
    return levels(name, words)


def _quartiles(value_N: Floats) -> list[str]:
    edges = np.unique(np.quantile(value_N, [0.25, 0.5, 0.75]))
    bounds = [f"{edge:.4g}" for edge in edges]
    names = [f"up to {bounds[0]}", *(f"{low} to {high}" for low, high in pairwise(bounds))]
    names.append(f"above {bounds[-1]}")
    return [names[place] for place in np.searchsorted(edges, value_N, side="left")]
