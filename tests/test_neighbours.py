"""Neighbour shares: by hand, by a plain loop, and where a store's answers are not what they should be."""

import math
from pathlib import Path

import numpy as np
import pytest

from actors.content.neighbours import shares
from actors.content.vectors.entry import Delete, Entry, Neighbours, Put
from actors.content.vectors.store import Store
from cluster.config import ContentSettings
from cluster.errors import ModelError
from tests.store_worlds import WIDTH, entries, vectors

MEMBERS = ("pooled", "cluster", "provider")
UNIT_E = np.array([1.0, 0.0], np.float32)


def entry(item_id: str, models: dict[str, float]) -> Entry:
    return Entry(item_id, "p", "c", UNIT_E, models)


def near(similarities: dict[str, float], scope: str = "provider") -> Neighbours:
    return Neighbours(list(similarities), np.array(list(similarities.values()), np.float32), scope)


def mixed(share_M: list[float]) -> list[float]:
    return [0.99 * share + 0.01 / len(share_M) for share in share_M]


def test_two_neighbours_by_hand() -> None:
    known = {"a": entry("a", {"pooled": 0.5, "cluster": 0.5}), "b": entry("b", {"provider": 1.0})}
    found = shares([near({"a": 0.75, "b": 0.5})], known, MEMBERS, 0.25)
    alpha = math.e / (math.e + 1)  # nearer by the temperature: e times as much
    assert found.share_KM == pytest.approx(np.array([mixed([alpha / 2, alpha / 2, 1 - alpha])]))
    assert found.said_K == pytest.approx([1.0])
    assert (found.levels, found.item_ids, found.similarities) == (("provider",), (("a", "b"),), ((0.75, 0.5),))


def test_without_neighbours_the_share_is_uniform() -> None:
    gone = near({"deleted": 0.9}, "cluster")
    found = shares([near({}, "all"), gone, near({"a": 1.0})], {"a": entry("a", {"pooled": 1.0})}, MEMBERS, 0.1)
    assert found.levels == ("none", "none", "provider")
    assert found.share_KM == pytest.approx(np.array([[1 / 3] * 3] * 2 + [mixed([1, 0, 0])]))
    assert found.said_K == pytest.approx([0, 0, 1])
    assert shares([near({})], {}, MEMBERS, 0.1).share_KM == pytest.approx(np.full((1, 3), 1 / 3))
    assert shares([], {}, MEMBERS, 0.1).share_KM.shape == (0, 3)


@pytest.mark.parametrize(
    ("models", "expected", "said"),
    [
        ({"pooled": 2.0, "cluster": 6.0}, [0.25, 0.75, 0], 1.0),  # scaled to one
        ({"pooled": 0.25, "gone": 0.75}, [0.25 + 0.25, 0.25, 0.25], 0.25),  # what the one that is gone had: uniform
        ({"gone": 1.0}, [1 / 3] * 3, 0.0),
        ({}, [1 / 3] * 3, 0.0),
        ({"pooled": 0.0}, [1 / 3] * 3, 0.0),
        ({"pooled": -0.5, "cluster": 1.5}, [1 / 3] * 3, 0.0),
        ({"pooled": math.nan, "cluster": 1.0}, [1 / 3] * 3, 0.0),
        ({"pooled": math.inf}, [1 / 3] * 3, 0.0),
    ],
)
def test_weights_that_are_not_shares_of_members(models: dict[str, float], expected: list[float], said: float) -> None:
    found = shares([near({"a": 0.9})], {"a": entry("a", models)}, MEMBERS, 0.1)
    assert found.share_KM == pytest.approx(np.array([mixed(expected)]))
    assert found.said_K == pytest.approx([said])


def test_many_items_of_a_store_against_a_plain_loop(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    with Store(tmp_path / "store", WIDTH) as store:
        given = entries(vectors(60, 1))
        weights = [dict(zip(MEMBERS, rng.dirichlet([1, 1, 1]).tolist(), strict=True)) for _ in given]
        store.commit(
            [
                Put(Entry(e.item_id, e.provider_id, e.cluster, e.embedding_E, w))
                for e, w in zip(given, weights, strict=True)
            ]
        )
        query_QE = vectors(7, 2)
        answers = store.search(query_QE, 5, "c0", "p2") + store.search(query_QE, 20, "c0", "p2")
        store.commit([Delete(answers[0].item_ids[0])])
        known = store.get({item_id for answer in answers for item_id in answer.item_ids})
        found = shares(answers, known, MEMBERS, 0.3)
    assert found.levels == ("provider",) * 7 + ("cluster",) * 7
    assert found.share_KM.sum(axis=1) == pytest.approx(np.ones(14))
    assert found.share_KM.min() > 0.01 / 3 - 1e-12
    for answer, share_M in zip(answers, found.share_KM, strict=True):
        kept = [(known[j], float(s)) for j, s in zip(answer.item_ids, answer.similarity_K, strict=True) if j in known]
        total = sum(math.exp(s / 0.3) for _, s in kept)
        plain = [sum(math.exp(s / 0.3) / total * e.models[m] for e, s in kept) for m in MEMBERS]
        assert share_M == pytest.approx(mixed(plain))
    assert len(found.item_ids[0]) == 4


def test_a_small_temperature_follows_the_nearest_and_overflows_nowhere() -> None:
    known = {"a": entry("a", {"pooled": 1.0}), "b": entry("b", {"cluster": 1.0})}
    found = shares([near({"a": -0.5, "b": -0.75})], known, MEMBERS, 1e-6)
    assert found.share_KM == pytest.approx(np.array([mixed([1, 0, 0])]))


@pytest.mark.parametrize(
    ("members", "temperature"), [((), 0.1), (("a", "a"), 0.1), (MEMBERS, 0.0), (MEMBERS, math.nan)]
)
def test_what_cannot_be_asked(members: tuple[str, ...], temperature: float) -> None:
    with pytest.raises(ModelError, match="temperature"):
        shares([], {}, members, temperature)


def test_settings() -> None:
    assert (ContentSettings().neighbours, ContentSettings().temperature) == (5, 0.1)
