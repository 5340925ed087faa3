"""Retrieval against scoring everything. Worlds have fixed seeds; bounds are far from what was measured."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits import law, learn
from actors.bandits.item_index import TAIL, ItemIndex
from actors.bandits.members import Uniform
from actors.bandits.published import Published
from actors.bandits.retrieval import Retrieval, best, parameters
from actors.features.feature_map import FeatureMap
from benchmarks._catalogues import synthetic_items
from tests import bandit_cases as cases
from tests import serving

ITEMS = 6_000


@pytest.fixture(scope="module")
def world() -> tuple[Published, FeatureMap, Retrieval]:
    """A version fitted on twelve items, over six thousand."""
    made = serving.version(seed=1)
    feature_map = made.feature_map.with_items(synthetic_items(ITEMS, 0))
    return learn.publish(learn.start(made.ensemble)), feature_map, Retrieval.of(feature_map, 64)


def contexts(seeds: range) -> list[tuple[int, dict[str, Any]]]:
    rng = np.random.default_rng(seeds.start)
    recent = [[f"big-{i}" for i in rng.integers(0, ITEMS, 3)] for _ in seeds]
    return [(s, {"device": "mobile", "hour": 3, "recent": recent[s - seeds.start]}) for s in seeds]


def test_the_best_item_is_retrieved_and_little_is_lost(world: tuple[Published, FeatureMap, Retrieval]) -> None:
    """Over 40 decisions, against the law on all 6,000 items: the best by the blended mean is there each time, and π
    of a part earns what π of everything does, to 2 % of the distance from the mean item."""
    published, feature_map, retrieval = world
    earned = []
    for seed, context in contexts(range(40)):
        rows = retrieval.rows(feature_map, published, context, "u1", None, seed, 1)
        assert len(rows) < 400
        whole = law.probabilities(published, feature_map.features(context, feature_map.item_ids, "u1"), None, seed)
        names = [feature_map.item_ids[row] for row in rows]
        part = law.probabilities(published, feature_map.features(context, names, "u1"), None, seed)
        assert whole.mean_K[rows].max() >= whole.mean_K.max() - 1e-9
        earned.append([part.pi_K @ part.mean_K, whole.pi_K @ whole.mean_K, whole.mean_K.mean()])
    part_value, whole_value, mean_value = np.mean(earned, axis=0)
    assert part_value - mean_value > 0.98 * (whole_value - mean_value)


def test_closed_items_are_not_retrieved(world: tuple[Published, FeatureMap, Retrieval]) -> None:
    published, feature_map, retrieval = world
    for seed, context in contexts(range(100, 110)):
        free = retrieval.rows(feature_map, published, context, None, None, seed, 2)
        open_I = np.ones(ITEMS, np.bool_)
        open_I[free] = False
        found = retrieval.rows(feature_map, published, context, None, None, seed, 2, open_I)
        assert not np.isin(found, free).any()
        assert len(found) > 20
        few_I = np.zeros(ITEMS, np.bool_)
        few_I[[5, 700, 5_000]] = True
        assert retrieval.rows(feature_map, published, context, None, None, seed, 3, few_I).tolist() == [5, 700, 5_000]


def test_the_same_decision_retrieves_the_same_part(world: tuple[Published, FeatureMap, Retrieval]) -> None:
    published, feature_map, retrieval = world
    again = Retrieval.of(feature_map, 64)
    for seed, context in contexts(range(200, 205)):
        one = retrieval.rows(feature_map, published, context, "u3", None, seed, 1)
        np.testing.assert_array_equal(one, again.rows(feature_map, published, context, "u3", None, seed, 1))


def test_a_catalogue_that_grows_is_searched_whole(world: tuple[Published, FeatureMap, Retrieval]) -> None:
    """An item like the best one, put later, is retrieved with it."""
    published, feature_map, retrieval = world
    seed, context = contexts(range(300, 301))[0]
    context = {"device": "mobile", "hour": 3}
    whole = law.probabilities(published, feature_map.features(context, feature_map.item_ids, None), None, seed)
    twin = synthetic_items(ITEMS, 0).slice(int(whole.mean_K.argmax()), 1)
    twin = twin.set_column(0, twin.schema.field("item_id"), [["twin"]])
    more = feature_map.with_changes(twin, [])
    grown = retrieval.grown(more)
    assert ITEMS in grown.rows(more, published, context, None, None, seed, 1)
    assert len(retrieval.arm_I) == ITEMS


def test_a_uniform_ensemble_retrieves_what_it_needs(world: tuple[Published, FeatureMap, Retrieval]) -> None:
    _, feature_map, retrieval = world
    alone = cases.published(Uniform(), dimension=feature_map.dimension)
    assert len(retrieval.rows(feature_map, alone, {}, None, None, 1, 5)) == 5


@pytest.mark.parametrize("told", [False, True])
def test_parameters_of_the_blend_are_its_scores(told: bool) -> None:
    """For members that share φ's noise the parameters of a particle, times φ, are the score of the law's particle;
    also where a language model has told the context's code."""
    rng = np.random.default_rng(0)
    models = [cases.shared(rng, 1, 4, "one"), cases.mixture(rng, 3, 1, 4)]
    features, past = cases.features(rng, 6, 4), cases.history(rng, 5, 1, 4)
    if told:
        models[1] = replace(models[1], decoder=cases.decoder(rng, 1, 4), personal="all")
        features = replace(features, code_H=rng.normal(size=2))
    state = cases.published(*models, dimension=4, weights=np.array([0.25, 0.75]))
    mean_SD, blend_PD = parameters(state, features, past, 9)
    found = law.probabilities(state, features, past, 9)
    np.testing.assert_allclose(blend_PD[0] @ features.phi_KD.T, found.mean_K, atol=1e-9)
    assert mean_SD.shape == (2, 4)
    alone = cases.published(models[1], dimension=4, delta=0.0, epsilon=1e-9)
    _, own_PD = parameters(alone, features, past, 9)
    winners = np.bincount((own_PD[1:] @ features.phi_KD.T).argmax(1), minlength=6) / 64
    np.testing.assert_allclose(winners, law.probabilities(alone, features, past, 9).pi_K, atol=1e-8)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=30), st.integers(1, 35))
def test_of_equal_items_the_later_is_the_better(scores: list[float], most: int) -> None:
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], -row))[:most]
    assert best(np.array(scores), most).tolist() == expected


def test_an_index_finds_the_greatest_products() -> None:
    """9,000 vectors near five dimensions of 20, against NumPy; half precision and cells that are not looked into may
    cost a twentieth of the best four."""
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(5, 20))
    vectors = (rng.normal(size=(9_000, 5)) @ axes + 0.1 * rng.normal(size=(9_000, 20))).astype(np.float32)
    queries = (rng.normal(size=(30, 5)) @ axes).astype(np.float32)
    index = ItemIndex.of(vectors[:4_000])
    for start in range(4_000, 9_000, 700):
        index = index.grown(vectors[start : start + 700])
    assert len(index) == 9_000
    assert len(index.tail_JW) < TAIL < index.file.ntotal
    open_I = rng.random(9_000) < 0.3
    for allowed in (None, open_I):
        product = queries @ vectors.T if allowed is None else np.where(allowed, queries @ vectors.T, -np.inf)
        wanted = [set(np.argsort(-row)[:4].tolist()) for row in product]
        found = [set(index.search(query[None], 4, 32, allowed).tolist()) for query in queries]
        hits = [len(one & two) / 4 for one, two in zip(wanted, found, strict=True)]
        assert np.mean(hits) > 0.95
        assert allowed is None or all(allowed[list(rows)].all() for rows in found)
