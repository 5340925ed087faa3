import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from cluster import records
from cluster.config import DataSettings, DialSettings, RewardKind, Settings
from cluster.errors import DataError, EvidenceError
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.marketplace.marketplace import Marketplace
from tune import split, worlds
from tune.worlds import design
from tune.worlds.base import Situations, World, draw
from tune.worlds.labelled import Labelled
from tune.worlds.levels import Levels
from tune.worlds.link import Link
from tune.worlds.marketplace import MarketplaceWorld
from tune.worlds.replay import Replay
from tune.worlds.reward_model import RewardModel

KIND = RewardKind()


def dataset(events: dict[str, Any], items: dict[str, Any], truth: list[str] | None = None) -> records.Dataset:
    n = len(events["item_id"])
    ids = [f"e{i}" for i in range(n)]
    times = pa.array(range(n), pa.int64()).cast(pa.timestamp("us", "UTC"))
    events = {"event_id": ids, "timestamp": times, "client_id": ["c"] * n} | events
    tables = []
    for values, schema in ((events, records.EVENTS), (items, records.ITEMS)):
        columns = {name: pa.array(v, schema.field(name).type) for name, v in values.items()}
        tables.append(records.conform(pa.table(columns), schema, "test"))
    known = None if truth is None else pa.table([ids[::-1], truth[::-1]], schema=records.TRUTH)
    return records.Dataset("feedback", tables[0], tables[1], records.USERS.empty_table(), known)


def test_a_draw_is_pure_and_uniform() -> None:
    assert draw(1, 2, "a") == draw(1, 2, "a")
    assert len({draw(1, 2, "a"), draw(2, 2, "a"), draw(1, 3, "a"), draw(1, 2, "b")}) == 4
    many = np.array([draw(0, row, "item") for row in range(20_000)])
    counts = np.histogram(many, 20, (0, 1))[0]
    assert ((counts - 1_000) ** 2 / 1_000).sum() < 43.8  # chi-square with 19 degrees, p = 0.001


def test_situations_are_the_requests_in_order() -> None:
    context = [records.encode({"hour": 3, "recent": ["a"]}), None]
    data = dataset(
        {"item_id": ["a", "b"], "context": context, "candidates": [["a", "b"], None], "user_id": ["u", None]},
        {"item_id": ["a", "b"]},
    )
    first, second = Situations(data.events)
    assert (first.user_id, first.context, first.candidates) == ("u", {"hour": 3, "recent": ["a"]}, ("a", "b"))
    assert (second.user_id, second.context, second.candidates) == (None, {}, None)
    assert Situations(data.events)[-1].row == 1
    with pytest.raises(IndexError, match="situation 2 of 2"):
        Situations(data.events)[2]


def test_the_label_answers() -> None:
    data = dataset({"item_id": ["a", "a", "b"]}, {"item_id": ["a", "b"]}, truth=["b", "a", "a"])
    world: World = Labelled(data, np.array([0, 2]), RewardKind(low=-1, high=2))
    np.testing.assert_array_equal(world.mean_rewards(0, ["a", "b"]), [-1, 2])
    np.testing.assert_array_equal(world.mean_rewards(1, ["a", "b"]), [2, -1])
    assert (world.reward(1, "a"), world.delay_s(1, "a"), len(world.events)) == (2.0, 0.0, 2)


def test_a_world_without_truth_is_refused() -> None:
    data = dataset({"item_id": ["a"]}, {"item_id": ["a"]})
    with pytest.raises(DataError, match="has no truth"):
        Labelled(data, np.array([0]), KIND)
    cut = records.Dataset("table", data.events, data.items, data.users, pa.table([["e9"], ["a"]], schema=records.TRUTH))
    with pytest.raises(DataError, match="'e0' has no row in truth"):
        Labelled(cut, np.array([0]), KIND)


def test_replay_answers_only_where_the_log_does() -> None:
    data = dataset({"item_id": ["a", "b"], "propensity": [0.5, 0.5], "reward": [1.0, 0.0]}, {"item_id": ["a", "b"]})
    world = Replay(data.events, KIND, seed=0)
    np.testing.assert_array_equal(world.mean_rewards(0, ["a", "b"]), [1.0, np.nan])
    np.testing.assert_array_equal(world.mean_rewards(1, ["a", "b"]), [np.nan, 0.0])
    assert world.accepted_share == 1.0


def test_rejection_makes_unequal_propensities_equal() -> None:
    """Item a is logged at 0.8 and pays 1, b at 0.2 and pays 0. Always-a and always-b must be accepted
    equally often: 20 % of 20,000 each, within four standard errors."""
    rng = np.random.default_rng(0)
    first = rng.random(20_000) < 0.8
    data = dataset(
        {
            "item_id": np.where(first, "a", "b").tolist(),
            "propensity": np.where(first, 0.8, 0.2),
            "reward": first.astype(float),
        },
        {"item_id": ["a", "b"]},
    )
    world = Replay(data.events, KIND, seed=1)
    for item in ("a", "b"):
        accepted = sum(not np.isnan(world.reward(row, item)) for row in range(20_000))
        assert abs(accepted - 4_000) < 4 * np.sqrt(20_000 * 0.2 * 0.8)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"propensity": [0.5, None]}, "1 propensities and 0 rewards are missing"),
        ({"propensity": [0.5, 0.5], "reward": [None, 1.0]}, "0 propensities and 1 rewards"),
        ({"propensity": [1e-4] + [0.9] * 1, "reward": [0.0, 1.0]}, None),
    ],
)
def test_a_log_that_cannot_be_replayed_is_refused(columns: dict[str, Any], message: str | None) -> None:
    data = dataset({"item_id": ["a", "b"], "reward": [0.0, 1.0]} | columns, {"item_id": ["a", "b"]})
    if message is None:  # one of two events is always kept
        assert Replay(data.events, KIND, 0).accepted_share == pytest.approx(0.5, abs=0.01)
        many = pa.concat_tables([data.events.slice(0, 1)] + [data.events.slice(1)] * 99)
        with pytest.raises(EvidenceError, match="rejection would keep 1\\.0%"):
            Replay(many, KIND, 0)
        return
    with pytest.raises(EvidenceError, match=message):
        Replay(data.events, KIND, 0)


def planted(n: int, seed: int, crossed: float, base: float = 0.3) -> tuple[records.Dataset, np.ndarray[Any, Any]]:
    """Two devices, four items; item 0 is better, and on mobile items 0 and 1 change places by `crossed`."""
    rng = np.random.default_rng(seed)
    mobile, item = rng.integers(0, 2, n), rng.integers(0, 4, n)
    table = np.full((2, 4), base)
    table[:, 0] += base / 2
    table[1, :2] += [-crossed, crossed]
    click = (rng.random(n) < table[mobile, item]).astype(float)
    events = {
        "item_id": [f"i{k}" for k in item],
        "reward": click,
        "user_id": [f"u{k}" for k in rng.integers(0, n // 10, n)],
        "context": [
            records.encode({"device": "mobile" if m else "desktop", "noise": int(k)})
            for m, k in zip(mobile, rng.integers(0, 50, n), strict=True)
        ],
    }
    items = {"item_id": [f"i{k}" for k in range(4)], "category": ["a", "a", "b", "b"]}
    data = dataset(events, items)
    return data, table[mobile]


def test_the_reward_model_finds_what_is_there() -> None:
    """8,000 clicks at rates of 0.1 to 0.65: 1,000 per cell, standard error of a cell's mean 0.015."""
    data, truth = planted(8_000, 0, crossed=0.2)
    world = RewardModel(data, np.arange(8_000), KIND, seed=0)
    ids = [f"i{k}" for k in range(4)]
    found = np.stack([world.mean_rewards(row, ids) for row in range(500)])
    assert np.sqrt(np.mean((found - truth[:500]) ** 2)) < 0.03
    assert world.fidelity.verdict == "trust"


def test_with_few_clicks_it_keeps_item_means_at_most() -> None:
    """About 20 clicks in 2,000 events, nothing crossed: no situation may matter, and nothing is near 0 or 1."""
    data, _ = planted(2_000, 1, crossed=0.0, base=0.008)
    world = RewardModel(data, np.arange(2_000), KIND, seed=0)
    ids = [f"i{k}" for k in range(4)]
    found = np.stack([world.mean_rewards(row, ids) for row in range(500)])
    assert found.std(0).max() < 0.003
    assert found.min() > 0.0005
    assert found.max() < 0.03


def test_rewards_are_draws_with_the_mean_that_it_states() -> None:
    data, _ = planted(4_000, 2, crossed=0.2)
    world = RewardModel(data, np.arange(4_000), KIND, seed=0)
    drawn = np.array([world.reward(row, "i1") for row in range(4_000)])
    means = np.array([world.mean_rewards(row, ["i1"])[0] for row in range(4_000)])
    assert set(drawn) == {0.0, 1.0}
    assert abs(drawn.mean() - means.mean()) < 4 * 0.5 / np.sqrt(4_000)
    assert world.reward(7, "i1") == world.reward(7, "i1")
    assert np.isfinite(world.mean_rewards(0, ["never seen"])).all()
    again = RewardModel(data, np.arange(4_000), KIND, seed=0)
    np.testing.assert_array_equal(again.mean_rewards(5, ["i0", "i3"]), world.mean_rewards(5, ["i0", "i3"]))


@examples(deadline=None)
@given(st.integers(1, 6), st.floats(0.05, 0.95), st.integers(0, 10))
def test_laws_over_many_levels_have_the_mean_asked_for(levels: int, share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.unique(rng.normal(size=levels + 1))
    found = Levels(values, rng.dirichlet(np.ones(len(values))))
    mean = float(values[0] + share * (values[-1] - values[0]))
    law = found.tilted(mean)
    assert law.min() >= 0
    assert law.sum() == pytest.approx(1)
    assert law @ values == pytest.approx(mean, abs=1e-6 * (values[-1] - values[0]))
    assert found.draw(mean, 0.0) == values[np.argmax(law > 0)]
    assert found.draw(mean, law[:-1].sum() + 1e-9) == values[-1]


def test_a_world_part_without_rewards_or_users_is_refused() -> None:
    items = {"item_id": ["a"]}
    with pytest.raises(EvidenceError, match="none of the 2 held-out events has a reward"):
        RewardModel(dataset({"item_id": ["a", "a"]}, items), np.arange(2), KIND, 0)
    with pytest.raises(EvidenceError, match="at least 2 users"):
        RewardModel(dataset({"item_id": ["a"], "reward": [1.0]}, items), np.arange(1), KIND, 0)


def test_columns_become_levels_bins_and_bags() -> None:
    texts = [json.dumps(v) for v in (["a", "b"], ["b"], [], ["a"])]
    bag = design.indicators({"recent": design.Column([0, 1, 2, 3], texts)}, 4)
    np.testing.assert_allclose(bag, [[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    numbers = design.indicators({"age": design.Column(list(range(80)), [str(v) for v in range(80)])}, 80)
    assert numbers.shape == (80, 8)
    np.testing.assert_allclose((numbers > 0).sum(0), 10)
    plain = design.indicators({"colour": design.Column([0, 2], ["red", "red"])}, 3)
    np.testing.assert_allclose(plain[:, 0], [1 / 3, -2 / 3, 1 / 3])


def test_compression_gives_unit_components() -> None:
    table = np.random.default_rng(0).normal(size=(200, 3)) @ np.random.default_rng(1).normal(size=(3, 10))
    short = design.compress(table - table.mean(0), 5)
    assert short.shape == (200, 3)
    np.testing.assert_allclose(short.T @ short / 200, np.eye(3), atol=1e-8)


def test_the_reward_model_on_the_open_bandit_log(data_folder: Path) -> None:
    """46 clicks in 10,000 events. The mean must be right, the items' means must not be those of noise (a fit
    without shrinkage has a spread of 0.004 between items), and nothing is explained beyond what 46 clicks allow."""
    table = pq.read_table(data_folder / "open_bandit" / "random_men.parquet")
    users = zip(*(table[f"user_feature_{i}"].to_pylist() for i in range(4)), strict=True)
    data = dataset(
        {
            "item_id": [str(item) for item in table["item_id"].to_pylist()],
            "reward": table["click"].cast(pa.float64()),
            "context": [
                records.encode({"a": a, "b": b, "c": c, "d": d, "position": p})
                for (a, b, c, d), p in zip(users, table["position"].to_pylist(), strict=True)
            ],
        },
        {"item_id": [str(k) for k in range(34)]},
    )
    world = RewardModel(data, np.arange(len(table)), KIND, seed=0)
    assert world.held_out().said_N.mean() == pytest.approx(46 / 10_000, rel=0.1)
    ids = [str(k) for k in range(34)]
    found = np.stack([world.mean_rewards(row, ids) for row in range(0, 10_000, 100)])
    assert found.mean(0).std() < 0.003
    assert found.min() > 0


@pytest.fixture(scope="module")
def market() -> records.Dataset:
    settings = DataSettings(marketplace_users=40, marketplace_items=25, marketplace_events=400)
    return read_marketplace([], Options(), settings, seed=3).dataset


def test_the_marketplace_answers_with_its_truth(market: records.Dataset) -> None:
    world = MarketplaceWorld(market, np.arange(300, 400), seed=1)
    truth = Marketplace(**market.facts["marketplace"])
    for row in (0, 57, 99):
        situation = Situations(world.events)[row]
        assert situation.candidates is not None
        expected = truth.mean_reward(
            truth.user_index[str(situation.user_id)],
            situation.context,
            np.array([truth.item_index[i] for i in situation.candidates]),
            situation.timestamp.timestamp(),
        )
        np.testing.assert_allclose(world.mean_rewards(row, situation.candidates), expected)
        np.testing.assert_allclose(world.mean_rewards(row, situation.candidates[::-2]), expected[::-2])
    assert world.mean_rewards(0, ["not sold"])[0] == 0.0
    assert world.delay_s(0, "not sold") == 0.0


def test_the_marketplaces_rewards_are_draws_and_late(market: records.Dataset) -> None:
    world = MarketplaceWorld(market, np.arange(400), seed=1)
    chosen = [(row, item) for row in range(400) for item in (Situations(world.events)[row].candidates or ())[:5]]
    mean = np.array([world.mean_rewards(row, [item])[0] for row, item in chosen])
    drawn = np.array([world.reward(row, item) for row, item in chosen])
    assert abs(drawn.mean() - mean.mean()) < 4 * np.sqrt(mean @ (1 - mean)) / len(chosen)
    delays = np.array([world.delay_s(row, item) for row, item in chosen])
    assert (delays > 0).all()
    assert np.median(delays) < 600 < delays.max()
    assert world.reward(*chosen[0]) == MarketplaceWorld(market, np.arange(400), seed=1).reward(*chosen[0])


def test_the_dials_of_the_marketplace_hold_in_its_world() -> None:
    settings = DataSettings(
        marketplace_users=40,
        marketplace_items=25,
        marketplace_events=400,
        dials=DialSettings(non_responders=0.3, examination=(0.8, 0.2)),
    )
    data = read_marketplace([], Options(), settings, seed=3).dataset
    world, truth = MarketplaceWorld(data, np.arange(400), seed=1), Marketplace(**data.facts["marketplace"])
    silent = [truth.truth.silent_U[truth.user_index[user]] for user in world.events["user_id"].to_pylist()]
    assert 0 < sum(silent) < 400
    for row in range(50):
        listed = world.events["candidates"][row].as_py()
        top, second = world.mean_rewards(row, listed), world.mean_rewards(row, listed, position=1)
        np.testing.assert_allclose(second, top / 4)
        assert (top > 0).all() != silent[row]
    chosen = [(row, world.events["item_id"][row].as_py()) for row in range(400)]
    for position in (0, 1):
        mean = np.array([world.mean_rewards(row, [item], position)[0] for row, item in chosen])
        drawn = np.array([world.reward(row, item, position) for row, item in chosen])
        assert abs(drawn.mean() - mean.mean()) < 4 * np.sqrt(mean @ (1 - mean)) / 400


def test_each_format_gets_its_world(market: records.Dataset) -> None:
    settings = Settings()
    found = worlds.build(market, settings)
    assert isinstance(found, MarketplaceWorld)
    np.testing.assert_array_equal(
        found.events["event_id"], market.events.take(split.parts(market, settings.seed).world)["event_id"]
    )
    feedback = replace(market, format="feedback", facts={})
    assert isinstance(worlds.build(feedback, settings), RewardModel)
    with pytest.raises(DataError, match="does not say which marketplace"):
        worlds.build(replace(market, facts={}), settings)
    labelled = dataset({"item_id": ["a"] * 10}, {"item_id": ["a"]}, truth=["a"] * 10)
    assert isinstance(worlds.build(replace(labelled, format="table"), settings), Labelled)
    assert isinstance(worlds.build(replace(labelled, format="transactions"), settings), Labelled)


def test_every_world_keeps_the_protocol(market: records.Dataset) -> None:
    labelled = dataset({"item_id": ["a"] * 10}, {"item_id": ["a"]}, truth=["a"] * 10)
    logged = replace(market, format="feedback", facts={})
    for world in (
        worlds.build(market, Settings()),
        worlds.build(logged, Settings()),
        worlds.build(replace(labelled, format="table"), Settings()),
        Replay(market.events.filter(pc.greater(market.events["propensity"], 0.04)), KIND, 0),
    ):
        assert isinstance(world, World)
        item = world.events["item_id"][0].as_py()
        assert world.mean_rewards(0, [item, item]).shape == (2,)
        assert world.delay_s(0, item) >= 0


def test_a_link_is_a_logistic_regression_that_keeps_the_mean() -> None:
    """Against scikit-learn without penalty on 20,000 rows, where the prior on the slope weighs next to nothing."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=20_000)
    predicted = 2.0 + 3.0 * (0.3 + 0.1 * z)
    reward = 2.0 + 3.0 * (rng.random(20_000) < 1 / (1 + np.exp(0.85 - 0.3 * z)))
    link = Link.fit(predicted, reward, Levels.of(reward))
    peer = LogisticRegression(C=np.inf).fit(predicted[:, None], reward > 2)
    assert link.slope == pytest.approx(float(peer.coef_[0, 0]), rel=0.01)
    assert link(predicted).mean() == pytest.approx(reward.mean(), rel=1e-9)
    assert (np.diff(link(np.linspace(-5, 5, 50))) >= 0).all()
    assert 2.0 <= link(np.array([-99.0]))[0] < link(np.array([99.0]))[0] <= 5.0


def test_a_link_of_one_prediction_or_one_reward_says_one_mean() -> None:
    reward = np.array([0.0, 1.0, 0.0, 0.0])
    assert Link.fit(np.full(4, 0.25), reward, Levels.of(reward))(np.full(2, 0.25)) == pytest.approx([0.25, 0.25])
    same = np.full(4, 2.5)
    assert Link.fit(reward, same, Levels.of(same))(np.array([0.0, 9.0])).tolist() == [2.5, 2.5]
    few = np.zeros(1_000)
    few[:5] = 1.0  # five clicks at predictions without meaning: as steep as the prediction, within a half
    predicted = np.random.default_rng(1).normal(0.005, 0.001, 1_000)
    found = Link.fit(predicted, few, Levels.of(few))
    assert np.diff(found(np.array([0.004, 0.006])))[0] == pytest.approx(0.002, rel=0.5)
