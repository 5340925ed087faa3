"""Features of what was done agree with the feature map's other two ways to say them."""

import numpy as np
import pytest

from actors.features.actions import BLOCK, actions
from actors.features.feature_map import FeatureMap
from cluster.config import FeatureSettings
from cluster.records import Dataset, decode
from tests.features_samples import events_of, labelled, shop


@pytest.fixture(scope="module", params=[shop, labelled], ids=["joint", "arms"])
def case(request: pytest.FixtureRequest) -> tuple[Dataset, FeatureMap]:
    dataset = request.param()
    return dataset, FeatureMap.fit(dataset, np.arange(400), FeatureSettings(), 0)


def test_each_row_is_the_decision_about_the_logged_item_alone(case: tuple[Dataset, FeatureMap]) -> None:
    dataset, feature_map = case
    events = dataset.events.slice(300, 150)
    found = actions(feature_map, events)
    assert found.phi_ND.shape == (150, feature_map.dimension)
    for n, event in enumerate(events.to_pylist()):
        one = feature_map.features(decode(event["context"]), [event["item_id"]], event["user_id"])
        np.testing.assert_allclose(found.phi_ND[n], one.phi_KD[0], atol=1e-12)
        np.testing.assert_allclose(found.context_NX[n], one.context_X, atol=1e-12)
        assert (found.arm_N[n], found.item_N[n]) == (one.arm_K[0], one.item_K[0])


def test_each_row_is_the_logged_items_among_all_candidates(case: tuple[Dataset, FeatureMap]) -> None:
    dataset, feature_map = case
    events = dataset.events.slice(0, 200)
    found, batch = actions(feature_map, events), feature_map.batch(events)
    for n, (listed, item) in enumerate(
        zip(events["candidates"].to_pylist(), events["item_id"].to_pylist(), strict=True)
    ):
        k = (listed or list(feature_map.item_ids)).index(item)
        np.testing.assert_allclose(found.phi_ND[n], batch.phi_BKD[n, k], atol=1e-12)
        assert (found.arm_N[n], found.item_N[n]) == (batch.arm_BK[n, k], batch.item_BK[n, k])


def test_unknown_items_no_events_and_more_than_a_block() -> None:
    dataset = labelled(BLOCK + 30)
    feature_map = FeatureMap.fit(dataset, np.arange(600), FeatureSettings(), 0)
    stranger = actions(feature_map, events_of([{"x": 0.5}], ["z"], [1.0], [["z", "a"]]))
    assert (stranger.arm_N.tolist(), stranger.item_N.tolist()) == ([-1], [-1])
    assert len(actions(feature_map, dataset.events.slice(0, 0)).arm_N) == 0
    whole = actions(feature_map, dataset.events)
    tail = actions(feature_map, dataset.events.slice(BLOCK - 5))
    assert len(whole.arm_N) == BLOCK + 30
    np.testing.assert_array_equal(whole.phi_ND[BLOCK - 5 :], tail.phi_ND)
    np.testing.assert_array_equal(whole.arm_N[BLOCK - 5 :], tail.arm_N)
