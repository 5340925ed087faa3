"""Which kind of feature map, and how one of the kind `arms` is fitted.

`auto` takes `arms` when the catalogue has at most 64 items and the fit rows are at least ten for each
parameter of plain arms (linear terms and levels). What is worth its parameters then enters, down to four rows
per parameter.
"""

import numpy as np
import pyarrow as pa

from actors.features.catalogue import row_numbers
from actors.features.context import ContextBlock
from actors.features.context_fitting import Situations, read_fit_rows
from actors.features.features import Ints
from actors.features.fitted import Fitted
from actors.features.joint_fitting import ARMS, fit_joint
from cluster.config import FeatureSettings
from cluster.errors import ModelError
from cluster.records import Dataset

ROWS_PER_PARAMETER = 10
SCREENED_ROWS_PER_PARAMETER = 4


STRAIGHT = ("linear", "quadratic", "kernel")
"""Maps whose base has clipped linear terms and indicators alone."""


def fit_rows(dataset: Dataset, rows: Ints) -> pa.Table:
    """Events of these row numbers, or of a mask."""
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
    return dataset.events.take(pa.array(rows))


def fit_base(dataset: Dataset, events: pa.Table, settings: FeatureSettings, seed: int) -> Fitted:
    """The base features of `settings.kind` on these events.

    Raises:
        ModelError: there are no events or no items.
    """
    ids = tuple(dataset.items["item_id"].to_pylist())
    if not len(events) or not ids:
        raise ModelError(
            f"a feature map needs rows and items, found {len(events)} rows and {len(ids)} items: "
            "import more events, or a larger share of them for fitting"
        )
    if settings.kind != "joint" and (settings.kind == "arms" or len(ids) <= ARMS):
        seen = read_fit_rows(events, dataset.users, settings.levels, recent_levels=True)
        plain = seen.plain(settings.max_dimension - 1)
        enough = len(events) >= ROWS_PER_PARAMETER * len(ids) * (1 + plain.size)
        if enough and settings.map not in STRAIGHT:
            plain = _screened(events, ids, seen, settings.max_dimension - 1, seed)
        if enough or settings.kind == "arms":
            kind = "pair" if len(ids) == 2 else "arms"
            return Fitted(kind, plain, ids, None, None, None, np.zeros(0), np.zeros(0))
    return fit_joint(events, dataset, ids, settings, settings.map not in STRAIGHT, seed)


def _screened(events: pa.Table, ids: tuple[str, ...], seen: Situations, limit: int, seed: int) -> ContextBlock:
    arm_B = row_numbers({name: i for i, name in enumerate(ids)}, events["item_id"].to_pylist())
    reward_B = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
    limit = min(limit, len(events) // (SCREENED_ROWS_PER_PARAMETER * len(ids)) - 1)
    return seen.screened(arm_B, reward_B, limit, seed)
