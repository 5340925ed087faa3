"""φ with one row of parameters for all items: what the item is, what the user took lately, and crosses.

φ = [1 | static | behaviour | similarity to recent items | context, projected | crosses context × item].

Shapes: B decisions, K items, D features, X context features, R recent items or rank, P context axes,
Q item axes, V item features (static and behaviour), Z similarities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from actors.features.behaviour import Behaviour, Folds
from actors.features.extended import extend
from actors.features.features import Floats, Ints

SIMILARITIES = (
    "recent text mean", "recent text max", "recent behaviour mean", "recent behaviour max",
    "recent same", "recent category", "recent brand", "recent price",
)  # fmt: skip


@dataclass(frozen=True)
class Tables:
    """Rows of the catalogue's items, an unknown item last: static_IS, text_IR (unit), codes_3I (row, category
    and brand; -1 for none), price_I2 (log, and 1; 0 and 0 for
    none), fitted_I (row in the behaviour tables)."""

    static_IS: Floats
    text_IR: Floats
    codes_3I: Ints
    price_I2: Floats
    fitted_I: Ints
    behaviour: Behaviour

    def items(self, rows: Ints, fold: int) -> Floats:
        """Item features (..., V) of rows (...), as users of this fold read them."""
        facts = self.behaviour.facts_FIC[fold].take(self.fitted_I.take(rows), axis=0)
        return np.concatenate([self.static_IS.take(rows, axis=0), facts], axis=-1)

    def followed(self, more: "Tables") -> "Tables":
        """These rows and then those of `more`, whose last, the unknown item's, is dropped."""
        return Tables(
            extend(self.static_IS, more.static_IS),
            extend(self.text_IR, more.text_IR),
            extend(self.codes_3I, more.codes_3I, axis=1),
            extend(self.price_I2, more.price_I2),
            extend(self.fitted_I, more.fitted_I),
            self.behaviour,
        )

    def whole(self) -> Floats:
        """Item features of the catalogue (I, V) as a user without a fold reads them."""
        return self.items(np.arange(len(self.fitted_I) - 1), -1)


@dataclass(frozen=True)
class Joint:
    """The fitted projections and scales."""

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

    def names(self, items: tuple[str, ...]) -> tuple[str, ...]:
        """Feature names from those of the item features (V)."""
        contexts = [f"context[{p}]" for p in range(self.context_XP.shape[1])]
        crosses = [f"{c}×item[{q}]" for q in range(self.item_VQ.shape[1]) for c in contexts]
        near = [SIMILARITIES[z] for z in self.kept_Z]
        return ("1", *items, *near, *contexts, *crosses[: self.crosses])

    def axes(self, tables: Tables, product: Callable[[Floats, Floats], Floats] = np.matmul) -> Floats:
        """Item axes of every item in every fold, the unknown item last: axes_FIQ.

        Args:
            product: of the items' features and the axes; `dense.times` gives an item the same bits in any table.
        """
        rows_I = np.append(np.arange(len(tables.fitted_I) - 1), -1)
        folds = range(len(tables.behaviour.facts_FIC))
        return np.stack([product(tables.items(rows_I, f) - self.item_mean_V, self.item_VQ) for f in folds])

    def taste(self, axes_FIQ: Sequence[Floats], recent: "Recent", folds: Folds) -> Floats:
        """Mean item axes of the recent items and log(1 + their number): taste_BT, T = Q + 1."""
        taste_BT = np.zeros((len(recent.rows_BR), axes_FIQ[0].shape[1] + 1))
        if recent.any:
            for f, part in folds:
                taken_BRQ = axes_FIQ[f].take(recent.rows_BR[part], axis=0)
                taste_BT[part, :-1] = (recent.share_B1R[part] @ taken_BRQ)[:, 0]
            taste_BT[:, -1] = np.log1p(recent.count_B)
        return taste_BT

    def phi(
        self,
        tables: Tables,
        axes_FIQ: Sequence[Floats],
        context_BX: Floats,
        rows_BK: Ints,
        recent: "Recent",
        folds: Folds,
        out: Floats,
    ) -> None:
        """φ of every item into `out` (B, K, D). rows_BK: one row where all decisions are over the same items."""
        s, v = tables.static_IS.shape[1], len(self.item_mean_V)
        z, p, q = len(self.kept_Z), self.context_XP.shape[1], self.item_VQ.shape[1]
        out[..., 0] = 1.0
        out[..., 1 : 1 + s] = tables.static_IS.take(rows_BK, axis=0)
        fitted_BK = tables.fitted_I.take(rows_BK)
        for f, part in folds:
            out[part, :, 1 + s : 1 + v] = tables.behaviour.facts_FIC[f].take(_of(fitted_BK, part), axis=0)
        near_BZK = similarities(tables, rows_BK, recent, folds).take(self.kept_Z, axis=1)
        near_BZK -= self.shift_Z[:, None]
        near_BZK *= self.scale_Z[:, None]
        out[..., 1 + v : 1 + v + z] = near_BZK.swapaxes(1, 2)
        context_B1P = (context_BX - self.context_mean_X)[:, None] @ self.context_XP
        out[..., 1 + v + z : 1 + v + z + p] = context_B1P
        if self.crosses:
            for f, part in folds:
                axes_BKQ1 = axes_FIQ[f].take(_of(rows_BK, part), axis=0)[..., None]
                cross_BKQP = axes_BKQ1 * context_B1P[part][..., None, :]
                flat_BKC = cross_BKQP.reshape(*cross_BKQP.shape[:2], q * p)
                out[part, :, 1 + v + z + p :] = flat_BKC[..., : self.crosses]


def _of(rows_BK: Ints, part: Any) -> Ints:
    """The rows of these decisions; one row is of all."""
    return rows_BK if len(rows_BK) == 1 else rows_BK[part]


@dataclass(frozen=True)
class Recent:
    """The recent items of decisions: rows_BR of the catalogue, padded by -1; equal weights of those that are there,
    share_B1R, and their number, count_B."""

    rows_BR: Ints
    share_B1R: Floats
    count_B: Ints

    @classmethod
    def of(cls, rows_BR: Ints) -> "Recent":
        """Of rows that are padded by -1, which the first recent item of the decision takes the place of: it changes no
        maximum, and weighs nothing."""
        there_BR = rows_BR >= 0
        count_B = there_BR.sum(axis=1)
        share_BR = there_BR / np.maximum(count_B, 1)[:, None]
        return cls(np.where(there_BR, rows_BR, rows_BR[:, :1]), share_BR[:, None], count_B)

    @cached_property
    def any(self) -> bool:
        """Whether any decision has recent items."""
        return bool(self.count_B.any())


def similarities(tables: Tables, rows_BK: Ints, recent: Recent, folds: Folds) -> Floats:
    """How near each item is to the recent ones, near_BZK in the order of SIMILARITIES; 0 without recent items.

    Mean and greatest cosine of texts and of behaviour; the shares of recent items that are this item, have its
    category, have its brand; and |log price - mean log price of the recent items|.
    """
    near_BZK = np.zeros((len(recent.rows_BR), len(SIMILARITIES), rows_BK.shape[1]))
    if not recent.any:
        return near_BZK
    share_B1R, recent_BR = recent.share_B1R, recent.rows_BR
    text_BRK = tables.text_IR.take(recent_BR, axis=0) @ tables.text_IR.take(rows_BK, axis=0).swapaxes(1, 2)
    own_BR, fitted_BK, taken_BRK = (
        tables.fitted_I.take(recent_BR),
        tables.fitted_I.take(rows_BK),
        np.empty_like(text_BRK),
    )
    for f, part in folds:
        similar_IR = tables.behaviour.similar_FIR[f]
        item_BRK = similar_IR.take(_of(fitted_BK, part), axis=0).swapaxes(1, 2)
        taken_BRK[part] = similar_IR.take(own_BR[part], axis=0) @ item_BRK
    for i, cosine_BRK in enumerate((text_BRK, taken_BRK)):
        near_BZK[:, 2 * i] = (share_B1R @ cosine_BRK)[:, 0]
        cosine_BRK.max(axis=1, out=near_BZK[:, 2 * i + 1])
    near_BZK[:, 4:7] = _same(tables.codes_3I, rows_BK, recent_BR, share_B1R)
    mean_B12 = share_B1R @ tables.price_I2.take(recent_BR, axis=0)
    priced_B1 = mean_B12[..., 1]
    item_BK2 = tables.price_I2.take(rows_BK, axis=0)
    away_BK = np.abs(item_BK2[..., 0] - mean_B12[..., 0] / np.maximum(priced_B1, 1e-9))
    near_BZK[:, 7] = away_BK * (item_BK2[..., 1] * (priced_B1 > 0))
    if not recent.count_B.all():
        near_BZK[recent.count_B == 0] = 0.0
    return near_BZK


def _same(codes_3I: Ints, rows_BK: Ints, recent_BR: Ints, share_B1R: Floats) -> Floats:
    """Shares of the recent items that have an item's own code, for each of the three codes: same_B3K."""
    item_3BK = codes_3I.take(rows_BK, axis=1)
    recent_3BR = codes_3I.take(recent_BR, axis=1)
    recent_3BR[recent_3BR < 0] = -2
    same_3BRK = (recent_3BR[..., None] == item_3BK[:, :, None]).astype(np.float64)
    same_3B1K: Floats = share_B1R @ same_3BRK
    return same_3B1K[:, :, 0].swapaxes(0, 1)
