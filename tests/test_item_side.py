"""What of a score is linear in the item, against the feature map itself."""

from typing import Any

import numpy as np
import pytest

from actors.features.feature_map import FeatureMap
from actors.features.item_side import ItemSide
from actors.features.joint import SIMILARITIES
from actors.features.recent import known_recent
from cluster.config import FeatureSettings
from tests.features_samples import shop

DATA = shop(rows=500, items=60)


def fitted(name: str = "auto") -> FeatureMap:
    settings = FeatureSettings.model_validate({"kind": "joint", "map": name})
    return FeatureMap.fit(DATA, np.arange(500), settings, 0)


MAP = fitted()


def scores(feature_map: FeatureMap, context: dict[str, Any], theta_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores by the map and by inner products, (N, I), each less its mean over the items."""
    side = ItemSide.of(feature_map)
    assert side is not None
    assert feature_map.tables is not None
    recent = known_recent(context.get("recent"), feature_map.row)
    seen = feature_map.features(context, side.anchors, None)
    found = side.queries(feature_map, seen, recent, theta_ND) @ side.vectors(feature_map.tables, np.arange(60)).T
    true = theta_ND @ feature_map.features(context, feature_map.item_ids, None).phi_KD.T
    return true - true.mean(1, keepdims=True), found - found.mean(1, keepdims=True)


def theta(feature_map: FeatureMap, left_out: tuple[str, ...] = (), rows: int = 4) -> np.ndarray:
    made = np.random.default_rng(0).normal(size=(rows, feature_map.dimension))
    made[:, [i for i, name in enumerate(feature_map.names) if name in left_out]] = 0.0
    return made


def test_without_recent_items_the_product_is_the_score() -> None:
    true, found = scores(MAP, {"device": "mobile", "hour": 3}, theta(MAP))
    np.testing.assert_allclose(found, true, atol=1e-4)


def test_means_and_shares_over_recent_items_are_exact() -> None:
    """But for what the docstring names: the greatest similarity, the very item, and the distance of prices."""
    left_out = ("recent text max", "recent behaviour max", "recent same", "recent price")
    context = {"device": "mobile", "recent": ["i3", "i7", "i20"]}
    true, found = scores(MAP, context, theta(MAP, left_out))
    np.testing.assert_allclose(found, true, atol=1e-4)


def test_with_one_recent_item_the_greatest_similarity_is_its_own() -> None:
    true, found = scores(MAP, {"recent": ["i9"]}, theta(MAP, ("recent same", "recent price")))
    np.testing.assert_allclose(found, true, atol=1e-4)


def test_each_query_sees_its_own_nearest_item() -> None:
    """For a positive weight of a greatest similarity, the score is the greatest over the queries, so the best item
    of all is the best of one of them."""
    weights = np.zeros((3, MAP.dimension))
    weights[:, MAP.names.index("recent text max")] = 1.0
    true, found = scores(MAP, {"recent": ["i3", "i7", "i20"]}, weights)
    assert int(true[0].argmax()) in found.argmax(axis=1)


def test_prices_are_interpolated_between_quantiles() -> None:
    weights = np.zeros((1, MAP.dimension))
    weights[:, MAP.names.index("recent price")] = -1.0
    true, found = scores(MAP, {"recent": ["i8", "i9"]}, weights)
    assert np.corrcoef(true[0], found[0])[0, 1] > 0.97


@pytest.mark.parametrize("name", ["quadratic", "fourier", "hashed"])
def test_a_lift_is_taken_by_its_anchors(name: str) -> None:
    """With all 60 items as anchors the lift's scores are the least-squares fit on the vectors, whatever was lifted."""
    feature_map = fitted(name)
    side = ItemSide.of(feature_map)
    assert side is not None
    assert side.anchors == feature_map.item_ids
    assert feature_map.tables is not None
    weights = theta(feature_map)
    weights[:, : feature_map.base] = 0.0
    true, found = scores(feature_map, {"device": "mobile"}, weights)
    vectors = np.append(side.vectors(feature_map.tables, np.arange(60)), np.ones((60, 1)), axis=1).astype(np.float64)
    fit = vectors @ np.linalg.pinv(vectors, 1e-6) @ true.T
    np.testing.assert_allclose(found, (fit - fit.mean(0)).T, atol=2e-2)


def test_a_map_with_parameters_per_item_has_no_such_side() -> None:
    settings = FeatureSettings(kind="arms")
    assert ItemSide.of(FeatureMap.fit(DATA, np.arange(500), settings, 0)) is None


def test_similarities_that_are_read_are_those_of_the_map() -> None:
    assert [SIMILARITIES[z].split()[1] for z in (0, 2, 5, 6, 7)] == ["text", "behaviour", "category", "brand", "price"]
