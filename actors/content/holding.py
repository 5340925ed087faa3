"""One client's vector store of one version: the items that it served, and those that the client put itself.

    <folder>/about.json, snapshot-<n>/, log-<n>

An entry has two sides. Embedding, provider and cluster are the version's, or those of the item as the client put it
last. Models and outcomes are what the learner said last. Either comes whole, and comes again after any failure: the
learner says everything again to a process that is new.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from actors.content.origin import Origin
from actors.content.served import Served
from actors.content.vectors.entry import Change, Delete, Entry, Neighbours, Outcomes, Put, Vectors
from actors.content.vectors.group import CHECKPOINT_BYTES
from actors.content.vectors.store import Store
from cluster.disk import flush

ABOUT = "about.json"
TOGETHER = 500
"""Entries of a commit at most: who searches waits for them to be added."""

Changes: TypeAlias = Mapping[str, tuple[int, str | None]]
"""A client's catalogue changes, each item's last one: its revision, and the body (JSON) or None for deleted."""


class Holding:
    """Threads may share it.

    Args:
        folder: its own; made where there is none.
        origin: the version's items.
        kind: of the rewards that the learner learns from.
        changes: all of the client's. They are known from the beginning, and in the store after `follow`.

    Raises:
        StateError: the store cannot be opened (`Store`).
    """

    def __init__(self, folder: Path, origin: Origin, kind: str, changes: Changes) -> None:
        self._origin, self._kind, self._changes = origin, kind, changes
        self._store = Store(folder, origin.width)
        self._lock = Lock()
        self._path = folder / ABOUT
        self.begun = uuid.uuid4().hex
        """Another one for each process that opens the store."""
        self.revision: int = json.loads(self._path.read_text())["revision"] if self._path.exists() else 0
        """The last catalogue change that is in the store."""
        self._told: dict[str, Served] = {}
        """What was said of items that have no entry, until they have one."""

    def close(self) -> None:
        self._store.close()

    def __len__(self) -> int:
        return len(self._store)

    def follow(self, changes: Changes) -> None:
        """Take in what changed in the client's catalogue.

        Raises:
            StateError: the disk; what is not in the store is taken in with the next call.
        """
        with self._lock:
            self._changes = changes
            fresh = {item: body for item, (revision, body) in changes.items() if revision > self.revision}
            put = self._origin.entries({item: body for item, body in fresh.items() if body is not None})
            for item, entry in self._store.get(fresh).items():
                if self._kind in entry.outcomes:
                    self._told[item] = Served(item, entry.models, entry.outcomes[self._kind])
            self._commit([Delete(item) for item in fresh if item not in put])
            self._commit([Put(self._served(entry, self._told.get(item))) for item, entry in put.items()])
            self._told = {item: one for item, one in self._told.items() if item not in put}
            last = max((revision for revision, _ in changes.values()), default=0)
            if last > self.revision:
                self.revision = last
                self._write()

    def apply(self, served: Sequence[Served]) -> None:
        """Take in what the learner knows; of an item of which the store has later outcomes, nothing.

        Items that the client has deleted, and those without an embedding, have no entry.

        Raises:
            DataError: weights that do not sum to one, or outcomes that are no numbers; nothing is taken in then.
            StateError: the disk.
        """
        with self._lock:
            there = self._store.get([one.item_id for one in served])
            known = {one.item_id: there.get(one.item_id) or self._known(one.item_id) for one in served}
            puts = [
                Put(self._served(entry, one))
                for one in served
                if (entry := known[one.item_id]) is not None and one.outcomes.count >= self._count(entry)
            ]
            self._store.checked(puts)
            self._told |= {one.item_id: one for one in served if known[one.item_id] is None and self._new(one)}
            self._commit(puts)

    def search(self, query_QE: Vectors, k: int, provider_id: str | None) -> tuple[list[Neighbours], dict[str, Entry]]:
        """The nearest entries of each query, in the provider, else in its cluster, else in all; and those entries."""
        cluster = None if provider_id is None else self._origin.cluster(provider_id)
        found = self._store.search(query_QE, k, cluster, provider_id)
        return found, self._store.get({item for one in found for item in one.item_ids})

    def get(self, item_ids: Sequence[str]) -> dict[str, Entry]:
        return self._store.get(item_ids)

    def _known(self, item_id: str) -> Entry | None:
        """An item that the store has not: as the version knows it, unless the client changed it."""
        return None if item_id in self._changes else self._origin.entry(item_id)

    def _served(self, entry: Entry, one: Served | None) -> Entry:
        return entry if one is None else replace(entry, models=one.models, outcomes={self._kind: one.outcomes})

    def _new(self, one: Served) -> bool:
        return one.item_id not in self._told or one.outcomes.count >= self._told[one.item_id].outcomes.count

    def _count(self, entry: Entry) -> float:
        return entry.outcomes.get(self._kind, Outcomes()).count

    def _commit(self, changes: Sequence[Change]) -> None:
        for first in range(0, len(changes), TOGETHER):
            self._store.commit(changes[first : first + TOGETHER])
        if self._store.log_bytes > CHECKPOINT_BYTES:
            self._store.checkpoint()

    def _write(self) -> None:
        """Renamed into its place, so that a killed process leaves no half of it."""
        aside = self._path.with_suffix(".writing")
        with aside.open("w") as file:
            json.dump({"revision": self.revision}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._path)
        flush(self._path.parent)
