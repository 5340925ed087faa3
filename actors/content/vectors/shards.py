"""Several stores as one: all entries of a provider are in one of them, so that a partition is whole.

Which one is a hash of the provider's name, not of its cluster: a provider that moves to another cluster stays.

Shapes: Q queries; K neighbours.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np

from actors.content.vectors.entry import (
    Change,
    Delete,
    Entry,
    Feedback,
    Filter,
    Move,
    Neighbours,
    Put,
    Scope,
    Vectors,
    VectorStore,
)

Call: TypeAlias = tuple[int, str, tuple[Any, ...]]
"""Number of the store, name of the method, arguments."""
Ask: TypeAlias = Callable[[Sequence[Call]], list[Any]]
"""Makes calls to the stores, at the same time if it can; their results in order."""


class Shards:
    """See `entry.VectorStore`. A commit is atomic in each store, not over several.

    Args:
        count: of stores; always the same for the same folders.
        ask: calls commit, get, search and count of them.
    """

    def __init__(self, count: int, ask: Ask) -> None:
        self._count, self._ask = count, ask

    def commit(self, changes: Sequence[Change]) -> None:
        parts: list[list[Change]] = [[] for _ in range(self._count)]
        for change in changes:
            match change:
                case Put(entry) | Feedback(entry):
                    home = self._home(entry.provider_id)
                    for place, part in enumerate(parts):  # gone where it was, had it another provider
                        part.append(change if place == home else Delete(entry.item_id))
                case Delete():
                    for part in parts:
                        part.append(change)
                case Move(provider_id):
                    parts[self._home(provider_id)].append(change)
        self._ask([(place, "commit", (part,)) for place, part in enumerate(parts) if part])

    def get(self, item_ids: Iterable[str]) -> dict[str, Entry]:
        wanted = list(item_ids)
        found: dict[str, Entry] = {}
        for part in self._of_all("get", wanted):
            found |= part
        return found

    def search(
        self,
        query_QE: Vectors,
        k: int,
        cluster: str | None = None,
        provider_id: str | None = None,
        where: Filter | None = None,
        own: Sequence[str | None] | None = None,
        wider: bool = True,
    ) -> list[Neighbours]:
        most = k if own is None else k + 1
        found: list[Neighbours] = []
        scopes: list[tuple[str | None, str | None]] = [(cluster, provider_id), (cluster, None), (None, None)]
        for place, (within, provider) in enumerate(scopes):
            if place and (within, provider) == scopes[place - 1]:
                continue
            arguments = (query_QE, most, within, provider, where, None, False)
            if provider is not None:
                found = self._ask([(self._home(provider), "search", arguments)])[0]
            else:
                found = [_nearest(parts, most) for parts in zip(*self._of_all("search", *arguments), strict=True)]
            if not wider or all(len(answer.item_ids) == most for answer in found):
                break
        if own is None:
            return found
        return [without(answer, item_id, k) for answer, item_id in zip(found, own, strict=True)]

    def __len__(self) -> int:
        return sum(self._of_all("count"))

    def _of_all(self, method: str, *arguments: Any) -> list[Any]:
        return self._ask([(place, method, arguments) for place in range(self._count)])

    def _home(self, provider_id: str) -> int:
        return crc32(provider_id.encode()) % self._count


def here(stores: Sequence[VectorStore]) -> Ask:
    """For stores of this process."""

    def ask(calls: Sequence[Call]) -> list[Any]:
        return [
            len(stores[place]) if method == "count" else getattr(stores[place], method)(*arguments)
            for place, method, arguments in calls
        ]

    return ask


def without(answer: Neighbours, item_id: str | None, k: int) -> Neighbours:
    """At most k neighbours, the item itself not among them."""
    keep = [place for place, found in enumerate(answer.item_ids) if found != item_id][:k]
    return replace(answer, item_ids=[answer.item_ids[n] for n in keep], similarity_K=answer.similarity_K[keep])


def _nearest(parts: Sequence[Neighbours], most: int) -> Neighbours:
    """Of equal ones those of the first store; an item that is in two for a moment once."""
    scope: Scope = parts[0].scope
    similarity_N = np.concatenate([part.similarity_K for part in parts])
    ids = [item_id for part in parts for item_id in part.item_ids]
    chosen = dict[str, int]()
    for place in np.argsort(-similarity_N, kind="stable").tolist():
        chosen.setdefault(ids[place], place)
    rows = list(chosen.values())[:most]
    return Neighbours([ids[n] for n in rows], similarity_N[rows], scope)
