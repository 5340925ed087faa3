"""A block of a log, as policies see it, and what a policy is.

Shapes: N events of a block, K candidates (padded), I items of the catalogue.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from actors.features.candidates import padded
from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from tune.log import Log


@dataclass(frozen=True)
class Block:
    """Consecutive events of a log, with what policies and models see of them.

    items: the catalogue, whose order is that of candidates where an event lists none. first: number of the first
    event, counted from the beginning of what is judged.
    """

    events: pa.Table
    log: Log
    items: tuple[str, ...]
    first: int
    kind: RewardKind

    @cached_property
    def row_NK(self) -> Ints:
        """Places in the catalogue, -1 for items that it lacks and for padding."""
        row = {item: i for i, item in enumerate(self.items)}
        return padded(self.events["candidates"], row, np.zeros(len(row) + 1, np.uint64))[0]

    @cached_property
    def candidates(self) -> list[list[str]]:
        """The ids of each event's candidates, (N) lists."""
        whole = list(self.items)
        return [whole if listed is None else listed for listed in self.events["candidates"].to_pylist()]

    def listed(self) -> pa.Table:
        """The events with candidates written out, so that another catalogue cannot take this one's place."""
        if not self.events["candidates"].null_count:
            return self.events
        place = self.events.schema.get_field_index("candidates")
        return self.events.set_column(place, "candidates", pa.array(self.candidates, pa.list_(pa.string())))

    def reward(self, n: int) -> float:
        """The reward of event n as it was given, not scaled."""
        return self.kind.low + (self.kind.high - self.kind.low) * float(self.log.reward_N[n])


class Policy(Protocol):
    """name: as it was asked for. learns: whether logged rewards change it on the way (progressive replay)."""

    @property
    def name(self) -> str: ...

    @property
    def learns(self) -> bool: ...

    def probabilities(self, block: Block) -> Floats:
        """Of every candidate of every event, (N, K), 0 on padding. Blocks come once each, in time order."""

    def remark(self) -> str:
        """What a reader of the estimate must know, once all blocks have been seen; else empty."""


def shared(chosen_NK: Any) -> Floats:
    """Equal shares of what is chosen; every row has something."""
    return np.asarray(chosen_NK / chosen_NK.sum(1, keepdims=True))


def greatest(score_NK: Floats, mask_NK: Any) -> Floats:
    """All probability on the greatest score, ties in equal shares."""
    score_NK = np.where(mask_NK, score_NK, -np.inf)
    return shared((score_NK == score_NK.max(1, keepdims=True)) & mask_NK)
