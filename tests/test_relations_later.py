"""Items that come after the fit: whose they are and what they are near, against brute force and the vector store.

Shapes: F items at the fit, N later ones, J neighbours, E size of embeddings.
"""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as fuzz
from hypothesis import strategies as st

from actors.content.vectors.entry import Entry, Put
from actors.content.vectors.memory import Memory
from actors.content.vectors.snapshot import Snapshot
from actors.features.feature_map import FeatureMap
from actors.features.kin import LEVELS, Kin
from actors.features.near import nearest
from actors.features.relations import Relations
from cluster.config import FeatureSettings
from tests.features_samples import ITEMS, shop, table

CLUSTER_OF = {"a": "x", "b": "x", "c": "y", "d": "y"}
SHOP = shop()
JOINT = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(kind="joint"), 0)
WIDTH, MOST, TEMPERATURE = 4, 3, 0.2
providers = st.sampled_from(["a", "b", "c", "d", "new", "newer", "", None])


def unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return (vectors / np.where(length > 0, length, 1)).astype(np.float32)


def world(seed: int, items: int = 24) -> tuple[Relations, list[str | None]]:
    """Items at the fit with what `later` must find of them by brute force; one in five has no embedding."""
    rng = np.random.default_rng(seed)
    names = [None if rng.random() < 0.1 else str(rng.choice(["a", "a", "a", "b", "c", "d"])) for _ in range(items)]
    vectors_FE = unit(rng.normal(size=(items, WIDTH))) * (rng.random((items, 1)) < 0.8)
    found = [brute(vectors_FE, names, vectors_FE[i], names[i], None, i) for i in range(items)]
    near, similarity, level = (np.array([row[part] for row in found]) for part in range(3))
    return Relations.of(names, CLUSTER_OF, vectors_FE, near, similarity, level, TEMPERATURE), names


def brute(
    vectors_FE: np.ndarray, names: list[str | None], own_E: np.ndarray, name: str | None, cluster: str | None, row: int
) -> tuple[list[int], list[float], int]:
    """Neighbours of one item, one at a time in plain Python."""
    none = [-1] * MOST, [0.0] * MOST, 0
    if not own_E.any():
        return none
    cluster = CLUSTER_OF[name] if name and name in names else cluster
    there = [f for f in range(len(names)) if vectors_FE[f].any() and f != row]
    scopes = [
        [f for f in there if name and names[f] == name],
        [f for f in there if cluster and CLUSTER_OF.get(names[f] or "") == cluster],
        there,
    ]
    level = next((n for n, scope in enumerate(scopes[:2]) if len(scope) >= MOST), 2)
    cosine = {f: float(vectors_FE[f].astype(float) @ own_E.astype(float)) for f in scopes[level]}
    best = sorted(cosine, key=lambda f: -cosine[f])[:MOST]
    more = MOST - len(best)
    return best + [-1] * more, [cosine[f] for f in best] + [0.0] * more, level + 1 if best else 0


def nearest_cluster(vectors_FE: np.ndarray, names: list[str | None], own_E: np.ndarray) -> str | None:
    means = {}
    for cluster in sorted({CLUSTER_OF[name] for name in names if name}):
        rows = [f for f, name in enumerate(names) if name and CLUSTER_OF[name] == cluster and vectors_FE[f].any()]
        if rows:
            mean_E = vectors_FE[rows].astype(float).mean(axis=0)
            means[cluster] = float(mean_E @ own_E) / float(np.linalg.norm(mean_E))
    return max(means, key=lambda cluster: means[cluster]) if means else None


def put(ids: list[str], owners: list[str | None], embeddings: list[Any]) -> pa.Table:
    return table(ITEMS, len(ids), item_id=ids, provider_id=owners, embedding=embeddings)


@given(st.integers(0, 10_000), st.lists(providers, min_size=1, max_size=6))
def test_later_items_are_placed_as_brute_force_places_them(seed: int, owners: list[str | None]) -> None:
    relations, names = world(seed)
    vectors_FE = relations.vectors_FE
    rng = np.random.default_rng(seed + 1)
    given_NE = rng.normal(size=(len(owners), WIDTH)) * 7
    ids = [f"n{n}" for n in range(len(owners))]
    found = relations.later(put(ids, owners, given_NE.tolist()), np.full(len(ids), -1))
    for n, owner in enumerate(owners):
        own_E, cluster = unit(given_NE[n]), None
        if owner and owner not in relations.providers:
            cluster = nearest_cluster(vectors_FE, names, own_E)
        near, similarity, level = brute(vectors_FE, names, own_E, owner, cluster, -1)
        assert found.near_KJ[n].tolist() == near
        assert found.similarity_KJ[n] == pytest.approx(similarity, abs=1e-6)
        assert found.level_K[n] == level
        known = owner in relations.providers
        cluster = CLUSTER_OF[owner or ""] if known else cluster
        whole = relations.clusters.index(cluster) if cluster else -1
        assert found.cluster_K[n] == whole
        new = len(relations.providers) + whole if cluster else -1
        assert found.provider_K[n] == (relations.providers.index(owner or "") if known else new)
        exact = np.exp(np.array(similarity) / TEMPERATURE) * (np.array(near) >= 0)
        assert found.alpha_KJ[n] == pytest.approx(exact / max(exact.sum(), 1e-9), abs=1e-5)


def test_neighbours_are_those_of_the_vector_store() -> None:
    """Within the provider, its cluster, all: the rule of `Memory.search`, whose entries all have a provider."""
    rng, levels = np.random.default_rng(6), set()
    for seed in range(8):
        relations, names = world(seed, 12)
        owned = np.array([name is not None for name in names])[:, None]
        relations = replace(relations, vectors_FE=(relations.vectors_FE * owned).astype(np.float32))
        memory = Memory(Snapshot.empty(WIDTH))
        for f, name in enumerate(names):
            if name and relations.vectors_FE[f].any():
                memory.apply([Put(Entry(str(f), name, CLUSTER_OF[name], relations.vectors_FE[f]))])
        for owner in relations.providers:
            query_NE = unit(rng.normal(size=(5, WIDTH)))
            found = relations.later(put(list("12345"), [owner] * 5, query_NE.tolist()), np.full(5, -1))
            for n, other in enumerate(memory.search(query_NE, MOST, CLUSTER_OF[owner], owner, None, None, True)):
                assert [str(f) for f in found.near_KJ[n]] == other.item_ids
                assert found.similarity_KJ[n] == pytest.approx(other.similarity_K, abs=1e-6)
                assert LEVELS[found.level_K[n]] == other.scope
                levels.add(other.scope)
    assert levels == {"provider", "cluster", "all"}


@pytest.mark.parametrize("embedding", [None, [1.0, 2.0], [float("nan")] * WIDTH, [0.0] * WIDTH])
def test_an_embedding_that_cannot_be_used_finds_nothing(embedding: list[float] | None) -> None:
    """No neighbours; a known provider is known, a new one is unknown."""
    relations, _ = world(0)
    found = relations.later(put(["1", "2"], ["a", "new"], [embedding] * 2), np.full(2, -1))
    assert found.near_KJ.tolist() == [[-1] * MOST] * 2
    assert found.alpha_KJ.tolist() == found.similarity_KJ.tolist() == [[0.0] * MOST] * 2
    assert found.level_K.tolist() == [0, 0]
    assert found.provider_K.tolist() == [relations.providers.index("a"), -1]
    assert found.cluster_K.tolist() == [relations.clusters.index("x"), -1]
    assert not found.reduced_KQ.any()


def test_an_item_put_again_keeps_what_is_known_of_its_content() -> None:
    """Without an embedding of its own it keeps the fitted one, and is never its own neighbour."""
    relations, names = world(2)
    row = next(f for f, name in enumerate(names) if name == "a" and relations.vectors_FE[f].any())
    again = relations.later(
        put(["1", "2"], ["a", "d"], [None, relations.vectors_FE[row].tolist()]), np.array([row] * 2)
    )
    before = relations.kin.take(np.array([row]))
    assert again.near_KJ[0].tolist() == before.near_KJ[0].tolist()
    assert again.similarity_KJ[0] == pytest.approx(before.similarity_KJ[0], abs=1e-6)
    assert again.reduced_KQ[0] == pytest.approx(before.reduced_KQ[0], abs=1e-6)
    assert row not in again.near_KJ[1]
    assert again.near_KJ[1].tolist() == brute(relations.vectors_FE, names, relations.vectors_FE[row], "d", None, row)[0]


def equal(one: Kin, other: Kin) -> bool:
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


def related(seed: int) -> FeatureMap:
    return replace(JOINT, relations=world(seed, len(JOINT.item_ids))[0])


@fuzz(deadline=None, max_examples=25)
@given(
    st.integers(0, 100),
    st.lists(st.tuples(st.sampled_from(["i0", "i3", "n1", "n2", "n3"]), providers, st.integers(0, 5)), max_size=8),
    st.data(),
)
def test_changes_one_after_another_are_all_at_once(
    seed: int, changes: list[tuple[str, str | None, int]], data: st.DataObject
) -> None:
    """To the bit; in any groups, each item by its last change; and as the catalogue would be in one piece."""
    feature_map = related(seed)
    vectors = np.random.default_rng(seed).normal(size=(6, WIDTH))
    bodies = [(name, owner, None if not n else vectors[n].tolist()) for name, owner, n in changes]
    grown, start = feature_map, 0
    while start < len(bodies):
        end = start + data.draw(st.integers(1, len(bodies) - start))
        part = {name: (name, owner, vector) for name, owner, vector in bodies[start:end]}
        grown, start = grown.with_changes(put(*map(list, zip(*part.values(), strict=True))), []), end
    last = {name: (name, owner, vector) for name, owner, vector in bodies}
    ids = [*sorted(last), "i1", "nobody"]
    found = grown.features({}, ids, None).kin
    assert found is not None
    if last:
        once = (
            feature_map.with_changes(put(*map(list, zip(*last.values(), strict=True))), []).features({}, ids, None).kin
        )
        assert once is not None
        assert equal(found, once)
    assert feature_map.relations is not None
    assert equal(found.take(np.array([len(last)])), feature_map.relations.kin.take(np.array([1])))
    assert found.provider_K[-1] == found.cluster_K[-1] == -1


def test_another_catalogue_knows_its_later_items() -> None:
    feature_map = related(3)
    ids = feature_map.item_ids
    vector = np.random.default_rng(1).normal(size=WIDTH).tolist()
    changed = feature_map.with_items(put([ids[4], "n1", ids[2]], ["a", "b", "c"], [None, vector, None]))
    alone = feature_map.with_changes(put(["n1"], ["b"], [vector]), [])
    one, other = changed.features({}, [ids[2], "n1"], None).kin, alone.features({}, [ids[2], "n1"], None).kin
    assert one is not None
    assert other is not None
    assert equal(one, other)
    assert one.level_K[1] > 0
    again = changed.with_items(SHOP.items).features({}, list(ids), None).kin
    assert again is not None
    assert feature_map.relations is not None
    assert np.array_equal(again.near_KJ[2], feature_map.relations.kin.near_KJ[2])


@given(st.integers(0, 1000), st.integers(1, 40), st.integers(0, 30), st.integers(1, 6))
def test_nearest_is_the_same_alone_as_among_others(seed: int, queries: int, count: int, most: int) -> None:
    """To the bit, and of equal ones the first."""
    rng = np.random.default_rng(seed)
    query_NE = unit(rng.normal(size=(queries, WIDTH)))
    vectors_ME = unit(rng.normal(size=(max(count // 2, 1), WIDTH)))[rng.integers(0, max(count // 2, 1), count)]
    own = rng.integers(-1, count, queries).tolist() if count else [-1] * queries
    near_NJ, similarity_NJ = nearest(query_NE, vectors_ME, most, own)
    for n in range(queries):
        alone = nearest(query_NE[n : n + 1], vectors_ME, most, own[n : n + 1])
        assert np.array_equal(alone[0][0], near_NJ[n])
        assert np.array_equal(alone[1][0], similarity_NJ[n])
        there = near_NJ[n][near_NJ[n] >= 0].tolist()
        assert len(there) == min(most, count - (own[n] >= 0))
        cosine = {m: similarity for m, similarity in enumerate((vectors_ME @ query_NE[n]).tolist()) if m != own[n]}
        best = sorted(cosine.values(), reverse=True)[: len(there)]
        assert [cosine[m] for m in there] == pytest.approx(best, abs=1e-6)
        for i, j in itertools.pairwise(range(len(there))):
            assert similarity_NJ[n][i] > similarity_NJ[n][j] or there[i] < there[j]
