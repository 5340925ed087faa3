"""A world that knows the right item of each situation: a table's label, or the item that was bought."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from cluster.errors import DataError
from cluster.records import Dataset


class Labelled:
    """Reward `kind.high` for the true item of an event and `kind.low` for any other, at once.

    Raises DataError where an event of `rows` has no truth.
    """

    def __init__(self, dataset: Dataset, rows: Ints, kind: RewardKind):
        self.events: pa.Table = dataset.events.take(rows)
        self.kind = kind
        if dataset.truth is None:
            raise DataError(
                f"a data set of format {dataset.format!r} has no truth to answer with; import it as a table "
                "or as transactions, or let a reward model answer"
            )
        places = pc.index_in(self.events["event_id"], dataset.truth["event_id"])
        if places.null_count:
            missing = self.events["event_id"].filter(pc.is_null(places))[0].as_py()
            raise DataError(
                f"event {missing!r} has no row in truth ({places.null_count} such events); import the data again"
            )
        self._truth: list[str] = dataset.truth["item_id"].take(places).to_pylist()

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        return np.array([self.reward(row, item_id) for item_id in item_ids])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self.kind.high if item_id == self._truth[row] else self.kind.low

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0
