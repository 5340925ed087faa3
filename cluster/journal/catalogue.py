"""The catalogues that decisions of the journal chose from: a version's items with the client's own changes over them.

A client's changes are its own. Where several clients share a journal, an item that not all of them put stays out of
what is made for all: a version composed from it would show one client's items to another.
"""

import contextlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import RegistryError
from cluster.journal.journal import ItemRecord
from cluster.records import ITEMS, item_table
from cluster.registry import Registry


@dataclass(frozen=True)
class Expired:
    """Items that had ended `at` a moment: those that a client put by their own end, others of a version by theirs.

    of_version: the earliest first.
    """

    of_version: Mapping[str, datetime]
    own: Mapping[str, datetime | None]
    at: datetime

    def __contains__(self, item: str) -> bool:
        end = self.own[item] if item in self.own else self.of_version.get(item)
        return end is not None and end <= self.at

    def __bool__(self) -> bool:
        """Whether there are any; a version's count also where the client put them anew."""
        first = next(iter(self.of_version.values()), None)
        return (first is not None and first <= self.at) or any(item in self for item in self.own)


class Catalogues:
    """
    Args:
        registry, name: where the versions are.
        changes: of all clients, with their revisions, in order.
        clients: all of the journal, also those whose decisions are not looked at: they see a new version too.
    """

    def __init__(
        self, registry: Registry, name: str, changes: list[tuple[int, ItemRecord]], clients: Collection[str]
    ) -> None:
        self._registry = registry
        self._name = name
        self._changes = changes
        self._clients = {*clients, *(change.client for _, change in changes)}
        self.ids = lru_cache(64)(self._ids)
        self._version = lru_cache(4)(self._read)
        self._ends = lru_cache(4)(self._read_ends)
        self._ending = lru_cache(4)(self._ending_of)

    def _ids(self, version: int, client: str, revision: int) -> tuple[str, ...]:
        """What a client could be shown by a version after a change of its catalogue. Raises RegistryError."""
        known = dict.fromkeys(self._version(version)["item_id"].to_pylist())
        for number, change in self._changes:
            if change.client == client and number <= revision:
                known.pop(change.item_id, None)
                if change.body is not None:
                    known[change.item_id] = None
        return tuple(known)

    def expired(self, version: int | None, client: str, revision: int, at: datetime) -> "Expired":
        """The items whose end had come: of a version, or as the client had put them by a change of its catalogue.

        Of a version that is gone the ends of its own items are not known.
        """
        own: dict[str, datetime | None] = {}
        for number, change in self._ending(version):
            if change.client == client and number <= revision:
                text = json.loads(change.body or "{}").get("expires_at")
                own[change.item_id] = datetime.fromisoformat(text) if text else None
        return Expired({} if version is None else self._ends(version), own, at)

    def _read_ends(self, version: int) -> dict[str, datetime]:
        """The ends of a version's own items, the earliest first."""
        with contextlib.suppress(RegistryError):
            items = self._version(version)
            items = items.filter(pc.is_valid(items["expires_at"])).sort_by("expires_at")
            return dict(zip(items["item_id"].to_pylist(), items["expires_at"].to_pylist(), strict=True))
        return {}

    def _ending_of(self, version: int | None) -> list[tuple[int, ItemRecord]]:
        """The changes of items that were ever put with an end, or have one in the version."""
        ends = self._ends(version) if version is not None else {}
        put = {(c.client, c.item_id) for _, c in self._changes if c.body is not None and '"expires_at"' in c.body}
        return [(number, c) for number, c in self._changes if (c.client, c.item_id) in put or c.item_id in ends]

    @property
    def alone(self) -> bool:
        """Whether there is one client only."""
        return len(self._clients) == 1

    def items(self, named: Collection[str]) -> pa.Table:
        """ITEMS of the newest version with the changes that hold for all clients, and of the items named besides.

        Of a lone client an item that is named but known no more is there with its id alone; of several clients it
        is another's, or none's, and left out.
        """
        own = self._own
        tables = [self._version(number) for number in reversed(self._registry.versions(self._name))]
        newest = tables[0]["item_id"].to_pylist() if tables else []
        gone = {item for item, body in own.items() if body is None}
        wanted = dict.fromkeys(item for item in [*newest, *own] if item not in gone) | dict.fromkeys(sorted(named))
        put = item_table({item: body for item, body in self._last_bodies.items() if item in wanted and item in own})
        bare = item_table(dict.fromkeys(wanted, "{}") if self.alone else {})
        return _first([put, *tables, bare], wanted)

    @cached_property
    def _own(self) -> Mapping[str, str | None]:
        """Each item that all clients changed, with its last body, None where it was deleted last."""
        state: dict[str, dict[str, str | None]] = {client: {} for client in self._clients}
        for _, change in self._changes:
            state[change.client][change.item_id] = change.body
        shared = set.intersection(*(set(own) for own in state.values())) if state else set()
        last = {change.item_id: change.body for _, change in self._changes if change.item_id in shared}
        return last

    @cached_property
    def _last_bodies(self) -> Mapping[str, str]:
        """What was last said of each item, also of one that was deleted since."""
        return {change.item_id: change.body for _, change in self._changes if change.body is not None}

    def _read(self, version: int) -> pa.Table:
        folder = self._registry.fetch(self._name, version)
        try:
            return pq.read_table(folder / "items.parquet", schema=ITEMS)
        except (OSError, pa.ArrowException) as error:
            raise RegistryError(f"{folder}: not a readable version ({error}); publish it again") from error


def _first(tables: list[pa.Table], wanted: Collection[str]) -> pa.Table:
    """The first row of each wanted item, in the order of `wanted`."""
    table = pa.concat_tables(tables)
    place: dict[str, int] = {}
    for row, item in enumerate(table["item_id"].to_pylist()):
        place.setdefault(item, row)
    return table.take(pa.array([place[item] for item in wanted if item in place], pa.int64()))
