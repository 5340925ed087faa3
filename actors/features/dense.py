"""A matrix product whose rows come out the same alone as among others.

BLAS takes another path for one row than for many, and the last bits differ. Here every product has the same shape,
so a decision's features and a batch's have the same bits.

Shapes: N rows, D inputs, W outputs.
"""

import numpy as np

from actors.features.features import Floats

ROWS = 16


def times(rows_ND: Floats, weights_DW: Floats) -> Floats:
    """rows_ND @ weights_DW, in blocks of ROWS rows, the last one filled up with zeros; in single precision where both
    are."""
    n, d = rows_ND.shape
    blocks_BRD = np.zeros((-(-n // ROWS), ROWS, d), np.result_type(rows_ND, weights_DW))
    blocks_BRD.reshape(len(blocks_BRD) * ROWS, d)[:n] = rows_ND
    return np.asarray(np.matmul(blocks_BRD, weights_DW).reshape(len(blocks_BRD) * ROWS, weights_DW.shape[1])[:n])
