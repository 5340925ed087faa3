"""Tastes that move while traffic goes on: the means of items go from one table to another.

The second table gives every item on offer the part of another one. Items are ordered by their mean reward; in
each situation an item takes the part of the one half of the offer further on, so that the best liked half changes
places with the other. What can be earned in a situation stays the same, and so does what can be known of it: an item
keeps its part as long as the offer does, and roughly so where offers change.

Shapes: N situations, K items.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from actors.features.features import Floats
from tune.worlds.base import World, draw
from tune.worlds.wrapped import Wrapped, time_shares

Kind = Literal["gradual", "abrupt", "seasonal"]
LOOKED_AT = 2_000
"""Situations whose means order the items."""


class Drifting(Wrapped):
    """A share of situations, which changes with time, is answered by the second table.

    Args:
        catalogue: the items on offer where a situation lists none.
        kind: see `moved_shares`.
        at, cycles: see `moved_shares`.
    """

    def __init__(
        self, world: World, seed: int, catalogue: Sequence[str], kind: Kind, at: float = 0.5, cycles: float = 1.0
    ):
        super().__init__(world, seed)
        self._lists: list[list[str] | None] = world.events["candidates"].to_pylist()
        self._catalogue = list(catalogue)
        self.moved_N = moved_shares(time_shares(world.events), kind, at, cycles)
        self._means = self._item_means()
        self._whole = self._parts(self._catalogue)

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        moved = self.moved_N[row]
        before_K = self.world.mean_rewards(row, item_ids, position) if moved < 1 else 0.0
        after_K = self.world.mean_rewards(row, self.parts(row, item_ids), position) if moved > 0 else 0.0
        return np.asarray((1 - moved) * before_K + moved * after_K)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self.world.reward(row, self._answering(row, item_id), position)

    def delay_s(self, row: int, item_id: str) -> float:
        return self.world.delay_s(row, self._answering(row, item_id))

    def parts(self, row: int, item_ids: Sequence[str]) -> list[str]:
        """Whose part each item takes in the second table; its own where it is not on offer."""
        listed = self._lists[row]
        parts = self._whole if listed is None else self._parts(listed)
        return [parts.get(item, item) for item in item_ids]

    def _answering(self, row: int, item_id: str) -> str:
        return self.parts(row, [item_id])[0] if draw(self.seed, row, "") < self.moved_N[row] else item_id

    def _parts(self, offer: Sequence[str]) -> dict[str, str]:
        ordered = sorted(offer, key=lambda item: (self._means.get(item, 0.0), item))
        half = len(ordered) // 2
        return dict(zip(ordered, ordered[half:] + ordered[:half], strict=True))

    def _item_means(self) -> dict[str, float]:
        """Mean reward of each item over situations that offer it; what is not observed counts 0."""
        total: dict[str, float] = {}
        count: dict[str, int] = {}
        for row in range(0, len(self._lists), max(1, len(self._lists) // LOOKED_AT)):
            offer = self._lists[row] or self._catalogue
            for item, mean in zip(offer, np.nan_to_num(self.world.mean_rewards(row, offer)).tolist(), strict=True):
                total[item] = total.get(item, 0.0) + mean
                count[item] = count.get(item, 0) + 1
        return {item: total[item] / count[item] for item in total}


def moved_shares(at_N: Floats, kind: Kind, at: float, cycles: float) -> Floats:
    """The share of the second table at moments from 0 to 1, (N,).

    gradual: from none to all, evenly. abrupt: all from the moment `at` on. seasonal: there and back `cycles` times,
    as (1 − cos)/2.
    """
    match kind:
        case "gradual":
            return at_N
        case "abrupt":
            return (at_N >= at).astype(np.float64)
        case "seasonal":
            return np.asarray((1 - np.cos(2 * np.pi * cycles * at_N)) / 2)
