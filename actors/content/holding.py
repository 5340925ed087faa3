"""One client's vector store of one version: the items that it served, and those that the client put itself.

    <folder>/about.json, snapshot-<n>/, log-<n>

An entry has two sides. Embedding, provider and cluster are the version's, or those of the item as the client put it
last. Models and outcomes are what the learner said last. Either comes whole, and comes again after any failure.
"""

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

from actors.content.origin import Origin
from actors.content.served import Served
from actors.content.vectors.entry import Change, Delete, Entry, Neighbours, Outcomes, Put, Vectors
from actors.content.vectors.group import CHECKPOINT_BYTES
from actors.content.vectors.log import sync
from actors.content.vectors.store import Store

ABOUT = "about.json"
TOGETHER = 500
"""Entries of a commit at most: who searches waits for them to be added."""


class Holding:
    """Threads may share it.

    Args:
        folder: its own; made where there is none.
        origin: the version's items.
        kind: of the rewards that the learner learns from.

    Raises:
        StateError: the store cannot be opened (`Store`).
    """

    def __init__(self, folder: Path, origin: Origin, kind: str) -> None:
        self._origin, self._kind = origin, kind
        self._store = Store(folder, origin.width)
        self._lock = Lock()
        self._path = folder / ABOUT
        about = self._read()
        self.begun: str = about.get("begun", uuid.uuid4().hex)
        """Names what was stored: another one where the folder was lost and begun anew."""
        self.revision: int = about.get("revision", 0)
        """The last catalogue change that is in the store."""
        self._changes: dict[str, str | None] = {}
        self._write()

    def close(self) -> None:
        self._store.close()

    def __len__(self) -> int:
        return len(self._store)

    def follow(self, changes: Mapping[str, tuple[int, str | None]]) -> None:
        """Take in the client's catalogue changes (revision, and body or None for deleted): each item's last one.

        Raises:
            StateError: the disk; what is not in the store is taken in with the next call.
        """
        with self._lock:
            fresh = {item: body for item, (revision, body) in changes.items() if revision > self.revision}
            self._changes = {item: body for item, (_, body) in changes.items()}
            put = self._origin.entries({item: body for item, body in fresh.items() if body is not None})
            there = self._store.get(put)
            kept = [
                replace(e, models=there[i].models, outcomes=there[i].outcomes) if i in there else e
                for i, e in put.items()
            ]
            self._commit([*(Delete(item) for item in fresh if item not in put), *map(Put, kept)])
            last = max((revision for revision, _ in changes.values()), default=0)
            if last > self.revision:
                self.revision = last
                self._write()

    def apply(self, served: Sequence[Served]) -> None:
        """Take in what the learner knows; of an item of which the store has later outcomes, nothing.

        Items that the client has deleted, and those without an embedding, are left out.

        Raises:
            DataError: weights that do not sum to one, or outcomes that are no numbers; nothing is taken in then.
            StateError: the disk.
        """
        with self._lock:
            there = self._store.get([one.item_id for one in served])
            puts: list[Change] = []
            for one in served:
                known = there.get(one.item_id) or self._known(one.item_id)
                if known is None or one.outcomes.count < known.outcomes.get(self._kind, Outcomes()).count:
                    continue
                puts.append(Put(replace(known, models=one.models, outcomes={self._kind: one.outcomes})))
            self._store.checked(puts)
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

    def _commit(self, changes: Sequence[Change]) -> None:
        for first in range(0, len(changes), TOGETHER):
            self._store.commit(changes[first : first + TOGETHER])
        if self._store.log_bytes > CHECKPOINT_BYTES:
            self._store.checkpoint()

    def _read(self) -> dict[str, Any]:
        """What a killed process left half done is not there: the file is renamed into its place."""
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}

    def _write(self) -> None:
        aside = self._path.with_suffix(".writing")
        with aside.open("w") as file:
            json.dump({"begun": self.begun, "revision": self.revision}, file)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._path)
        sync(self._path.parent)
