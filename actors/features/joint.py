"""φ with one row of parameters for all items: what the item is, what the user took lately, and crosses.

φ = [1 | static | behaviour | similarity to recent items | context, projected | crosses context × item].

Shapes: B decisions, K items, D features, X context features, R recent items or rank, P context axes,
Q item axes, V item features (static and behaviour), Z similarities.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from actors.features.behaviour import Behaviour
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

    def taste(self, axes_IQ: Floats, recent_BR: Ints) -> Floats:
        """Mean item axes of the recent items (-1 pads) and log(1 + their number): taste_BT, T = Q + 1."""
        taste_BT = np.zeros((len(recent_BR), axes_IQ.shape[1] + 1))
        if recent_BR.shape[1]:
            share_B1R, count_B = shares(recent_BR)
            taste_BT[:, :-1] = (share_B1R @ axes_IQ.take(recent_BR, axis=0))[:, 0]
            taste_BT[:, -1] = np.log1p(count_B)
        return taste_BT

    def phi(
        self,
        tables: Tables,
        axes_IQ: Floats,
        context_BX: Floats,
        rows_BK: Ints,
        recent_BR: Ints,
        fold: int,
        out: Floats,
    ) -> None:
        """φ of every item for users of one fold, whose item axes are axes_IQ, into `out` (B, K, D).

        recent_BR is padded by -1.
        """
        b, k = rows_BK.shape
        s, v = tables.static_IS.shape[1], len(self.item_mean_V)
        z, p, q = len(self.kept_Z), self.context_XP.shape[1], self.item_VQ.shape[1]
        out[..., 0] = 1.0
        out[..., 1 : 1 + s] = tables.static_IS.take(rows_BK, axis=0)
        out[..., 1 + s : 1 + v] = tables.behaviour.facts_FIC[fold].take(tables.fitted_I.take(rows_BK), axis=0)
        near_BZK = similarities(tables, rows_BK, recent_BR, fold).take(self.kept_Z, axis=1)
        near_BZK -= self.shift_Z[:, None]
        near_BZK *= self.scale_Z[:, None]
        out[..., 1 + v : 1 + v + z] = near_BZK.swapaxes(1, 2)
        context_BP = (context_BX - self.context_mean_X) @ self.context_XP
        out[..., 1 + v + z : 1 + v + z + p] = context_BP[:, None, :]
        if self.crosses:
            cross_BKQP = axes_IQ.take(rows_BK, axis=0)[..., None] * context_BP[:, None, None, :]
            out[..., 1 + v + z + p :] = cross_BKQP.reshape(b, k, q * p)[..., : self.crosses]


def shares(recent_BR: Ints) -> tuple[Floats, Ints]:
    """Equal weights of the recent items that are there (-1 is not), share_B1R, and their number, count_B."""
    there_BR = recent_BR >= 0
    count_B = there_BR.sum(axis=1)
    share_BR = there_BR / np.maximum(count_B, 1)[:, None]
    return share_BR[:, None], count_B


def similarities(tables: Tables, rows_BK: Ints, recent_BR: Ints, fold: int) -> Floats:
    """How near each item is to the recent ones, near_BZK in the order of SIMILARITIES; 0 without recent items.

    Mean and greatest cosine of texts and of behaviour; the shares of recent items that are this item, have its
    category, have its brand; and |log price - mean log price of the recent items|.
    """
    b, k = rows_BK.shape
    near_BZK = np.zeros((b, len(SIMILARITIES), k))
    share_B1R, count_B = shares(recent_BR)
    if not count_B.any():
        return near_BZK
    full = count_B.min() == recent_BR.shape[1]
    similar_IR, fitted_I = tables.behaviour.similar_FIR[fold], tables.fitted_I
    cosines = (
        tables.text_IR.take(recent_BR, axis=0) @ tables.text_IR.take(rows_BK, axis=0).swapaxes(1, 2),
        similar_IR.take(fitted_I.take(recent_BR), axis=0)
        @ similar_IR.take(fitted_I.take(rows_BK), axis=0).swapaxes(1, 2),
    )
    for i, cosine_BRK in enumerate(cosines):
        near_BZK[:, 2 * i] = (share_B1R @ cosine_BRK)[:, 0]
        if not full:
            cosine_BRK[recent_BR < 0] = -np.inf
        near_BZK[:, 2 * i + 1] = cosine_BRK.max(axis=1)
    near_BZK[:, 4:7] = _same(tables.codes_3I, rows_BK, recent_BR, share_B1R)
    mean_B12 = share_B1R @ tables.price_I2.take(recent_BR, axis=0)
    priced_B1 = mean_B12[..., 1]
    item_BK2 = tables.price_I2.take(rows_BK, axis=0)
    away_BK = np.abs(item_BK2[..., 0] - mean_B12[..., 0] / np.maximum(priced_B1, 1e-9))
    near_BZK[:, 7] = away_BK * (item_BK2[..., 1] * (priced_B1 > 0))
    if not full:
        near_BZK[count_B == 0] = 0.0
    return near_BZK


def _same(codes_3I: Ints, rows_BK: Ints, recent_BR: Ints, share_B1R: Floats) -> Floats:
    """Shares of the recent items that have an item's own code, for each of the three codes: same_B3K."""
    item_3BK = codes_3I.take(rows_BK, axis=1)
    recent_3BR = codes_3I.take(recent_BR, axis=1)
    recent_3BR[recent_3BR < 0] = -2
    same_3BRK = (recent_3BR[..., None] == item_3BK[:, :, None]).astype(np.float64)
    same_3B1K: Floats = share_B1R @ same_3BRK
    return same_3B1K[:, :, 0].swapaxes(0, 1)
