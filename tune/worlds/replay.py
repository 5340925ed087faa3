"""A log as a world: it answers only where the choice is the one that was logged (Li et al. 2011).

A choice that matches is accepted with probability min(p)/p, so that the accepted events are a sample in which
every item was equally likely: under a uniform log every match is accepted. Everything else is NaN, "not
observed": such a decision is skipped, it neither counts nor teaches.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actors.features.features import Floats
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tune.worlds.base import draw

LEAST_ACCEPTED = 0.05
"""Share of matching events accepted below which a replay says too little."""


class Replay:
    """Logged events with propensities and rewards.

    accepted_share: expected share of matching choices that are accepted.

    Raises EvidenceError where a propensity or reward is missing or the propensities differ so much that
    rejection leaves almost nothing.
    """

    def __init__(self, events: pa.Table, kind: RewardKind, seed: int):
        if not len(events):
            raise EvidenceError("no events to replay; use a larger part of the data")
        if events["propensity"].null_count or events["reward"].null_count:
            raise EvidenceError(
                "a replay needs the propensity and the reward of every event, and "
                f"{events['propensity'].null_count} propensities and {events['reward'].null_count} rewards are "
                "missing; map their columns, or let a reward model answer"
            )
        self.events: pa.Table = events
        self.seed = seed
        self._item: list[str] = events["item_id"].to_pylist()
        self._reward = np.clip(events["reward"].to_numpy(), kind.low, kind.high)
        propensity_N = events["propensity"].to_numpy()
        self._accept = propensity_N.min() / propensity_N
        self.accepted_share = float(self._accept.mean())
        if self.accepted_share < LEAST_ACCEPTED:
            raise EvidenceError(
                f"rejection would keep {self.accepted_share:.1%} of matching events (propensities from "
                f"{propensity_N.min():.2g} to {propensity_N.max():.2g}); use a doubly robust estimate instead"
            )

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        """The logged reward where it is observed, NaN elsewhere."""
        return np.array([self.reward(row, item_id) for item_id in item_ids])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        if item_id != self._item[row] or draw(self.seed, row, item_id) >= self._accept[row]:
            return float("nan")
        return float(self._reward[row])

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0
