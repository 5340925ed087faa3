"""The embeddings that items come with, made unit vectors.

Shapes: N items, E size of the embedding.
"""

from collections import Counter

import numpy as np
import pyarrow as pa

from actors.content.embedding import Embedded, unit
from cluster.errors import SchemaError


def given(items: pa.Table) -> Embedded:
    """The items' own embeddings, of the size that most of them have.

    One of another size, with a number that is not finite, or of length zero is a problem, and so is none at all.

    Raises:
        SchemaError: no item has an embedding.
    """
    rows = [np.asarray(row if row is not None else (), np.float32) for row in items["embedding"].to_pylist()]
    sizes = Counter(len(row) for row in rows if len(row))
    if not sizes:
        raise SchemaError(
            f"content.given: none of the {len(rows)} items has an embedding; import items with a column `embedding`, "
            "or set content.given to false so that Medley encodes them"
        )
    size = max(sizes, key=lambda s: (sizes[s], s))
    # In double precision, in which no finite float32 has a square that is not finite, or 0.
    vectors_NE, there_N = unit(
        np.stack([row if len(row) == size else np.zeros(size) for row in rows], dtype=np.float64)
    )
    problems = tuple((n, _reason(row, size)) for n, row in enumerate(rows) if not there_N[n])
    return Embedded(vectors_NE, there_N, problems, 0)


def _reason(row: np.ndarray[tuple[int], np.dtype[np.float32]], size: int) -> str:
    if len(row) == 0:
        return "embedding: none is given"
    if len(row) != size:
        return f"embedding: of size {len(row)}, and most items have {size}"
    return "embedding: all zero" if np.isfinite(row).all() else "embedding: a number that is not finite"
