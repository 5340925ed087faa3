"""Tasks in batches of like weight.

Shapes: U tasks.
"""

from collections.abc import Iterator

import numpy as np

from actors.features.features import Ints
from actors.generator.likelihood import Rows

BATCH_ROWS = 1_024
WINDOW = 512


def batches(rows: Rows, chosen_U: Ints, rng: np.random.Generator | None = None) -> Iterator[Ints]:
    """Tasks of like size together, about `BATCH_ROWS` rows of them; shuffled by `rng`."""
    sizes = rows.tasks.sizes_U
    order = chosen_U if rng is None else rng.permutation(chosen_U)
    for start in range(0, len(order), WINDOW):
        part = order[start : start + WINDOW]
        part = part[np.argsort(sizes[part], kind="stable")]
        rows_U = np.cumsum(sizes[part])
        count = max(int(np.ceil(rows_U[-1] / BATCH_ROWS)), 1)
        pieces = np.split(part, np.searchsorted(rows_U, rows_U[-1] / count * np.arange(1, count)))
        turn = range(len(pieces)) if rng is None else rng.permutation(len(pieces))
        yield from (pieces[k] for k in turn if len(pieces[k]))
