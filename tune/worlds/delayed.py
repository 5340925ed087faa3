"""Rewards that come late, some of them very late."""

from tune.worlds.base import World, draw
from tune.worlds.wrapped import Wrapped


class Delayed(Wrapped):
    """Adds a Lomax (Pareto II) delay to the inner world's: P(delay > t) = (1 + t/scale)^-tail.

    Args:
        median_s: half of the delays are shorter, seconds.
        tail: the smaller, the heavier; at 1 or below the mean is infinite.
    """

    def __init__(self, world: World, seed: int, median_s: float, tail: float):
        super().__init__(world, seed)
        self._scale_s, self._tail = median_s / (2 ** (1 / tail) - 1), tail

    def delay_s(self, row: int, item_id: str) -> float:
        share_longer = 1 - draw(self.seed, row, item_id)
        added_s: float = self._scale_s * (share_longer ** (-1 / self._tail) - 1)
        return self.world.delay_s(row, item_id) + added_s
