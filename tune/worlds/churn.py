"""Items that come and go: what is on offer changes, and so does what can be learned of it."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actors.features.features import Floats
from cluster.errors import DataError
from tune.split import unit
from tune.worlds.base import World
from tune.worlds.wrapped import Wrapped, time_shares

LEAST = 2
"""Items below which a situation keeps its whole offer: with one there is nothing to choose."""


class Churn(Wrapped):
    """A share of the items is away for half of the time, each from a moment of its own; those that are away at the
    end and at the start come as new ones in between.

    An item that is away is no candidate and earns what no answer earns.

    Args:
        share: of items that come and go.
        default: reward of a decision without an answer.

    Raises DataError where a situation lists no candidates: a whole catalogue cannot change from row to row.
    """

    def __init__(self, world: World, seed: int, share: float, default: float):
        super().__init__(world, seed)
        self._default = default
        lists = world.events["candidates"]
        if lists.null_count:
            raise DataError(
                f"{lists.null_count:,} of {len(lists):,} situations offer the whole catalogue, which churn cannot "
                "change; list their candidates (data.candidates for transactions), or set world.churn to 0"
            )
        self._offers = _offers(lists, time_shares(world.events), share, seed)
        column = world.events.schema.get_field_index("candidates")
        offers = pa.array(self._offers, lists.type)
        self._events = world.events.set_column(column, world.events.schema.field(column), offers)

    @property
    def events(self) -> pa.Table:
        return self._events

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        here_K = [item in self._offers[row] for item in item_ids]
        return np.where(here_K, self.world.mean_rewards(row, item_ids, position), self._default)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self.world.reward(row, item_id, position) if item_id in self._offers[row] else self._default


def _offers(lists: pa.ChunkedArray, at_N: Floats, share: float, seed: int) -> list[list[str]]:
    """What is left of each situation's candidates, in their order."""
    listed = lists.to_pylist()
    items = sorted({item for offer in listed for item in offer})
    names = pa.array(items, pa.string())
    stays_I = unit(names, seed, "churn") >= share
    leaves_I = unit(names, seed, "leaves")
    index = {item: i for i, item in enumerate(items)}
    found = []
    for offer, at in zip(listed, at_N, strict=True):
        places = np.array([index[item] for item in offer])
        here_K = stays_I[places] | ((at - leaves_I[places]) % 1 >= 0.5)
        found.append(
            [item for item, here in zip(offer, here_K, strict=True) if here] if here_K.sum() >= LEAST else offer
        )
    return found
