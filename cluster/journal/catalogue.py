"""The catalogues that decisions of the journal chose from: a version's items with the client's own changes over them.

A client's changes are its own. Where several clients share a journal, an item that not all of them put stays out of
what is made for all: a version composed from it would show one client's items to another.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import cached_property, lru_cache

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import RegistryError
from cluster.journal.journal import ItemRecord
from cluster.records import ITEMS, item_table
from cluster.registry import Registry


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

    def _ids(self, version: int, client: str, revision: int) -> tuple[str, ...]:
        """What a client could be shown by a version after a change of its catalogue. Raises RegistryError."""
        known = dict.fromkeys(self._version(version)["item_id"].to_pylist())
        for number, change in self._changes:
            if change.client == client and number <= revision:
                known.pop(change.item_id, None)
                if change.body is not None:
                    known[change.item_id] = None
        return tuple(known)

    def expired(self, client: str, revision: int, at: datetime) -> set[str]:
        """Items that a client had put, by a change of its catalogue, with an end that had come."""
        ends: dict[str, str | None] = {}
        for number, change in self._ending:
            if change.client == client and number <= revision:
                ends[change.item_id] = json.loads(change.body or "{}").get("expires_at")
        return {item for item, end in ends.items() if end is not None and datetime.fromisoformat(end) <= at}

    @cached_property
    def _ending(self) -> list[tuple[int, ItemRecord]]:
        """The changes of items that were ever put with an end."""
        named = {(c.client, c.item_id) for _, c in self._changes if c.body is not None and '"expires_at"' in c.body}
        return [(number, c) for number, c in self._changes if (c.client, c.item_id) in named]

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
