"""φ with one row of parameters for all items: what the item is, what the user took lately, and crosses.

φ = [1 | static | behaviour | similarity to recent items | context, projected | crosses context × item].

Shapes: B decisions, K items, D features, X context features, R recent items or rank, P context axes,
Q item axes, V item features (static and behaviour), Z similarities.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.behaviour import Behaviour
from actors.features.features import Floats, Ints

SIMILARITIES = (
    "recent text mean", "recent text max", "recent behaviour mean", "recent behaviour max",
    "recent repeat", "recent category", "recent brand", "recent price",
)  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """Items' rows, an unknown item last: static_IV, text_IR (unit), category_I, brand_I, price_I (NaN missing),
    fitted_I (row in the behaviour tables), and behaviour by fold."""

    static_IS: Floats
    text_IR: Floats
    category_I: Ints
    brand_I: Ints
    price_I: Floats
    fitted_I: Ints
    behaviour: Behaviour

    def items(self, rows: Ints, fold: Ints) -> Floats:
        """rows (B, ...) and fold (B) -> item features (B, ..., V)."""
        fold = fold.reshape(-1, *[1] * (rows.ndim - 1))
        facts_BKC = self.behaviour.facts_FIC[fold, self.fitted_I[rows]]
        return np.concatenate([self.static_IS[rows], facts_BKC], axis=-1)

    def whole(self) -> Floats:
        """Item features of the catalogue (I, V) as a user without a fold reads them."""
        rows_BI = np.arange(len(self.fitted_I) - 1)[None]
        items_BIV = self.items(rows_BI, np.array([-1]))
        return items_BIV.reshape(-1, items_BIV.shape[2])


@dataclass(frozen=True)
class Joint:
    """The fitted projections and scales."""

    behaviours: tuple[str, ...]
    item_mean_V: Floats
    item_VQ: Floats
    kept_Z: Ints
    shift_Z: Floats
    scale_Z: Floats
    context_mean_X: Floats
    context_XP: Floats
    crosses: int

    @property
    def dimension(self) -> int:
        return 1 + len(self.item_mean_V) + len(self.kept_Z) + int(self.context_XP.shape[1]) + self.crosses

    def names(self, static: tuple[str, ...]) -> tuple[str, ...]:
        """Feature names from those of the static features (S)."""
        contexts = [f"context[{p}]" for p in range(self.context_XP.shape[1])]
        crosses = [f"{c}×item[{q}]" for q in range(self.item_VQ.shape[1]) for c in contexts]
        near = [SIMILARITIES[z] for z in self.kept_Z]
        return ("1", *static, *self.behaviours, *near, *contexts, *crosses[: self.crosses])

    def taste(self, tables: Tables, recent_BR: Ints, fold_B: Ints) -> Floats:
        """Mean item axes of the recent items (-1 pads) and log(1 + their number): taste_B(Q+1)."""
        there_BR = recent_BR >= 0
        count_B = there_BR.sum(axis=1)
        axes_BRQ = (tables.items(recent_BR, fold_B) - self.item_mean_V) @ self.item_VQ
        mean_BQ = (axes_BRQ * there_BR[..., None]).sum(axis=1) / np.maximum(count_B, 1)[:, None]
        return np.concatenate([mean_BQ, np.log1p(count_B)[:, None]], axis=1)

    def phi(self, tables: Tables, context_BX: Floats, rows_BK: Ints, recent_BR: Ints, fold_B: Ints) -> Floats:
        """φ of every item. recent_BR is padded by -1; fold_B says which behaviour table a user reads."""
        b, k = rows_BK.shape
        v, z, p = len(self.item_mean_V), len(self.kept_Z), self.context_XP.shape[1]
        phi_BKD = np.empty((b, k, self.dimension))
        phi_BKD[..., 0] = 1.0
        item_BKV = tables.items(rows_BK, fold_B)
        phi_BKD[..., 1 : 1 + v] = item_BKV
        if z:
            near_BKZ = similarities(tables, rows_BK, recent_BR, fold_B)[..., self.kept_Z]
            phi_BKD[..., 1 + v : 1 + v + z] = (near_BKZ - self.shift_Z) * self.scale_Z
        context_BP = (context_BX - self.context_mean_X) @ self.context_XP
        phi_BKD[..., 1 + v + z : 1 + v + z + p] = context_BP[:, None, :]
        if self.crosses:
            axes_BKQ = (item_BKV - self.item_mean_V) @ self.item_VQ
            cross = axes_BKQ[..., :, None] * context_BP[:, None, None, :]
            phi_BKD[..., 1 + v + z + p :] = cross.reshape(b, k, -1)[..., : self.crosses]
        return phi_BKD


def similarities(tables: Tables, rows_BK: Ints, recent_BR: Ints, fold_B: Ints) -> Floats:
    """How near each item is to the recent ones, near_BKZ in the order of SIMILARITIES; 0 without recent items.

    Mean and greatest cosine of texts and of behaviour, is among them, share of them with its category and its
    brand, and |log price - their mean log price|.
    """
    b, k = rows_BK.shape
    there_BR = recent_BR >= 0
    near_BKZ = np.zeros((b, k, len(SIMILARITIES)))
    count_B = there_BR.sum(axis=1)
    if not count_B.any():
        return near_BKZ
    share_BR = there_BR / np.maximum(count_B, 1)[:, None]
    row_fold = fold_B[:, None]
    vectors = (
        (tables.text_IR[rows_BK], tables.text_IR[recent_BR]),
        (tables.behaviour.similar_FIR[row_fold, tables.fitted_I[rows_BK]],
         tables.behaviour.similar_FIR[row_fold, tables.fitted_I[recent_BR]]),
    )  # fmt: skip
    for i, (items_BKR, recents_BRR) in enumerate(vectors):
        cosine_BKR = items_BKR @ recents_BRR.transpose(0, 2, 1)
        near_BKZ[..., 2 * i] = (cosine_BKR @ share_BR[..., None])[..., 0]
        near_BKZ[..., 2 * i + 1] = np.where(there_BR[:, None, :], cosine_BKR, -1.0).max(axis=2)
    same_BKR = (rows_BK[:, :, None] == recent_BR[:, None, :]) & (rows_BK >= 0)[:, :, None]
    near_BKZ[..., 4] = same_BKR.any(axis=2)
    for i, code_I in ((5, tables.category_I), (6, tables.brand_I)):
        item_BK = code_I[rows_BK]
        same_BKR = (item_BK[:, :, None] == code_I[recent_BR][:, None, :]) & (item_BK >= 0)[:, :, None]
        near_BKZ[..., i] = (same_BKR @ share_BR[..., None])[..., 0]
    price_BR = tables.price_I[recent_BR]
    priced_BR = there_BR & ~np.isnan(price_BR)
    priced_B = priced_BR.sum(axis=1)
    mean_B = np.where(priced_BR, price_BR, 0.0).sum(axis=1) / np.maximum(priced_B, 1)
    away_BK = np.abs(tables.price_I[rows_BK] - mean_B[:, None])
    near_BKZ[..., 7] = np.where(np.isnan(away_BK) | (priced_B == 0)[:, None], 0.0, away_BK)
    near_BKZ[count_B == 0] = 0.0
    return near_BKZ
