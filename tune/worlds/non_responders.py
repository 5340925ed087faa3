"""Users who never answer, whatever they are shown."""

from collections.abc import Sequence

import numpy as np

from actors.features.features import Floats
from tune.split import tasks, unit
from tune.worlds.base import World
from tune.worlds.wrapped import Wrapped


class NonResponders(Wrapped):
    """A share of users (sessions where there is no user), drawn by a keyed hash, earns what no answer earns.

    Args:
        share: of users.
        default: reward of a decision without an answer.
    """

    def __init__(self, world: World, seed: int, share: float, default: float):
        super().__init__(world, seed)
        self.silent_N = unit(tasks(world.events), seed, "non-responders") < share
        self._default = default

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        if self.silent_N[row]:
            return np.full(len(item_ids), self._default)
        return self.world.mean_rewards(row, item_ids, position)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self._default if self.silent_N[row] else self.world.reward(row, item_id, position)
