"""The vector stores of a name: a store for each client and version that learns.

    <folder>/<hash of the client>/<version>/    see holding.py

Changes of items come from the journal and not from calls, what the items served from the learner, which repeats itself:
a process that is killed at any moment, and started anew, ends in the same state.
"""

import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from threading import Lock

from actors.content.holding import Changes, Holding
from actors.content.origin import Origin
from actors.content.served import Served
from actors.content.vectors.entry import Entry, Neighbours, Vectors
from cluster.journal.records import ItemRecord

KEPT = 2
"""Versions of a client: the newest that learns, and the one before."""


class Library:
    """Threads may share it.

    Args:
        folder: absolute; made where there is none.
        origin: of a version; None where it knows no embeddings.
        changes: the journal's catalogue changes after a revision, of all clients, in order.
        kind: as in `Holding`.
    """

    def __init__(
        self,
        folder: Path,
        origin: Callable[[int], Origin | None],
        changes: Callable[[int], list[tuple[int, ItemRecord]]],
        kind: str,
    ) -> None:
        self._folder, self._origin, self._read, self._kind = folder, origin, changes, kind
        self._holdings: dict[tuple[str, int], Holding] = {}
        self._changes: defaultdict[str, dict[str, tuple[int, str | None]]] = defaultdict(dict)
        self._revision = 0
        self._opening, self._reading = Lock(), Lock()

    def apply(self, client: str, version: int, served: Sequence[Served]) -> str | None:
        """Take in what a learner knows of a client's items.

        Returns:
            the store's `begun`: whoever told another one before tells everything again. None where the version knows
            no embeddings, and nothing is kept.

        Raises:
            DataError, StateError: as `Holding.apply`.
        """
        holding = self._holding(client, version)
        if holding is None:
            return None
        holding.apply(served)
        return holding.begun

    def neighbours(
        self, client: str, version: int, query_QE: Vectors, provider_id: str | None, k: int
    ) -> tuple[list[Neighbours], dict[str, Entry]]:
        """What of a client's items is nearest, and its entries; nothing where the version knows no embeddings.

        Raises:
            DataError: queries of another size, or not finite.
        """
        holding = self._holding(client, version)
        return ([], {}) if holding is None else holding.search(query_QE, k, provider_id)

    def get(self, client: str, version: int, item_ids: Sequence[str]) -> dict[str, Entry]:
        holding = self._holding(client, version)
        return {} if holding is None else holding.get(item_ids)

    def follow(self) -> None:
        """Take in the catalogue changes that came since. Raises StateError where the journal cannot be read."""
        for (client, _), holding in list(self._holdings.items()):
            changes = self._changed(client)
            if holding.revision < max((revision for revision, _ in changes.values()), default=0):
                holding.follow(changes)

    def close(self) -> None:
        with self._opening:
            for holding in self._holdings.values():
                holding.close()
            self._holdings.clear()

    def _changed(self, client: str) -> Changes:
        """A client's catalogue changes up to now."""
        with self._reading:
            for revision, change in self._read(self._revision):
                self._changes[change.client][change.item_id] = revision, change.body
                self._revision = revision
            return dict(self._changes[client])

    def _holding(self, client: str, version: int) -> Holding | None:
        """Opened where it is not yet, and then up to the client's last change."""
        with self._opening:
            found = self._holdings.get((client, version))
            if found is not None or (origin := self._origin(version)) is None:
                return found
            home = self._folder / blake2b(client.encode(), digest_size=16).hexdigest()
            changes = self._changed(client)
            found = self._holdings[client, version] = Holding(home / str(version), origin, self._kind, changes)
            self._tidy(client, version, home)
        found.follow(changes)
        return found

    def _tidy(self, client: str, version: int, home: Path) -> None:
        """Of a client that has this version, older ones' entries but those of one more are of no use."""
        others = sorted({int(path.name) for path in home.iterdir() if path.name.isdigit()} - {version})
        for other in others[: 1 - KEPT]:
            held = self._holdings.pop((client, other), None)
            if held is not None:
                held.close()
            shutil.rmtree(home / str(other), ignore_errors=True)
