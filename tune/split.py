"""Who may be looked at for what: the parts of a data set, disjoint by construction.

The last 20 % by time (a table: a seeded 20 % of its rows) is held out first, as the world that answers a
simulated run. Within the rest, tasks (a client's users; sessions where there is no user; rows where there is neither)
are hashed into fit 50 %, stop 10 %, select 20 % and confirm 20 %; of the confirm users only the later half
of their rows is kept, so that what is confirmed lies later in time than most of what was learned.

Shapes: N events.
"""

import hashlib
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa

from actors.features.features import Floats, Ints
from cluster.records import Dataset
from cluster.records import tasks as tasks  # a split is of tasks

WORLD = 0.2
BOUNDS = (0.5, 0.6, 0.8)
"""Upper ends of fit, stop and select on the unit interval; confirm is what is left."""


@dataclass(frozen=True)
class Parts:
    """Row numbers of `dataset.events` in time order; no two parts share a row, and no two of fit, stop,
    select and confirm share a client's user."""

    fit: Ints
    stop: Ints
    select: Ints
    confirm: Ints
    world: Ints

    @property
    def unjudged(self) -> Ints:
        """Rows that nothing is proven on: of fit, stop and select, in the order of the data set."""
        return np.sort(np.concatenate([self.fit, self.stop, self.select]))

    def sizes(self) -> dict[str, int]:
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}


def task_codes(events: pa.Table) -> Ints:
    """The tasks of the events as whole numbers 0, 1, ... in order of appearance, N."""
    indices = tasks(events).dictionary_encode().indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), dtype=np.int64)


def unit(names: pa.Array, seed: int, purpose: str) -> Floats:
    """A number in [0, 1) per name, by a keyed hash: the same on every machine and in every process."""
    key = hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=32).digest()
    encoded = names.dictionary_encode()
    values = np.array(
        [
            int.from_bytes(hashlib.blake2b(name.encode(), key=key, digest_size=8).digest(), "big") >> 11
            for name in encoded.dictionary.to_pylist()
        ],
        dtype=np.float64,
    )
    indices = np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
    return np.asarray(values[indices] * 2.0**-53, dtype=np.float64)


def parts(dataset: Dataset, seed: int, world: float = WORLD) -> Parts:
    """Split the events of a data set; the same seed and data give the same parts.

    Args:
        world: share held out first; 0 where traffic itself will answer.
    """
    events = dataset.events
    order = np.argsort(events["timestamp"].cast(pa.int64()).to_numpy(), kind="stable").astype(np.int64)
    table = dataset.format == "table"
    if table:
        names = events["event_id"].combine_chunks()
        held_out = unit(names, seed, "world")[order] < world
    else:
        names = tasks(events)
        held_out = np.arange(len(order)) >= round((1 - world) * len(order))
    rest = order[~held_out]
    part = np.searchsorted(BOUNDS, unit(names, seed, "part")[rest], side="right")
    fit, stop, select, confirm = (rest[part == number] for number in range(4))
    if not table:
        confirm = confirm[len(confirm) // 2 :]
    return Parts(fit, stop, select, confirm, order[held_out])
