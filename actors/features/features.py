"""What every model sees of a decision: numbers for each of its items.

Shapes: B decisions, K items, D features of a row, A parameter rows ("arms"), X context features, H width of a
context's code.
"""

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.features.kin import Kin

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.int64]
Keys: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True)
class Features:
    """One decision.

    phi_KD: rows of the feature map, column 0 is the intercept (another is that of a pair's later item, `pair.py`).
        With parameters per item ("arms") every row is the same context and may be a stride-0 view.
    arm_K: the parameter row that an item uses: 0 for all with joint features, the catalogue index with arms,
        -1 for an item that the map does not know (the last parameter row, which is the prior).
    item_K: catalogue index, -1 when unknown.
    key_K: 64-bit hash of item_id, which keys an item's noise.
    context_X: features of the context alone.
    code_H: the context's code where a language model has read it (actors.bandits.mixture); None for most decisions.
    kin: what the items' content says of them; None where the version has no relations of items.
    """

    phi_KD: Floats
    arm_K: Ints
    item_K: Ints
    key_K: Keys
    context_X: Floats
    code_H: Floats | None = None
    kin: Kin | None = None

    def __len__(self) -> int:
        return len(self.arm_K)

    def take(self, rows: Ints) -> "Features":
        """The same decision with only these items, in this order; rows that repeat stay a view."""
        if self.phi_KD.strides[0] == 0 and len(self):
            phi_KD = np.broadcast_to(self.phi_KD[0], (len(rows), self.phi_KD.shape[1]))
        else:
            phi_KD = self.phi_KD.take(rows, axis=0)
        arm_K, item_K = self.arm_K.take(rows), self.item_K.take(rows)
        kin = None if self.kin is None else self.kin.take(rows)
        return Features(phi_KD, arm_K, item_K, self.key_K.take(rows), self.context_X, self.code_H, kin)


@dataclass(frozen=True)
class FeatureBatch:
    """B decisions padded to K items; `mask_BK` is false on padding, `code_BH` not a number where there is no code.

    kin_I, row_BK: what is said of the items of the catalogue by their content, and each item's row there.
    """

    phi_BKD: Floats
    arm_BK: Ints
    item_BK: Ints
    key_BK: Keys
    mask_BK: NDArray[np.bool_]
    context_BX: Floats
    code_BH: Floats | None = None
    kin_I: Kin | None = None
    row_BK: Ints | None = None

    def __len__(self) -> int:
        return len(self.mask_BK)

    @property
    def repeats(self) -> bool:
        """Whether an event's items share one row of features, as with parameters per item."""
        return self.phi_BKD.shape[1] > 1 and self.phi_BKD.strides[1] == 0

    def take(self, rows: Ints) -> "FeatureBatch":
        """These decisions only, in this order; rows that repeat stay a view."""
        phi_BKD = self.phi_BKD[rows, :1] if self.repeats else self.phi_BKD[rows]
        return FeatureBatch(
            np.broadcast_to(phi_BKD, (len(rows), *self.phi_BKD.shape[1:])),
            self.arm_BK[rows],
            self.item_BK[rows],
            self.key_BK[rows],
            self.mask_BK[rows],
            self.context_BX[rows],
            None if self.code_BH is None else self.code_BH[rows],
            self.kin_I,
            None if self.row_BK is None else self.row_BK[rows],
        )

    def row(self, b: int) -> Features:
        n = int(self.mask_BK[b].sum())
        code_H = None if self.code_BH is None or np.isnan(self.code_BH[b]).any() else self.code_BH[b]
        return Features(
            self.phi_BKD[b, :n],
            self.arm_BK[b, :n],
            self.item_BK[b, :n],
            self.key_BK[b, :n],
            self.context_BX[b],
            code_H,
            None if self.kin_I is None or self.row_BK is None else self.kin_I.take(self.row_BK[b, :n]),
        )
