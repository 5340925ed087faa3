"""Slots that are looked at less the further down they are."""

from collections.abc import Sequence

import numpy as np

from actors.features.features import Floats
from tune.worlds.base import World, draw
from tune.worlds.wrapped import Wrapped


class PositionBias(Wrapped):
    """The position-based model of clicks (Richardson, Dominowska & Ragno 2007): an item that is not looked at earns
    what no answer earns, and looking does not depend on the item.

    One draw a situation says how far its user looks, so that who looks at a slot has looked at all that are looked
    at more.

    Args:
        examination: probability that slot 0, 1, ... is looked at; the last holds for all after it.
        default: reward of a decision without an answer.
    """

    def __init__(self, world: World, seed: int, examination: Sequence[float], default: float):
        super().__init__(world, seed)
        self._examination, self._default = tuple(examination), default

    def _looked(self, position: int) -> float:
        return self._examination[min(position, len(self._examination) - 1)]

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        gain_K = self.world.mean_rewards(row, item_ids, position) - self._default
        return np.asarray(self._default + self._looked(position) * gain_K)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        if draw(self.seed, row, "") >= self._looked(position):
            return self._default
        return self.world.reward(row, item_id, position)
