"""Lists of candidate ids -> padded rows of the catalogue.

Shapes: B decisions, K candidates, I items (and one more: unknown).
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.features import Ints, Keys
from actors.features.keys import item_keys


def padded(candidates: pa.ChunkedArray, row: Mapping[str, int], keys_I: Keys) -> tuple[Ints, Keys, NDArray[np.bool_]]:
    """A column of list<string> -> rows_BK (-1 for unknown items and padding), keys_BK, mask_BK.

    A null list stands for the whole catalogue, `row`, whose keys are keys_I.
    """
    lists = candidates.combine_chunks()
    size = len(row)
    given_B = lists.is_valid().to_numpy(zero_copy_only=False)
    given = lists.drop_null()
    ends = given.offsets.to_numpy() if len(given) else np.zeros(1, np.int64)
    length_B = np.full(len(lists), size, np.int64)
    length_B[given_B] = np.diff(ends)
    mask_BK = np.arange(int(length_B.max(initial=0)))[None, :] < length_B[:, None]
    rows_BK = np.full(mask_BK.shape, -1, np.int64)
    keys_BK = np.zeros(mask_BK.shape, np.uint64)
    if len(given):
        coded = given.values.slice(ends[0], ends[-1] - ends[0]).dictionary_encode()
        names = coded.dictionary.to_pylist()
        code_E = coded.indices.to_numpy(zero_copy_only=False)
        put_BK = mask_BK & given_B[:, None]
        rows_BK[put_BK] = np.array([row.get(name, -1) for name in names], np.int64)[code_E]
        keys_BK[put_BK] = item_keys(names)[code_E]
    if not given_B.all():
        rows_BK[~given_B, :size] = np.arange(size)
        keys_BK[~given_B, :size] = keys_I[:size]
    return rows_BK, keys_BK, mask_BK
