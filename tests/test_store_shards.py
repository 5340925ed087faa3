"""Several vector stores as one answer as one does; commits that wait together are written together."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors.content.vectors.entry import Delete, Entry, Feedback, Filter, Move, Put
from actors.content.vectors.group import Group
from actors.content.vectors.shards import Shards, here
from actors.content.vectors.store import Store
from cluster.errors import DataError, StateError
from tests.store_worlds import WIDTH, commit, entries, vectors


@pytest.fixture
def parts(tmp_path: Path):
    found = [Store(tmp_path / str(n), WIDTH) for n in range(3)]
    yield found
    for store in found:
        store.close()


@pytest.fixture
def one(tmp_path: Path):
    with Store(tmp_path / "one", WIDTH) as store:
        yield store


def test_whatever_is_done_the_answers_are_those_of_one_store(parts: list[Store], one: Store) -> None:
    shards = Shards(3, here(parts))
    items = [f"i{n}" for n in range(40)]
    query_QE = vectors(6, 3)
    scopes = set()
    for number in range(30):
        changes = [c for c in commit(5, number) if not isinstance(c, Move)]
        if number % 6 == 5:
            changes.append(Move("p1", "c1", "c0"))
        for store in (shards, one):
            store.commit(changes)
        assert shards.get(items) == one.get(items)
        assert len(shards) == len(one)
        for k in (1, 3, 9):
            for scope in ((None, None), ("c0", None), ("c0", "p0"), ("c1", "p3"), ("c1", "new"), ("new", "p0")):
                for where in (None, Filter(items[::2])):
                    for own in (None, [*items[:5], None]):
                        ours = shards.search(query_QE, k, *scope, where, own)
                        theirs = one.search(query_QE, k, *scope, where, own)
                        scopes |= {answer.scope for answer in ours}
                        for a, b in zip(ours, theirs, strict=True):
                            assert (a.item_ids, a.scope) == (b.item_ids, b.scope)
                            assert a.similarity_K.tobytes() == b.similarity_K.tobytes()
    assert scopes == {"provider", "cluster", "all"}
    assert sum(len(store) > 0 for store in parts) >= 2


def test_a_partition_is_in_one_store_and_stays_there_when_its_provider_moves(parts: list[Store]) -> None:
    shards = Shards(3, here(parts))
    found = entries(vectors(100, 1), providers=10)
    shards.commit([Put(entry) for entry in found])
    homes = {e.provider_id: [n for n, s in enumerate(parts) if s.get([e.item_id])] for e in found}
    assert all(len(places) == 1 for places in homes.values())
    assert len({places[0] for places in homes.values()}) == 3
    sizes = [len(store) for store in parts]
    shards.commit([Move("p0", "c0", "c1")])
    assert [len(store) for store in parts] == sizes
    assert shards.get(["i0"])["i0"].cluster == "c1"


def test_an_item_that_has_another_provider_is_in_one_store_only(parts: list[Store]) -> None:
    shards = Shards(3, here(parts))
    entry = Entry("i", "p0", "c", vectors(1, 1)[0])
    for provider in range(8):
        shards.commit([Put(replace(entry, provider_id=f"p{provider}"))])
        assert len(shards) == 1
        assert shards.get(["i"])["i"].provider_id == f"p{provider}"


def test_a_delete_of_what_is_not_there_writes_nothing(one: Store) -> None:
    before = one.log_bytes
    one.commit([Delete("nobody")])
    assert one.log_bytes == before


def test_commits_that_wait_are_written_together_and_a_bad_one_fails_alone(tmp_path: Path) -> None:
    good = entries(vectors(100, 1))
    bad = replace(good[0], item_id="bad", embedding_E=vectors(1, 1, 9)[0])

    async def run(store: Store) -> tuple[int, list[object]]:
        group = Group(store)
        calls = [group.commit([Put(entry)]) for entry in [*good[:50], bad, *good[50:]]]
        return group.written, [await asyncio.gather(*calls, return_exceptions=True), group.written]

    with Store(tmp_path, WIDTH) as store:
        before, (answers, written) = asyncio.run(run(store))
        assert len(store) == 100
    assert (before, written) == (0, 1)
    assert [type(answer) for answer in answers] == [type(None)] * 50 + [DataError] + [type(None)] * 50
    with Store(tmp_path, WIDTH) as store:
        assert len(store) == 100


def test_a_group_hears_of_a_log_that_cannot_be_written_and_the_log_is_begun_anew_when_long(tmp_path: Path) -> None:
    async def run(store: Store) -> None:
        group = Group(store, checkpoint_bytes=2_000)
        for entry in entries(vectors(50, 1)):
            await group.commit([Feedback(entry, "click", 1.0)])
            assert store.log_bytes < 2_500
        await asyncio.sleep(0)
        store.close()
        with pytest.raises(StateError):
            await group.commit([Delete("i1")])

    with Store(tmp_path, WIDTH) as store:
        asyncio.run(run(store))
    with Store(tmp_path, WIDTH) as store:
        assert len(store) == 50


@pytest.mark.ray
def test_on_ray_a_killed_actor_comes_back_with_what_was_acknowledged(ray_session, tmp_path: Path) -> None:
    import ray

    from actors.content.vectors.actor import stores

    found = entries(vectors(40, 1))
    store = stores(tmp_path, WIDTH, 2, 1_000.0)
    actors = [ray.get_actor(f"vectors {tmp_path} {place}") for place in range(2)]
    try:
        store.commit([Put(entry) for entry in found])
        query_QE = vectors(3, 2)
        before = [(a.item_ids, a.similarity_K.tobytes()) for a in store.search(query_QE, 30)]
        for actor in actors:
            ray.kill(actor, no_restart=False)
        again = stores(tmp_path, WIDTH, 2, 1_000.0)
        ray.get([actor.count.options(max_task_retries=-1).remote() for actor in actors])
        assert [(a.item_ids, a.similarity_K.tobytes()) for a in again.search(query_QE, 30)] == before
        assert again.get(["i7"]) == {"i7": found[7]}
        with pytest.raises(StateError, match="a vector store on 2 actors, asked for 3"):
            stores(tmp_path, WIDTH, 3, 1_000.0)
        with pytest.raises(DataError, match="change 0: item 'i1': embedding of shape"):
            store.commit([Put(replace(found[1], embedding_E=np.ones(3, np.float32)))])
    finally:
        for actor in actors:
            ray.kill(actor)
