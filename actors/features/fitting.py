"""How a feature map is fitted: which kind, which blocks, how wide.

`auto` takes `arms` when the catalogue has at most 64 items and the fit rows are at least ten for each
parameter of plain arms (linear terms and levels). What is worth its parameters then enters, down to four rows
per parameter.
A joint map spends `max_dimension` in this order: intercept, behaviour facts, similarities, text,
embedding, context, crosses, the identity of each item where there are at most 64 and all fit, and what is left on
levels and numbers of the items.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from actors.features import store
from actors.features.behaviour import Behaviour, folds, grouped
from actors.features.behaviour_fitting import fit_behaviour
from actors.features.candidates import padded
from actors.features.catalogue import ItemEncoder, codes, fit_items, has_embeddings, log_price, row_numbers, unit
from actors.features.context import ContextBlock
from actors.features.context_fitting import Situations, read_fit_rows
from actors.features.features import Floats, Ints
from actors.features.joint import SIMILARITIES, Joint, Tables, similarities
from actors.features.keys import item_keys
from actors.features.lowrank import principal
from actors.features.recent import recent_padded
from cluster.config import FeatureSettings
from cluster.errors import ModelError
from cluster.records import Dataset

ROWS_PER_PARAMETER = 10
SCREENED_ROWS_PER_PARAMETER = 4
ARMS = 64
CONTEXT_AXES = 5
ITEM_AXES = 6
SAMPLE = 20_000
CHUNK = 2_000


@dataclass(frozen=True)
class Fitted:
    """The fields of a FeatureMap that fitting decides."""

    kind: str
    context: ContextBlock
    fitted_ids: tuple[str, ...]
    encoder: ItemEncoder | None
    joint: Joint | None
    tables: Tables | None
    taste_mean_T: Floats
    taste_scale_T: Floats


def fit(dataset: Dataset, rows: Ints, settings: FeatureSettings, seed: int) -> Fitted:
    """The map of `settings.kind` on dataset.events[rows].

    Raises:
        ModelError: there are no rows or no items.
    """
    rows = np.asarray(rows)
    rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
    ids = tuple(dataset.items["item_id"].to_pylist())
    if not len(rows) or not ids:
        raise ModelError(
            f"a feature map needs rows and items, found {len(rows)} rows and {len(ids)} items: "
            "import more events, or a larger share of them for fitting"
        )
    events = dataset.events.take(pa.array(rows))
    if settings.kind != "joint" and (settings.kind == "arms" or len(ids) <= ARMS):
        seen = read_fit_rows(events, dataset.users, settings.levels, recent_levels=True)
        plain = seen.plain(settings.max_dimension - 1)
        enough = len(rows) >= ROWS_PER_PARAMETER * len(ids) * (1 + plain.size)
        if enough:
            plain = _screened(events, ids, seen, settings.max_dimension - 1, seed)
        if enough or settings.kind == "arms":
            return Fitted("arms", plain, ids, None, None, None, np.zeros(0), np.zeros(0))
    return _fit_joint(events, dataset, ids, settings, seed)


def _screened(events: pa.Table, ids: tuple[str, ...], seen: Situations, limit: int, seed: int) -> ContextBlock:
    arm_B = row_numbers({name: i for i, name in enumerate(ids)}, events["item_id"].to_pylist())
    reward_B = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
    limit = min(limit, len(events) // (SCREENED_ROWS_PER_PARAMETER * len(ids)) - 1)
    return seen.screened(arm_B, reward_B, limit, seed)


def _fit_joint(
    events: pa.Table, dataset: Dataset, ids: tuple[str, ...], settings: FeatureSettings, seed: int
) -> Fitted:
    seen = read_fit_rows(events, dataset.users, settings.levels, recent_levels=False)
    block = seen.plain(settings.max_dimension)
    context_BX = block.encode(seen.numbers_BN, seen.on_BL)
    behaviour = fit_behaviour(events, ids, settings.behaviour_rank, seed)
    widths = Widths.of(settings, len(behaviour.names), has_embeddings(dataset.items), len(ids))
    behaviour = replace(
        behaviour,
        names=behaviour.names[: widths.behaviour],
        facts_FIC=np.ascontiguousarray(behaviour.facts_FIC[..., : widths.behaviour]),
    )
    encoder = fit_items(
        dataset.items, settings.levels, widths.text, widths.embedding, widths.plain, widths.identity > 0, seed
    )
    tables = item_tables(encoder, dataset.items, ids, behaviour)
    sample_B = np.sort(np.random.default_rng(seed).permutation(len(events))[:SAMPLE])
    sample = events.take(pa.array(sample_B))
    row = {name: i for i, name in enumerate(ids)}
    recent_BR, fold_B = recent_padded(sample, row), folds(sample["user_id"])
    item_mean_V, item_VQ = principal(tables.whole(), ITEM_AXES if widths.crosses else 1)
    kept_Z, shift_Z, scale_Z = _similarity_scales(sample, ids, tables, recent_BR, fold_B, widths.similarities)
    joint = Joint(
        item_mean_V, item_VQ, kept_Z, shift_Z, scale_Z,
        np.zeros(0), np.zeros((0, 0)), 0,
    )  # fmt: skip
    taste_BT = np.zeros((len(sample), item_VQ.shape[1] + 1))
    axes_FIQ = joint.axes(tables)
    for f, part in grouped(fold_B, CHUNK):
        taste_BT[part] = joint.taste(axes_FIQ[f], recent_BR[part])
    taste_mean_T, taste_scale_T = taste_BT.mean(axis=0), _inverse(taste_BT.std(axis=0))
    whole_BX = np.concatenate([context_BX[sample_B], (taste_BT - taste_mean_T) * taste_scale_T], axis=1)
    context_mean_X, context_XP = principal(whole_BX, widths.context)
    crosses = min(widths.crosses, context_XP.shape[1] * item_VQ.shape[1])
    joint = replace(joint, context_mean_X=context_mean_X, context_XP=context_XP, crosses=crosses)
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
    def of(cls, settings: FeatureSettings, behaviour: int, embedding: bool, items: int) -> "Widths":
        """Spend `max_dimension` in the order of the module's docstring."""
        left = settings.max_dimension - 1
        wants = (
            behaviour, len(SIMILARITIES), settings.text_rank, settings.text_rank * embedding,
            CONTEXT_AXES, CONTEXT_AXES * ITEM_AXES, items * (items <= ARMS),
        )  # fmt: skip
        spent: list[int] = []
        for want in wants:
            spent.append(min(want, left))
            left -= spent[-1]
        if spent[-1] < items:  # some items with a parameter of their own and some without would be unfair
            left, spent[-1] = left + spent[-1], 0
        spent.append(left)
        return cls(*spent)


def _similarity_scales(
    sample: pa.Table, ids: tuple[str, ...], tables: Tables, recent_BR: Ints, fold_B: Ints, limit: int
) -> tuple[Ints, Floats, Floats]:
    """The similarities that vary over the candidates of the sample, with their mean and inverse deviation."""
    few = slice(0, max(1, 400_000 // max(len(ids), 1))) if sample["candidates"].null_count else slice(0, 4_000)
    row = {name: i for i, name in enumerate(ids)}
    rows_BK, _, mask_BK = padded(sample["candidates"][few], row, item_keys([*ids, ""]))
    near_BKZ = np.zeros((*rows_BK.shape, len(SIMILARITIES)))
    for f, part in grouped(fold_B[few], CHUNK):
        near_BKZ[part] = similarities(tables, rows_BK[part], recent_BR[part], f).swapaxes(1, 2)
    near_NZ = near_BKZ[mask_BK]
    deviation_Z = near_NZ.std(axis=0)
    kept_Z = np.flatnonzero(deviation_Z > 1e-9)[:limit]
    return kept_Z, near_NZ.mean(axis=0)[kept_Z], 1.0 / deviation_Z[kept_Z]


def _inverse(deviation: Floats) -> Floats:
    return np.where(deviation > 1e-9, 1.0 / np.maximum(deviation, 1e-9), 0.0)


def item_tables(encoder: ItemEncoder, items: pa.Table, fitted_ids: tuple[str, ...], behaviour: Behaviour) -> Tables:
    """Rows of a catalogue; an item that was not fitted has no behaviour."""
    vectors_IR = encoder.vectors(items)
    place = {name: i for i, name in enumerate(fitted_ids)}
    fitted_I = np.append(row_numbers(place, items["item_id"].to_pylist()), -1)
    return Tables(
        encoder.static(items, vectors_IR), unit(vectors_IR), codes(items), log_price(items), fitted_I, behaviour
    )


def parameters_fingerprint(fitted: Fitted) -> str:
    """SHA-256 of all that maps a decision to numbers, the catalogue's own rows left out."""
    behaviour = fitted.tables.behaviour if fitted.tables else None
    arrays, facts = store.pack(replace(fitted, tables=None))
    if behaviour is not None:
        more = store.pack(behaviour, "behaviour.")
        arrays, facts = arrays | more[0], facts | more[1]
    return store.fingerprint(arrays, facts)
