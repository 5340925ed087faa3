"""The items that a client may show: a version's catalogue with the client's own changes over it."""

import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from actors.features.feature_map import FeatureMap
from cluster.records import item_table


@dataclass(frozen=True)
class Catalogue:
    """Eligible items in a fixed order, and the feature map that knows them.

    gone: rows of the feature map that were deleted, or replaced by a later one.
    revision: the last catalogue change in it, 0 for a version's own.
    """

    feature_map: FeatureMap
    gone: frozenset[int] = frozenset()
    revision: int = 0

    def __len__(self) -> int:
        return len(self.feature_map.item_ids) - len(self.gone)

    def __contains__(self, item_id: object) -> bool:
        return item_id in self.feature_map.row

    @property
    def known(self) -> Container[str]:
        return self

    @cached_property
    def ids(self) -> tuple[str, ...]:
        names = self.feature_map.item_ids
        return tuple(name for row, name in enumerate(names) if row not in self.gone) if self.gone else names


def of_version(feature_map: FeatureMap) -> Catalogue:
    return Catalogue(feature_map)


def changed(base: Catalogue, changes: Mapping[str, str | None], revision: int) -> Catalogue:
    """`base` with items put (JSON bodies) and deleted (None), those put last and in the order of `changes`.

    It costs what changes: the rows of `base` are shared. Changes taken one after another, each item by its last one,
    give the same ids in the same order as all at once.
    """
    put = {item_id: body for item_id, body in changes.items() if body is not None}
    rows = (base.feature_map.row.get(item_id) for item_id in changes)
    feature_map = base.feature_map.with_changes(
        item_table(put), [name for name, body in changes.items() if body is None]
    )
    return Catalogue(feature_map, base.gone.union(row for row in rows if row is not None), revision)


def body_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse for a row of a version's items table: what GET /v1/items answers, without its media."""
    created = row["created_at"]
    names = ("provider_id", "title", "description", "price", "category", "brand", "embedding")
    return {
        **{name: row[name] for name in names},
        "attributes": {key: json.loads(text) for key, text in row["attributes"] or []},
        "created_at": created.isoformat() if created else None,
    }


def missing(known: Container[str], ids: Sequence[str]) -> int | None:
    """The place of the first id that is not known."""
    return next((place for place, item_id in enumerate(ids) if item_id not in known), None)
