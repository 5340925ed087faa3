"""The items that a client may show: a version's catalogue with the client's own changes over it."""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.bandits.retrieval import Retrieval
from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from cluster.records import item_table
from serve.decisions.columns import Columns, Part


@dataclass(frozen=True)
class Large:
    """Of a catalogue of more than `above` items a decision scores a part, about `most` of them by the blended mean."""

    above: int
    most: int


@dataclass(frozen=True)
class Catalogue:
    """Eligible items in a fixed order, and the feature map that knows them.

    gone: rows of the feature map that were deleted, or replaced by a later one.
    revision: the last catalogue change in it, 0 for a version's own.
    large: when a part of it is scored, None for never. retrieval: finds that part, None for a smaller catalogue.
    columns: what conditions read, by the rows of the feature map.
    """

    feature_map: FeatureMap
    columns: Columns
    gone: frozenset[int] = frozenset()
    revision: int = 0
    large: Large | None = None
    retrieval: Retrieval | None = None

    def __len__(self) -> int:
        return len(self.feature_map.item_ids) - len(self.gone)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.feature_map.row

    @property
    def known(self) -> Container[str]:
        return self

    @cached_property
    def open_I(self) -> NDArray[np.bool_] | None:
        """Which rows of the feature map count; None where all do."""
        if not self.gone:
            return None
        open_I = np.ones(len(self.feature_map.item_ids), np.bool_)
        open_I[list(self.gone)] = False
        return open_I

    @cached_property
    def rows(self) -> Ints:
        """Rows that count, in order: those of `ids`."""
        return np.arange(len(self.feature_map.item_ids)) if self.open_I is None else np.flatnonzero(self.open_I)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        names = self.feature_map.item_ids
        return tuple(name for row, name in enumerate(names) if row not in self.gone) if self.gone else names


def of_version(feature_map: FeatureMap, items: pa.Table, large: Large | None = None) -> Catalogue:
    """`items` has a row for each of the feature map's."""
    return _retrieving(Catalogue(feature_map, Columns(Part(items)), large=large))


def changed(base: Catalogue, changes: Mapping[str, str | None], revision: int) -> Catalogue:
    """`base` with items put (JSON bodies) and deleted (None), those put last and in the order of `changes`.

    It costs what changes: the rows of `base` are shared. Changes taken one after another, each item by its last one,
    give the same ids in the same order as all at once.
    """
    put = {item_id: body for item_id, body in changes.items() if body is not None}
    rows = (base.feature_map.row.get(item_id) for item_id in changes)
    items = item_table(put)
    feature_map = base.feature_map.with_changes(items, [name for name, body in changes.items() if body is None])
    columns = base.columns.followed(items) if put else base.columns
    gone = base.gone.union(row for row in rows if row is not None)
    retrieval = base.retrieval.grown(feature_map) if base.retrieval else None
    return _retrieving(Catalogue(feature_map, columns, gone, revision, base.large, retrieval))


def _retrieving(catalogue: Catalogue) -> Catalogue:
    """With a retrieval where it has become large."""
    large = catalogue.large
    if catalogue.retrieval is not None or large is None or len(catalogue) <= large.above:
        return catalogue
    return replace(catalogue, retrieval=Retrieval.of(catalogue.feature_map, large.most))


def body_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse for a row of a version's items table: what GET /v1/items answers, without its media."""
    moments = {name: row.get(name) for name in ("created_at", "expires_at")}
    names = ("provider_id", "title", "description", "price", "category", "brand", "embedding")
    return {
        **{name: row[name] for name in names},
        "attributes": {key: json.loads(text) for key, text in row["attributes"] or []},
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }


def missing(known: Container[str], ids: Sequence[str]) -> int | None:
    """The place of the first id that is not known."""
    return next((place for place, item_id in enumerate(ids) if item_id not in known), None)
