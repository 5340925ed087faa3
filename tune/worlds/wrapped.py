"""A world around another one: it answers as the inner one does, but for what a wrapper changes.

Wrappers stack, and every draw stays a pure function of (seed, row, item, position). A wrapper's draws have a seed
of their own, so that they tell nothing of the inner world's.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actors.features.features import Floats
from tune.worlds.base import World


class Wrapped:
    """The inner world unchanged, to be overridden in part.

    Args:
        world: the inner world.
        seed: of the run; `self.seed` is this kind of wrapper's own.
    """

    def __init__(self, world: World, seed: int):
        self.world = world
        key = f"{seed}/{type(self).__name__}".encode()
        self.seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    @property
    def events(self) -> pa.Table:
        return self.world.events

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        return self.world.mean_rewards(row, item_ids, position)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self.world.reward(row, item_id, position)

    def delay_s(self, row: int, item_id: str) -> float:
        return self.world.delay_s(row, item_id)


def innermost(world: World) -> World:
    """The world that no wrapper is around."""
    while isinstance(world, Wrapped):
        world = world.world
    return world


def time_shares(events: pa.Table) -> Floats:
    """When each event is, from 0 at the first moment to 1 at the last, (N,)."""
    at_N = events["timestamp"].cast(pa.int64()).to_numpy().astype(np.float64)
    if not len(at_N) or at_N.max() == at_N.min():
        return np.zeros(len(at_N))
    return np.asarray((at_N - at_N.min()) / (at_N.max() - at_N.min()))
