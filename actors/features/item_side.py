"""A joint map seen from the items: θᵀφ(context, item) as q(θ, context)·v(item) and what is left.

v = [item features | text | going together | category | brand | log price], each similarity block only where the map
keeps a similarity that reads it. θ, the context and the recent items are all in q, so that vectors change with the
catalogue alone. What of θᵀφ the product holds:

- item features and crosses (axes of an item are linear in its features): exactly, for users without a fold;
- mean similarities of text and of going together: exactly. The greatest over the recent items: that of one of them,
  which each query names;
- shares of recent items of this category or brand: exactly up to CODES of them, beyond that by random signs;
- distance from the mean price: by linear interpolation between HATS quantiles of the catalogue;
- a lift or hashed buckets: the least squares of the anchors, items spread over the catalogue;
- whether a recent item is this very item: not at all. Its owner adds the recent items themselves.

What varies with the context alone shifts all items alike and is left out.

Shapes: N queries, D features, V item features, W width of a vector, R recent items, A anchors, X context features.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actors.features.feature_map import FeatureMap
from actors.features.features import Features, Floats, Ints, Keys
from actors.features.hashed import places
from actors.features.joint import Joint, Tables

CODES = 32
HATS = 9
ANCHORS = 256
BLOCK = 65_536
TEXT, TOGETHER, CATEGORY, BRAND, PRICE = (0, 1), (2, 3), (5,), (6,), (7,)
"""Similarities (places in `joint.SIMILARITIES`) that read each block."""


@dataclass(frozen=True)
class Levels:
    """Vectors of width CODES at most for the codes of a column: one-hot, or signs where there are more codes."""

    known: Ints
    width: int

    @classmethod
    def of(cls, code_I: Ints) -> "Levels":
        known = np.unique(code_I[code_I >= 0])
        return cls(known if len(known) <= CODES else known[:0], min(len(known), CODES))

    def vectors(self, code_N: Ints) -> Floats:
        """(N, width); 0 for none, and for one that was not there."""
        if len(self.known):
            return np.asarray(code_N[:, None] == self.known, np.float64)
        steps_W = np.arange(1, self.width + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        token_NW: Keys = (code_N.astype(np.uint64) | np.uint64(1))[:, None] ^ steps_W
        sign_NW = places(token_NW, 1)[1] / np.sqrt(max(self.width, 1))
        return np.asarray(sign_NW * (code_N >= 0)[:, None])


@dataclass(frozen=True)
class ItemSide:
    """Made by `of` for a joint map and its catalogue; items that come later are seen by what it knows."""

    joint: Joint
    category: Levels
    brand: Levels
    knots_H: Floats
    anchors: tuple[str, ...]
    """Items whose features tell of a context what queries need of it: any one where the map has no lift."""
    solve_WA: Floats
    """Least squares of the anchors' numbers on their vectors; empty without a lift."""

    @cached_property
    def _kept(self) -> frozenset[int]:
        return frozenset(self.joint.kept_Z.tolist())

    @classmethod
    def of(cls, feature_map: FeatureMap) -> "ItemSide | None":
        """None for a map with parameters per item."""
        joint, tables = feature_map.joint, feature_map.tables
        if joint is None or tables is None:
            return None
        items = len(feature_map.item_ids)
        code_3I = tables.codes_3I.take(np.arange(items), axis=1)
        price_I2 = tables.price_I2.take(np.arange(items), axis=0)
        priced_I = price_I2[price_I2[:, 1] > 0, 0]
        knots_H = np.unique(np.quantile(priced_I, np.linspace(0, 1, HATS))) if len(priced_I) else np.zeros(1)
        plain = cls(
            joint, Levels.of(code_3I[1]), Levels.of(code_3I[2]), knots_H, feature_map.item_ids[:1], np.zeros((0, 0))
        )
        if feature_map.dimension == feature_map.base:
            return plain
        rows = np.unique(np.linspace(0, items - 1, min(items, ANCHORS)).astype(np.int64))
        vectors_AW = np.append(plain.vectors(tables, rows), np.ones((len(rows), 1)), axis=1)
        names = tuple(feature_map.item_ids[row] for row in rows)
        return cls(*(joint, plain.category, plain.brand, knots_H, names), np.linalg.pinv(vectors_AW, 1e-6)[:-1])

    def vectors(self, tables: Tables, rows: Ints) -> Floats:
        """v of these rows of the catalogue, (N, W) in single precision."""
        starts = range(0, max(len(rows), 1), BLOCK)
        return np.concatenate([self._vectors(tables, rows[start : start + BLOCK]) for start in starts])

    def _vectors(self, tables: Tables, rows: Ints) -> Floats:
        blocks = [tables.items(rows, -1)]
        if self._reads(TEXT):
            blocks.append(tables.text_IR.take(rows, axis=0))
        if self._reads(TOGETHER):
            blocks.append(tables.behaviour.similar_FIR[-1].take(tables.fitted_I.take(rows), axis=0))
        code_3N = tables.codes_3I.take(rows, axis=1)
        if self._reads(CATEGORY):
            blocks.append(self.category.vectors(code_3N[1]))
        if self._reads(BRAND):
            blocks.append(self.brand.vectors(code_3N[2]))
        if self._reads(PRICE):
            price_N2 = tables.price_I2.take(rows, axis=0)
            blocks.append(self._hats(price_N2[:, 0]) * price_N2[:, 1:])
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def _reads(self, similarities: tuple[int, ...]) -> bool:
        return not self._kept.isdisjoint(similarities)

    def _hats(self, price_N: Floats) -> Floats:
        """Weights of the knots that interpolate a function of the price, (N, H)."""
        unit_HH = np.eye(len(self.knots_H))
        return np.stack([np.interp(price_N, self.knots_H, unit_H) for unit_H in unit_HH], axis=1)

    def queries(self, feature_map: FeatureMap, seen: Features, recent_R: Ints, theta_ND: Floats) -> Floats:
        """q of each row of parameters, (N, W) in single precision; row n sees the recent item n mod R as the nearest.

        Args:
            seen: features of `anchors` in this context.
            recent_R: rows of the recent items.
        """
        tables = feature_map.tables
        assert tables is not None
        query_NW = np.concatenate([self._own(theta_ND, seen.context_X), self._near(theta_ND, recent_R, tables)], axis=1)
        if len(self.solve_WA):
            lifted_AD = seen.phi_KD[:, feature_map.base :]
            query_NW += theta_ND[:, feature_map.base :] @ (self.solve_WA @ lifted_AD).T
        return query_NW.astype(np.float32)

    def _own(self, theta_ND: Floats, context_X: Floats) -> Floats:
        """Item features, on their own and crossed with the context."""
        joint, v = self.joint, len(self.joint.item_mean_V)
        q, p = joint.item_VQ.shape[1], joint.context_XP.shape[1]
        context_P = (context_X - joint.context_mean_X) @ joint.context_XP
        cross_NE = np.zeros((len(theta_ND), q * p))
        start = 1 + v + len(joint.kept_Z) + p
        cross_NE[:, : joint.crosses] = theta_ND[:, start : start + joint.crosses]
        taste_NQ = cross_NE.reshape(len(theta_ND), q, p) @ context_P
        return np.asarray(theta_ND[:, 1 : 1 + v] + taste_NQ @ joint.item_VQ.T)

    def _near(self, theta_ND: Floats, recent_R: Ints, tables: Tables) -> Floats:
        """The blocks after the item features."""
        near_NZ = self._similarity(theta_ND)
        count = len(recent_R)
        if not count:
            near_NZ[:] = 0.0
            recent_R = np.array([-1])
        near_N = recent_R[np.arange(len(theta_ND)) % len(recent_R)]
        blocks = []
        if self._reads(TEXT):
            text_IR = tables.text_IR
            mean_R, nearest_NR = text_IR.take(recent_R, axis=0).mean(axis=0), text_IR.take(near_N, axis=0)
            blocks.append(near_NZ[:, 0:1] * mean_R + near_NZ[:, 1:2] * nearest_NR)
        if self._reads(TOGETHER):
            similar_IR, fitted_I = tables.behaviour.similar_FIR[-1], tables.fitted_I
            mean_R = similar_IR.take(fitted_I.take(recent_R), axis=0).mean(axis=0)
            blocks.append(near_NZ[:, 2:3] * mean_R + near_NZ[:, 3:4] * similar_IR.take(fitted_I.take(near_N), axis=0))
        code_3R = tables.codes_3I.take(recent_R, axis=1)
        if self._reads(CATEGORY):
            blocks.append(near_NZ[:, 5:6] * self.category.vectors(code_3R[1]).mean(axis=0))
        if self._reads(BRAND):
            blocks.append(near_NZ[:, 6:7] * self.brand.vectors(code_3R[2]).mean(axis=0))
        if self._reads(PRICE):
            price_R2 = tables.price_I2.take(recent_R, axis=0)
            priced = price_R2[:, 1].sum()
            away_H = np.abs(self.knots_H - price_R2[:, 0].sum() / max(priced, 1)) * (priced > 0)
            blocks.append(near_NZ[:, 7:8] * away_H)
        return np.concatenate([np.zeros((len(theta_ND), 0)), *blocks], axis=1)

    def _similarity(self, theta_ND: Floats) -> Floats:
        """What each of SIMILARITIES counts for, (N, 8)."""
        joint, first = self.joint, 1 + len(self.joint.item_mean_V)
        near_NZ = np.zeros((len(theta_ND), 8))
        near_NZ[:, joint.kept_Z] = theta_ND[:, first : first + len(joint.kept_Z)] * joint.scale_Z
        return near_NZ
