"""The feature map: named blocks of numbers about a decision -> φ, fitted once per version.

Three kinds. `arms`: φ = [1, context] and every item has parameters of its own, for tables and small catalogues.
`pair`: the same for two items, in one row of parameters, φ as in `pair.py`. `joint`: one row, φ as in `joint.py`.
Fitting reads the events of the given rows, the items table and the users' attributes, nothing else; serving needs
NumPy alone.

Shapes: B decisions, K items, I items of the catalogue, D features, X context features, R recent items.
"""

import copy
import dataclasses
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features import pair, store
from actors.features.behaviour import Folds, fold, folds, grouped, parted, whole
from actors.features.candidates import padded
from actors.features.catalogue import ItemEncoder, row_numbers
from actors.features.context import ContextBlock
from actors.features.dense import times
from actors.features.extended import extend, places
from actors.features.features import FeatureBatch, Features, Floats, Ints, Keys
from actors.features.fitted import Fitted, parameters_fingerprint
from actors.features.fitting import fit_base, fit_rows
from actors.features.hashed import Hashed
from actors.features.hashed_fitting import fit_hashed
from actors.features.joint import Joint, Recent, Tables
from actors.features.joint_fitting import item_tables
from actors.features.keys import item_keys, key
from actors.features.lift import Lift
from actors.features.lift_fitting import fit_lift, room
from actors.features.recent import MOST, RECENT, known_recent, recent_padded
from actors.features.relations import Relations
from cluster.config import FeatureSettings
from cluster.errors import ModelError
from cluster.records import Dataset, Value

CHUNK = 200_000
Situation: TypeAlias = tuple[Mapping[str, Value], str | None]
"""The context of a decision and its user."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FeatureMap:
    """Made by `fit` or `load`; `with_items` follows a catalogue that changes.

    item_ids: the catalogue now. fitted_ids: the catalogue at the fit, whose places number the arms.
    relations: how its items are related by their content, a row for each of `item_ids`; None where nobody looked.
    """

    kind: str
    fingerprint: str
    context: ContextBlock
    fitted_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    encoder: ItemEncoder | None
    joint: Joint | None
    tables: Tables | None
    taste_mean_T: Floats
    taste_scale_T: Floats
    lift: Lift | None
    hashed: Hashed | None
    relations: Relations | None = None
    _place: dict[str, int] = field(init=False, repr=False, compare=False)
    _row: Mapping[str, int] = field(init=False, repr=False, compare=False)
    _keys_I: Keys = field(init=False, repr=False, compare=False)
    _fitted_I: Ints = field(init=False, repr=False, compare=False)
    _axes_FIQ: Sequence[Floats] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.relations is not None and len(self.relations.kin) != len(self.item_ids) + 1:
            raise ModelError(
                f"relations of {len(self.relations.kin) - 1} items do not fit a catalogue of {len(self.item_ids)}"
            )
        place = {name: i for i, name in enumerate(self.fitted_ids)}
        axes_FIQ = self.joint.axes(self.tables) if self.joint and self.tables else ()
        self._know(
            _place=place,
            _row={name: i for i, name in enumerate(self.item_ids)},
            _keys_I=item_keys([*self.item_ids, ""]),
            _fitted_I=np.append(row_numbers(place, self.item_ids), -1),
            _axes_FIQ=axes_FIQ,
        )

    @property
    def row(self) -> Mapping[str, int]:
        """The row of each item of the catalogue, its place in `item_ids`."""
        return self._row

    def arms_of(self, rows: Ints) -> Ints:
        """Catalogue index at the fit of these rows of `item_ids`, -1 for items that came later."""
        return self._fitted_I.take(rows)

    def _know(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @classmethod
    def fit(cls, dataset: Dataset, rows: Ints, settings: FeatureSettings, seed: int) -> "FeatureMap":
        """Fit on dataset.events[rows] (row numbers or a mask) and the catalogue.

        Raises:
            ModelError: there are no rows or no items.
        """
        events = fit_rows(dataset, rows)
        fitted = fit_base(dataset, events, settings, seed)
        width = room(cls._of(fitted), settings)
        base = cls._of(dataclasses.replace(fitted, kind="arms") if fitted.kind == "pair" else fitted)
        if width and settings.map == "hashed":
            fitted = dataclasses.replace(fitted, hashed=fit_hashed(fitted, base.names, dataset, events, width))
        elif width:
            fitted = dataclasses.replace(fitted, lift=fit_lift(base, events, settings, width, seed))
        made = cls._of(fitted)
        log.info(
            "features.map %s: %d features, %d of them the map's",
            settings.map,
            made.dimension,
            made.dimension - made.base,
        )
        return cls.load(made.arrays(), made.facts())  # the same memory layout, hence bits, as once published

    @classmethod
    def _of(cls, fitted: Fitted) -> "FeatureMap":
        values = {f.name: getattr(fitted, f.name) for f in dataclasses.fields(fitted)}
        return cls(fingerprint=parameters_fingerprint(fitted), item_ids=fitted.fitted_ids, **values)

    @property
    def dimension(self) -> int:
        """D."""
        return self.base + (self.lift.size if self.lift else 0) + (self.hashed.size if self.hashed else 0)

    @property
    def base(self) -> int:
        """Features before those of the lift or the buckets, the first ones."""
        if self.joint:
            return self.joint.dimension
        return 1 + self.context.size + (self.kind == "pair") * (2 + self.context.size)

    @property
    def plain(self) -> Ints:
        """Which of the base features are no curves or crosses of others: what a lift reads."""
        if self.joint:
            return np.arange(self.base - self.joint.crosses)
        return np.append(0, 1 + self.context.plain)

    @property
    def groups(self) -> Ints:
        """The group of each feature (D,), the last for those of the map: priors of groups have scales of their own."""
        if self.kind == "pair":
            return pair.groups(self.base // 2, self.dimension - self.base)
        return (np.arange(self.dimension) >= self.base).astype(np.int64)

    @property
    def intercepts(self) -> tuple[int, ...]:
        """Features that are the level of rewards: their prior mean is the mean reward."""
        return (0, 1 + self.context.size) if self.kind == "pair" else (0,)

    @property
    def arms(self) -> int:
        """A, rows of parameters: with arms one per fitted item and one, the last, for all others."""
        return len(self.fitted_ids) + 1 if self.kind == "arms" else 1

    @property
    def names(self) -> tuple[str, ...]:
        """D names of features."""
        if self.joint is None or self.encoder is None or self.tables is None:
            base: tuple[str, ...] = ("1", *self.context.names)
        else:
            base = self.joint.names((*self.encoder.names, *self.tables.behaviour.names))
        lifted = (*(self.lift.names(base) if self.lift else ()), *(self.hashed.labels if self.hashed else ()))
        return pair.names(base, lifted, self.fitted_ids) if self.kind == "pair" else (*base, *lifted)

    @property
    def context_names(self) -> tuple[str, ...]:
        """X names of context features."""
        tastes = [f"recent item[{q}]" for q in range(len(self.taste_mean_T) - 1)]
        return (*self.context.names, *tastes, "recent count") if self.joint else self.context.names

    def features(
        self,
        context: Mapping[str, Value],
        item_ids: Sequence[str],
        user_id: str | None,
        rows_K: Ints | None = None,
    ) -> Features:
        """One decision. Unknown items, keys, levels and types have fallbacks: no context raises.

        rows_K: the items' rows where the caller knows them, in place of their names: all in the catalogue.
        """
        return self.features_many([(context, user_id)], item_ids, rows_K)[0]

    def features_many(
        self, situations: Sequence[Situation], item_ids: Sequence[str], rows_K: Ints | None = None
    ) -> list[Features]:
        """`features` of decisions over the same items, with the bits that each has alone, in less time."""
        if self.hashed and len(situations) > 1:  # contexts have different numbers of tokens
            return [self.features_many([situation], item_ids, rows_K)[0] for situation in situations]
        known = rows_K is not None
        rows_K = row_numbers(self._row, item_ids) if rows_K is None else rows_K
        keys_K = self._keys_I.take(rows_K)
        if not known and rows_K.min(initial=0) < 0:
            for k in np.flatnonzero(rows_K < 0).tolist():
                keys_K[k] = key(item_ids[k])
        fitted_K = self._fitted_I.take(rows_K)
        context_BX = self.context.some(situations)
        tokens_1T = self.hashed.one(*situations[0])[None] if self.hashed else None
        kin = self.relations.kin.take(rows_K) if self.relations else None
        if self.joint is None:
            fitted_BK = np.broadcast_to(fitted_K, (len(situations), len(fitted_K)))
            phi_BKD, arm_BK = self._arms(context_BX, fitted_BK, tokens_1T)
        else:
            recent_BR = np.full((len(situations), MOST), -1)  # always so many: the bits are those of any company
            for recent_R, (context, _) in zip(recent_BR, situations, strict=True):
                found = known_recent(context.get(RECENT), self._row)
                recent_R[: len(found)] = found
            arm_BK = np.zeros((len(situations), len(rows_K)), np.int64)
            folds = parted([fold(user_id) for _, user_id in situations])
            context_BX, phi_BKD = self._together(context_BX, rows_K[None], Recent.of(recent_BR), tokens_1T, folds)
        return [
            Features(phi_KD, arm_K, fitted_K, keys_K, context_X, kin=kin)
            for phi_KD, arm_K, context_X in zip(phi_BKD, arm_BK, context_BX, strict=True)
        ]

    def batch(self, events: pa.Table) -> FeatureBatch:
        """Decisions of a table of events; null candidates mean the whole catalogue.

        With arms, phi_BKD is a read-only view that repeats each decision's row.
        """
        rows_BK, keys_BK, mask_BK = padded(events["candidates"], self._row, self._keys_I)
        fitted_BK = self._fitted_I[rows_BK]
        context_BX = self.context.many(events)
        kin: dict[str, Any] = {"kin_I": self.relations.kin, "row_BK": rows_BK} if self.relations else {}
        tokens_BT = self.hashed.many(events) if self.hashed else None
        if self.joint is None:
            phi_BKD, arm_BK = self._arms(context_BX, fitted_BK, tokens_BT)
            if self.kind == "pair":
                phi_BKD[~mask_BK] = 0.0
            return FeatureBatch(phi_BKD, arm_BK, fitted_BK, keys_BK, mask_BK, context_BX, **kin)
        context_BX, phi_BKD = self._joint(
            context_BX, rows_BK, recent_padded(events, self._row), tokens_BT, folds(events["user_id"])
        )
        phi_BKD[~mask_BK] = 0.0
        return FeatureBatch(phi_BKD, np.zeros_like(rows_BK), fitted_BK, keys_BK, mask_BK, context_BX, **kin)

    def _arms(self, context_BX: Floats, fitted_BK: Ints, tokens_BT: Keys | None) -> tuple[Floats, Ints]:
        """phi_BKD and arm_BK of contexts alone, the rows the same for every item, but for its sign in a pair."""
        blocks = [np.ones((len(context_BX), 1)), context_BX]
        if self.lift:
            blocks.append(self.lift.rows(np.concatenate(blocks, axis=1)))
        if self.hashed and tokens_BT is not None:
            blocks.append(self.hashed.rows(tokens_BT))
        phi_BF = np.concatenate(blocks, axis=1)
        if self.kind == "pair":
            return pair.paired(phi_BF, fitted_BK, 1 + self.context.size), np.zeros_like(fitted_BK)
        return np.broadcast_to(phi_BF[:, None, :], (*fitted_BK.shape, phi_BF.shape[1])), fitted_BK

    def _joint(
        self, context_BX: Floats, rows_BK: Ints, recent_BR: Ints, tokens_BT: Keys | None, fold_B: Ints
    ) -> tuple[Floats, Floats]:
        """context_BX with the taste of the recent items, and phi_BKD."""
        b, k = rows_BK.shape
        phi_BKD = np.empty((b, k, self.dimension))
        whole_BX = np.concatenate([context_BX, np.zeros((b, len(self.taste_mean_T)))], axis=1)
        for f, part in grouped(fold_B, max(1, CHUNK // max(k, 1))):
            tokens = None if tokens_BT is None else tokens_BT[part]
            recent = Recent.of(recent_BR[part])
            whole_BX[part], phi_BKD[part] = self._together(context_BX[part], rows_BK[part], recent, tokens, whole(f))
        return whole_BX, phi_BKD

    def _together(
        self, context_BX: Floats, rows_BK: Ints, recent: Recent, tokens_BT: Keys | None, folds: Folds
    ) -> tuple[Floats, Floats]:
        """`_joint` of decisions that are in memory together; those with hashed tokens are of users of one fold."""
        joint, tables = self.joint, self.tables
        assert joint is not None
        assert tables is not None
        taste_BT = (joint.taste(self._axes_FIQ, recent, folds) - self.taste_mean_T) * self.taste_scale_T
        whole_BX = np.concatenate([context_BX, taste_BT], axis=1)
        phi_BKD = np.empty((len(context_BX), rows_BK.shape[1], self.dimension))
        joint.phi(tables, self._axes_FIQ, whole_BX, rows_BK, recent, folds, phi_BKD[..., : self.base])
        if self.lift:
            flat_ND = phi_BKD.reshape(-1, self.dimension)
            flat_ND[:, self.base :] = self.lift.rows(flat_ND[:, : self.base])
        if self.hashed and tokens_BT is not None:
            axes_BKQ = self._axes_FIQ[folds[0][0]].take(rows_BK, axis=0)
            phi_BKD[..., self.base :] = self.hashed.crossed(tokens_BT, axes_BKQ, rows_BK)
        return whole_BX, phi_BKD

    def with_items(self, items: pa.Table, replaced: NDArray[np.bool_] | None = None) -> "FeatureMap":
        """The same parameters over another catalogue (ITEMS schema).

        Fitted items keep their arm; the others have the unknown arm, the intercept of a pair's later items, or joint
        features of what they are, without behaviour.

        replaced: items that have another embedding than in this catalogue, which it does not keep
        (`Version.over` does); None for no one.
        """
        ids = tuple(items["item_id"].to_pylist())
        tables = self.tables
        if self.encoder is not None and tables is not None:
            tables = item_tables(self.encoder, items, self._place, tables.behaviour)
        hashed = self.hashed.with_items(items) if self.hashed else None
        relations = self.relations
        if relations is not None:
            rows, fitted = row_numbers(self._row, ids), row_numbers(self._place, ids)
            relations = relations.with_items(items, rows, fitted, replaced)
        return dataclasses.replace(self, item_ids=ids, tables=tables, hashed=hashed, relations=relations)

    def with_changes(self, items: pa.Table, deleted: Collection[str]) -> "FeatureMap":
        """The same parameters over the same catalogue without the deleted ids and with these items after it.

        What was there is shared and not copied, and keeps its rows, so that a change to a large catalogue costs what
        it changes; `item_ids` still names rows that count no more. For `features`; `batch` needs a catalogue in one
        piece (`with_items`).
        """
        ids, first = items["item_id"].to_pylist(), len(self.item_ids)
        made = copy.copy(self)
        made._know(
            item_ids=(*self.item_ids, *ids),
            _row=places(self._row, dict.fromkeys(deleted) | {name: first + i for i, name in enumerate(ids)}),
            _keys_I=extend(self._keys_I, item_keys([*ids, ""])),
            _fitted_I=extend(self._fitted_I, np.append(row_numbers(self._place, ids), -1)),
        )
        if len(ids) and self.encoder is not None and self.tables is not None and self.joint is not None:
            more = item_tables(self.encoder, items, self._place, self.tables.behaviour, first)
            axes_FIQ = zip(self._axes_FIQ, self.joint.axes(more, times), strict=True)
            made._know(tables=self.tables.followed(more), _axes_FIQ=[extend(old, new) for old, new in axes_FIQ])
        if len(ids) and self.hashed is not None:
            made._know(hashed=self.hashed.followed(self.hashed.with_items(items)))
        if len(ids) and self.relations is not None:
            made._know(relations=self.relations.followed(items, row_numbers(self._place, ids)))
        return made

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything that is an array or a list of names, for safetensors."""
        return store.pack(self)[0]

    def facts(self) -> dict[str, Any]:
        """Everything else, for JSON."""
        return store.pack(self)[1]

    @classmethod
    def load(cls, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> "FeatureMap":
        """The inverse of `arrays` and `facts`.

        Raises:
            ModelError: a part is missing.
        """
        return store.unpack(cls, arrays, facts)
