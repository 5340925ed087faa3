"""The built-in marketplace as a world: its own truth answers, rewards come late.

Shapes: N situations, K candidates.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from actors.features.features import Floats, Ints
from cluster.errors import DataError
from cluster.marketplace.marketplace import Marketplace
from cluster.records import Dataset
from tune.worlds.base import draw

BLOCK = 2_000
"""Situations whose candidates are valued at a time."""


class MarketplaceWorld:
    """Rewards 0 and 1 with the probabilities of the marketplace that the data set was drawn from.

    Raises DataError where the data set does not say which marketplace that was.
    """

    def __init__(self, dataset: Dataset, rows: Ints, seed: int):
        facts = dataset.facts.get("marketplace")
        if not isinstance(facts, dict):
            raise DataError(
                f"a data set of format {dataset.format!r} does not say which marketplace it is from; import it again"
            )
        self.events: pa.Table = dataset.events.take(rows)
        self.seed = seed
        self._market = Marketplace(**facts)
        self._situations = self._market.situations(self.events) if len(rows) else None
        self._lists: list[list[str]] = self.events["candidates"].to_pylist()
        self._mean_NK = self._means()

    def _means(self) -> Floats:
        if self._situations is None:
            return np.empty((0, 0))
        starts = range(0, len(self._situations), BLOCK)
        blocks = (np.arange(start, min(start + BLOCK, len(self._situations))) for start in starts)
        return np.concatenate([self._market.mean_rewards(self._situations.take(rows)) for rows in blocks])

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        """Probabilities of a reward, (K,); 0 for an item that is not sold here."""
        return self._liked(row, item_ids) * self._looked_at(position)

    def _looked_at(self, position: int) -> float:
        return float(self._market.looked_at(np.array([position]))[0])

    def _liked(self, row: int, item_ids: Sequence[str]) -> Floats:
        listed = self._lists[row]
        if list(item_ids) == listed:
            return self._mean_NK[row, : len(listed)].copy()
        places = np.array([self._market.item_index.get(item, -1) for item in item_ids], dtype=np.int64)
        assert self._situations is not None
        found_K = self._market.mean_rewards(self._situations.take(np.array([row])), np.maximum(places, 0)[None])[0]
        return np.where(places >= 0, found_K, 0.0)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        listed = self._lists[row]
        known = item_id in listed
        liked = self._mean_NK[row, listed.index(item_id)] if known else self._liked(row, [item_id])[0]
        return float(draw(self.seed, row, item_id) < liked * self._looked_at(position))

    def delay_s(self, row: int, item_id: str) -> float:
        place = self._market.item_index.get(item_id)
        if place is None:
            return 0.0
        uniform = min(max(draw(self.seed + 1, row, item_id), 1e-12), 1 - 1e-12)
        return float(self._market.delay_s(np.array([place]), np.array([uniform]))[0])
