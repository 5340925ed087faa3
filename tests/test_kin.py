"""What an item's content says of it goes with its features: singly, in batches, and in a part of either."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.features.feature_map import FeatureMap
from actors.features.kin import Kin
from actors.features.relations import Relations
from cluster.config import FeatureSettings
from cluster.errors import ModelError
from tests.features_samples import labelled, shop

SHOP, TABLE = shop(), labelled()
JOINT = FeatureMap.fit(SHOP, np.arange(500), FeatureSettings(kind="joint"), 0)
ARMS = FeatureMap.fit(TABLE, np.arange(700), FeatureSettings(), 0)


def related(feature_map: FeatureMap, seed: int = 0) -> FeatureMap:
    """With random relations of its items, two neighbours each."""
    rng = np.random.default_rng(seed)
    items = len(feature_map.item_ids)
    providers = [None if i == 0 else f"p{i % 3}" for i in range(items)]
    near = np.stack([(np.arange(items) + 1) % items, np.full(items, -1)], axis=1)
    made = Relations.of(
        providers,
        {"p0": "x", "p1": "y", "p2": "x"},
        rng.normal(size=(items, 5)),
        near,
        np.where(near >= 0, rng.random(near.shape), 0.0),
        rng.integers(1, 4, items),
        0.1,
    )
    return replace(feature_map, relations=made)


def equal(one: Kin | None, other: Kin | None) -> bool:
    assert one is not None
    assert other is not None
    return all(np.array_equal(vars(one)[name], vars(other)[name]) for name in vars(one))


@pytest.mark.parametrize("plain", [JOINT, ARMS], ids=["joint", "arms"])
def test_features_carry_the_rows_of_their_items(plain: FeatureMap) -> None:
    feature_map = related(plain)
    assert feature_map.relations is not None
    ids = [feature_map.item_ids[2], "never seen", feature_map.item_ids[0]]
    found = feature_map.features({}, ids, None)
    assert equal(found.kin, feature_map.relations.kin.take(np.array([2, -1, 0])))
    assert found.kin is not None
    assert found.kin.provider_K[1:].tolist() == [-1, -1]  # unknown, and of no provider
    assert found.kin.alpha_KJ[1].tolist() == [0.0, 0.0]
    assert equal(found.take(np.array([1, 0])).kin, feature_map.relations.kin.take(np.array([-1, 2])))
    assert plain.features({}, ids, None).kin is None


@given(st.lists(st.integers(0, 499), min_size=1, max_size=6))
def test_a_batch_carries_what_single_decisions_do(rows: list[int]) -> None:
    for feature_map, data in ((related(JOINT), SHOP), (related(ARMS), TABLE)):
        events = data.events.take(rows)
        batch = feature_map.batch(events)
        again = batch.take(np.arange(len(rows))[::-1])
        for b, event in enumerate(events.to_pylist()):
            ids = event["candidates"] if event["candidates"] is not None else list(feature_map.item_ids)
            alone = feature_map.features({}, ids, None)
            assert equal(batch.row(b).kin, alone.kin)
            assert equal(again.row(len(rows) - 1 - b).kin, alone.kin)


@pytest.mark.parametrize("plain", [JOINT, ARMS], ids=["joint", "arms"])
def test_relations_are_saved_and_older_versions_have_none(plain: FeatureMap) -> None:
    feature_map = related(plain)
    facts: dict[str, Any] = json.loads(json.dumps(feature_map.facts()))
    loaded = FeatureMap.load(feature_map.arrays(), facts)
    assert loaded.fingerprint == plain.fingerprint
    ids = list(plain.item_ids)
    assert equal(loaded.features({}, ids, None).kin, feature_map.features({}, ids, None).kin)
    for lost in ("relations#", "relations.temperature"):
        with pytest.raises(ModelError, match="missing from the saved version"):
            FeatureMap.load(feature_map.arrays(), {name: fact for name, fact in facts.items() if name != lost})
    older = {name: fact for name, fact in plain.facts().items() if not name.startswith("relations")}
    assert len(older) == len(plain.facts()) - 1
    assert FeatureMap.load(plain.arrays(), older).relations is None


def test_relations_of_another_catalogue_are_refused() -> None:
    with pytest.raises(ModelError, match="do not fit a catalogue of 3"):
        replace(ARMS, relations=related(JOINT).relations)


def test_another_catalogue_keeps_what_is_known_of_its_items() -> None:
    feature_map = related(JOINT)
    assert feature_map.relations is not None
    changed = feature_map.with_items(SHOP.items.take([3, 1]))
    assert equal(
        changed.features({}, [feature_map.item_ids[1]], None).kin, feature_map.relations.kin.take(np.array([1]))
    )
