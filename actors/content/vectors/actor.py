"""The vector store on Ray: named actors that hold a part of the providers each, and the way to ask them all.

    store = stores(folder, 64, 2, 1_000.0)
    store.search(query_QE, 5, cluster="lamps", provider_id="p7")

Wherever it is called from, the same actors answer; they are started by the first that asks. One that was killed comes
back with everything that was acknowledged; a call in that moment raises Ray's error, and is not made again by itself,
since a reward could count twice.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import ray

from actors.content.vectors.entry import Change, Entry, Filter, Neighbours, Vectors
from actors.content.vectors.group import Group
from actors.content.vectors.shards import Ask, Call, Shards
from actors.content.vectors.space import on_gpu
from actors.content.vectors.store import Store
from cluster.errors import StateError

CPUS = 0.1


class StoreActor:
    """A store in a folder of its own; commits that wait together are written together."""

    def __init__(self, folder: str, width: int, half_life: float) -> None:
        self._store = Store(Path(folder), width, half_life, on_gpu())
        self._group = Group(self._store)

    async def commit(self, changes: Sequence[Change]) -> None:
        await self._group.commit(changes)

    async def get(self, item_ids: Iterable[str]) -> dict[str, Entry]:
        return self._store.get(item_ids)

    async def search(
        self,
        query_QE: Vectors,
        k: int,
        cluster: str | None,
        provider_id: str | None,
        where: Filter | None,
        own: Sequence[str | None] | None,
        wider: bool,
    ) -> list[Neighbours]:
        return self._store.search(query_QE, k, cluster, provider_id, where, own, wider)

    async def count(self) -> int:
        return len(self._store)


def stores(folder: Path, width: int, count: int, half_life: float, gpus: float = 0.0) -> Shards:
    """The vector store under an absolute folder, on `count` actors; GPU share `gpus` each.

    Raises:
        StateError: it was made for another number of actors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _same_count(folder / "shards.json", count)
    remote = ray.remote(num_cpus=CPUS, num_gpus=gpus, max_restarts=-1)(StoreActor)
    actors = [
        remote.options(name=f"vectors {folder} {place}", get_if_exists=True, lifetime="detached").remote(
            str(folder / str(place)), width, half_life
        )
        for place in range(count)
    ]
    return Shards(count, _ask(actors))


def _ask(actors: Sequence[Any]) -> Ask:
    def ask(calls: Sequence[Call]) -> list[Any]:
        found: list[Any] = ray.get([getattr(actors[place], method).remote(*given) for place, method, given in calls])
        return found

    return ask


def _same_count(path: Path, count: int) -> None:
    try:
        with path.open("x") as file:
            json.dump(count, file)
    except FileExistsError:
        found = json.loads(path.read_text())
        if found != count:
            raise StateError(
                f"{path.parent}: a vector store on {found} actors, asked for {count}; a provider's entries are where "
                f"its name was hashed to: set the number to {found}, or use another folder and embed the items again"
            ) from None
