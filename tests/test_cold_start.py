"""The scores and the splits of benchmarks.cold_start, against numbers worked out elsewhere."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from actors.features.feature_map import FeatureMap
from actors.generator.serialise import Serialiser
from actors.generator.tasks import user_keys
from benchmarks import _cold_scores
from benchmarks._cold_logs import PLAYED, Newcomers, Split, Stage, read, split
from benchmarks._cold_scores import Trail
from cluster.config import DataSettings, FeatureSettings
from cluster.marketplace.marketplace import Marketplace
from cluster.records import Dataset, decode

DATA = DataSettings(marketplace_users=60, marketplace_events=600, marketplace_items=30)


@pytest.fixture(scope="module")
def market() -> Dataset:
    return read("marketplace", [], DATA)


def test_auc_is_that_of_another_library() -> None:
    rng = np.random.default_rng(0)
    score_N, reward_N = rng.integers(5, size=80).astype(float), rng.integers(2, size=80).astype(float)
    assert _cold_scores.auc(score_N, reward_N) == pytest.approx(roc_auc_score(reward_N, score_N))
    assert np.isnan(_cold_scores.auc(score_N, np.ones(80)))


def test_within_compares_pairs_by_what_was_known_when_the_earlier_came() -> None:
    """Rewards 1, 0, 1. Pair (0, 1) by row 0: 3 > 2, right. Pair (1, 2) by row 1: 6 > 5, right: 1. By its own moment
    each, 3, 5 and 9: (0, 1) is wrong and (2, 1) right: one half. Who has one outcome alone does not count."""
    trail = Trail(np.array([[3.0, 2.0, 1.0], [0.0, 5.0, 6.0], [0.0, 0.0, 9.0]]), np.array([1.0, 0.0, 1.0]))
    sure = Trail(np.zeros((2, 2)), np.array([1.0, 1.0]))
    assert _cold_scores.within([trail, sure]) == pytest.approx(1.0)
    assert _cold_scores.stepwise([trail, sure]) == pytest.approx(0.5)
    tied = Trail(np.zeros((2, 2)), np.array([1.0, 0.0]))
    assert _cold_scores.within([trail, tied]) == pytest.approx(0.75)


def test_learning_how_often_a_user_says_yes_costs_stepwise_scores_and_no_others() -> None:
    """All items are alike, users' rates are uniform: the best prediction is (1 + yeses)/(2 + n), and tells no
    interaction of a user from another. 4,000 users of five: the standard error of a mean AUC is about 0.006."""
    rng = np.random.default_rng(1)
    trails = []
    for rate in rng.random(4_000):
        reward_I = (rng.random(5) < rate).astype(float)
        yeses_I = np.concatenate([[0.0], np.cumsum(reward_I)[:-1]])
        trails.append(Trail(np.tile(((1 + yeses_I) / (2 + np.arange(5)))[:, None], (1, 5)), reward_I))
    assert _cold_scores.within(trails) == 0.5
    assert _cold_scores.stepwise(trails) < 0.3
    assert _cold_scores.overall(trails) > 0.7


def test_interval_is_nadeau_and_bengio_s() -> None:
    """Values 1, 2, 3: variance 1, t with 2 degrees of freedom 4.3027, and √(1/3 + 0.25) = 0.7638 at a fifth tested."""
    low, high = _cold_scores.interval([1.0, 2.0, 3.0], 0.2)
    assert (low, high) == pytest.approx((2 - 4.3027 * 0.7638, 2 + 4.3027 * 0.7638), rel=1e-3)


def test_calibration_is_one_where_variances_are_true() -> None:
    rng = np.random.default_rng(2)
    rewards = 2.0 * rng.normal(size=(500, 5))
    trails = [Trail(np.zeros((5, 5)), reward_I, np.full(5, 4.0)) for reward_I in rewards]
    assert _cold_scores.calibration(trails) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 2_500))


def test_splits_share_no_user_and_leave_none_out(market: Dataset) -> None:
    parts = split(market, 3)
    keys = np.asarray(user_keys(market.events))
    users = [set(keys[rows]) for rows in (parts.fit, parts.stop, parts.test)]
    assert set().union(*users) == set(keys)
    assert sum(map(len, users)) == len(set(keys))
    assert not np.array_equal(split(market, 4).test, parts.test)
    times = market.events["timestamp"].to_numpy()[parts.test]
    assert (np.diff(times.astype(np.int64)) >= 0).all()


def made(market: Dataset) -> tuple[Newcomers, FeatureMap, Split]:
    parts = split(market, 3)
    feature_map = FeatureMap.fit(market, parts.fit, FeatureSettings(), 0)
    serialiser = Serialiser.fit([{}], ["u"], market.items)
    return Newcomers.of(market, parts.test, feature_map, serialiser), feature_map, parts


def test_newcomers_have_their_first_interactions_in_order(market: Dataset) -> None:
    newcomers, _, parts = made(market)
    keys = np.asarray(user_keys(market.events))
    firsts: dict[str, list[int]] = {}
    for row in parts.test:
        firsts.setdefault(keys[row], []).append(int(row))
    assert len(newcomers) == len(firsts)
    for u, mine in enumerate(firsts.values()):
        assert newcomers.rows_N[newcomers.start_U[u] : newcomers.start_U[u + 1]].tolist() == mine[:PLAYED]


def test_the_world_answers_with_the_marketplace_s_truth(market: Dataset) -> None:
    newcomers, feature_map, _ = made(market)
    stage = Stage.of(market, newcomers, feature_map, 0)
    world = Marketplace(**market.facts["marketplace"])
    for n in (0, 7, 20):
        event = market.events.slice(int(newcomers.rows_N[n]), 1).to_pylist()[0]
        items = np.array([world.item_index[i] for i in event["candidates"]])
        user, time = world.user_index[event["user_id"]], event["timestamp"].timestamp()
        expected = world.mean_reward(user, decode(event["context"]), items, time)
        np.testing.assert_allclose(stage.truth_NK[n, : len(items)], expected)
        assert [feature_map.item_ids[i] for i in stage.batch.row(n).item_K] == event["candidates"]
    assert [stage.answer(3, 0), stage.answer(3, 0)] == [float(stage.luck_N[3] < stage.truth_NK[3, 0])] * 2
