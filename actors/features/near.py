"""The nearest of some unit vectors by cosine, exactly, with the same bits for a query alone as among others.

Shapes: N queries, M vectors that may be near, J neighbours, E size of a vector.
"""

from collections.abc import Sequence

import numpy as np

from actors.features.dense import ROWS, times
from actors.features.features import Floats, Ints


def nearest(query_NE: Floats, vectors_ME: Floats, most: int, own: Sequence[int]) -> tuple[Ints, Floats]:
    """Places of the nearest, the nearest first and of equal ones the first, and their cosines.

    Args:
        own: of each query the place that is never its neighbour, -1 for none.

    Returns:
        near_NJ and similarity_NJ, J = most; -1 and 0 where there are no more.
    """
    near_NJ, similarity_NJ = np.full((len(query_NE), most), -1), np.zeros((len(query_NE), most))
    for start in range(0, len(query_NE), ROWS):
        for n, cosine_M in enumerate(times(query_NE[start : start + ROWS], vectors_ME.T), start):
            if own[n] >= 0:
                cosine_M[own[n]] = -np.inf
            rows = _greatest(cosine_M, min(most, len(cosine_M) - (own[n] >= 0)))
            near_NJ[n, : len(rows)], similarity_NJ[n, : len(rows)] = rows, cosine_M[rows]
    return near_NJ, similarity_NJ


def _greatest(score_M: Floats, most: int) -> Ints:
    if most <= 0:
        return np.empty(0, np.int64)
    rows = np.flatnonzero(score_M >= np.partition(score_M, len(score_M) - most)[len(score_M) - most])
    return rows[np.argsort(-score_M[rows], kind="stable")][:most]
