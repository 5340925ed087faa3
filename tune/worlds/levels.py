"""Which rewards are drawn, so that their mean is the one asked for.

Shapes: N logged rewards, K means, V values of the reward.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats

MOST_TILT = 2.0**20
"""Where values are so near each other, or one so rare, that no smaller one reaches the mean."""


@dataclass(frozen=True)
class Levels:
    """The rewards seen, at most 32 values with their shares: draws are tilted to have the mean asked for."""

    value_V: Floats
    share_V: Floats

    @classmethod
    def of(cls, reward_N: Floats) -> "Levels":
        values, counts = np.unique(reward_N, return_counts=True)
        if len(values) > 32:
            values = np.quantile(reward_N, (np.arange(32) + 0.5) / 32)
            values, counts = np.unique(values, return_counts=True)
        return cls(values, counts / counts.sum())

    def draw(self, mean: float, uniform: float) -> float:
        """The value at `uniform` of the law whose mean is `mean`."""
        edges_V = np.cumsum(self.tilted(mean))
        place = np.searchsorted(edges_V, uniform * edges_V[-1], side="right")
        return float(self.value_V[min(int(place), len(edges_V) - 1)])

    def tilted(self, mean: float) -> Floats:
        """The law ∝ share·exp(λ·value) whose mean is `mean`, λ by bisection, (V,)."""
        span = self.value_V[-1] - self.value_V[0]
        if span == 0:
            return self.share_V
        target = (mean - self.value_V[0]) / span
        if len(self.value_V) == 2:
            return np.array([1 - target, target])
        scaled_V = (self.value_V - self.value_V[0]) / span

        def law(tilt: float) -> Floats:
            weight_V = self.share_V * np.exp(tilt * (scaled_V - (tilt > 0)))
            return np.asarray(weight_V / weight_V.sum())

        reach = 64.0
        while reach < MOST_TILT and not law(-reach) @ scaled_V <= target <= law(reach) @ scaled_V:
            reach *= 2
        low, high = -reach, reach
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if law(middle) @ scaled_V < target else (low, middle)
        return law(low)
