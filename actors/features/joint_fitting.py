"""How a joint map is fitted and how wide its blocks are.

`max_dimension` is spent in this order: intercept, behaviour facts, similarities, text, embedding, context,
crosses, the identity of each item where there are at most 64 and all fit, and what is left on levels and
numbers of the items.

Shapes: B fit rows, K candidates, I items, V item features, Q item axes, T tastes, X context features.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.behaviour import Behaviour, folds, grouped, whole
from actors.features.behaviour_fitting import fit_behaviour
from actors.features.candidates import padded
from actors.features.catalogue import ItemEncoder, codes, fit_items, has_embeddings, log_price, row_numbers, unit
from actors.features.context_fitting import read_fit_rows
from actors.features.features import Floats, Ints
from actors.features.fitted import Fitted
from actors.features.joint import SIMILARITIES, Joint, Recent, Tables, similarities
from actors.features.keys import item_keys
from actors.features.lowrank import principal
from actors.features.recent import recent_padded
from cluster.config import FeatureSettings
from cluster.records import Dataset

ARMS = 64
CONTEXT_AXES = 5
ITEM_AXES = 6
SAMPLE = 20_000
CHUNK = 2_000


def fit_joint(
    events: pa.Table, dataset: Dataset, ids: tuple[str, ...], settings: FeatureSettings, crossed: bool, seed: int
) -> Fitted:
    """A joint map of these fit rows, over the catalogue and the users of the data set, with crosses or without."""
    behaviour = fit_behaviour(events, ids, settings.behaviour_rank, seed)
    widths = Widths.of(settings, len(behaviour.names), has_embeddings(dataset.items), len(ids), crossed)
    encoder = fit_items(
        dataset.items, settings.levels, widths.text, widths.embedding, widths.plain, widths.identity > 0, seed
    )
    place = {name: i for i, name in enumerate(ids)}
    tables = item_tables(encoder, dataset.items, place, behaviour.narrowed(widths.behaviour))
    seen = read_fit_rows(events, dataset.users, settings.levels, recent_levels=False)
    block = seen.plain(settings.max_dimension)
    rows_B = np.sort(np.random.default_rng(seed).permutation(len(events))[:SAMPLE])
    sample = Sample.of(events.take(pa.array(rows_B)), ids)
    context_BX = block.encode(seen.numbers_BN[rows_B], seen.on_BL[rows_B])
    joint = _item_side(sample, tables, widths)
    taste_BT = sample.tastes(joint, tables)
    taste_mean_T, deviation_T = taste_BT.mean(axis=0), taste_BT.std(axis=0)
    taste_scale_T = np.where(deviation_T > 1e-9, 1.0 / np.maximum(deviation_T, 1e-9), 0.0)
    whole_BX = np.concatenate([context_BX, (taste_BT - taste_mean_T) * taste_scale_T], axis=1)
    mean_X, context_XP = principal(whole_BX, widths.context)
    crosses = min(widths.crosses, context_XP.shape[1] * joint.item_VQ.shape[1])
    joint = replace(joint, context_mean_X=mean_X, context_XP=context_XP, crosses=crosses)
    return Fitted("joint", block, ids, encoder, joint, tables, taste_mean_T, taste_scale_T)


@dataclass(frozen=True)
class Widths:
    """How many features each block of a joint map gets."""

    behaviour: int
    similarities: int
    text: int
    embedding: int
    context: int
    crosses: int
    identity: int
    plain: int

    @classmethod
    def of(cls, settings: FeatureSettings, behaviour: int, embedding: bool, items: int, crossed: bool) -> "Widths":
        """Spend `max_dimension` in the order of the module's docstring."""
        left = settings.max_dimension - 1
        wants = (
            behaviour, len(SIMILARITIES), settings.text_rank, settings.text_rank * embedding,
            CONTEXT_AXES, CONTEXT_AXES * ITEM_AXES * crossed, items * (items <= ARMS),
        )  # fmt: skip
        spent: list[int] = []
        for want in wants:
            spent.append(min(want, left))
            left -= spent[-1]
        if spent[-1] < items:  # some items with a parameter of their own and some without would be unfair
            left, spent[-1] = left + spent[-1], 0
        spent.append(left)
        return cls(*spent)


@dataclass(frozen=True)
class Sample:
    """Fit rows that scales are measured on: their recent items, candidates (of the first few) and folds."""

    recent_BR: Ints
    fold_B: Ints
    rows_BK: Ints
    mask_BK: NDArray[np.bool_]

    @classmethod
    def of(cls, events: pa.Table, ids: tuple[str, ...]) -> "Sample":
        row = {name: i for i, name in enumerate(ids)}
        few = max(1, 400_000 // len(ids)) if events["candidates"].null_count else 4_000
        rows_BK, _, mask_BK = padded(events["candidates"][:few], row, item_keys([*ids, ""]))
        return cls(recent_padded(events, row), folds(events["user_id"]), rows_BK, mask_BK)

    def tastes(self, joint: Joint, tables: Tables) -> Floats:
        """taste_BT of every row, not yet standardised."""
        axes_FIQ = list(joint.axes(tables))
        taste_BT = np.zeros((len(self.fold_B), axes_FIQ[0].shape[1] + 1))
        for f, part in grouped(self.fold_B, CHUNK):
            taste_BT[part] = joint.taste(axes_FIQ, Recent.of(self.recent_BR[part]), whole(f))
        return taste_BT

    def near(self, tables: Tables) -> Floats:
        """Similarities near_NZ of all candidates."""
        near_BKZ = np.zeros((*self.rows_BK.shape, len(SIMILARITIES)))
        for f, part in grouped(self.fold_B[: len(self.rows_BK)], CHUNK):
            recent = Recent.of(self.recent_BR[part])
            near_BKZ[part] = similarities(tables, self.rows_BK[part], recent, whole(f)).swapaxes(1, 2)
        return near_BKZ[self.mask_BK]


def _item_side(sample: Sample, tables: Tables, widths: Widths) -> Joint:
    """Item axes and the similarities that vary, with their scales; the context side is still empty."""
    item_mean_V, item_VQ = principal(tables.whole(), ITEM_AXES if widths.crosses else 1)
    near_NZ = sample.near(tables)
    deviation_Z = near_NZ.std(axis=0)
    kept_Z = np.flatnonzero(deviation_Z > 1e-9)[: widths.similarities]
    shift_Z, scale_Z = near_NZ.mean(axis=0)[kept_Z], 1.0 / deviation_Z[kept_Z]
    return Joint(item_mean_V, item_VQ, kept_Z, shift_Z, scale_Z, np.zeros(0), np.zeros((0, 0)), 0)


def item_tables(
    encoder: ItemEncoder, items: pa.Table, place: Mapping[str, int], behaviour: Behaviour, first: int = 0
) -> Tables:
    """Rows of a catalogue, numbered from `first` on; an item without a `place` among the fitted has no behaviour."""
    vectors_IR, price_I = encoder.vectors(items), log_price(items)
    return Tables(
        static_IS=encoder.static(items, vectors_IR),
        text_IR=unit(vectors_IR),
        codes_3I=codes(items, first),
        price_I2=np.stack([np.nan_to_num(price_I), ~np.isnan(price_I)], axis=1),
        fitted_I=np.append(row_numbers(place, items["item_id"].to_pylist()), -1),
        behaviour=behaviour,
    )
