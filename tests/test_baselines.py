"""Baselines against a replay from scratch before every decision, and by what each may know."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.shares import ItemWeights
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import BanditSettings, FeatureSettings, LawSettings, RewardKind, WeightSettings
from cluster.errors import ModelError
from cluster.records import EVENTS, ITEMS, USERS, Dataset, conform, encode
from tune import baselines
from tune.baselines import Schedule
from tune.predefined import Design, Predefined
from tune.worlds.base import Situations, draw
from tune.worlds.drifting import Drifting

CATALOGUE = ("a", "b", "c", "d")


class World:
    """Rewards of 0 or 1; item b is best in the mornings, c else. `flipped` clients are paid the reverse."""

    def __init__(self, n: int, flipped: tuple[str, ...] = (), seed: int = 0):
        rng = np.random.default_rng(seed)
        start = datetime(2026, 1, 1, tzinfo=UTC)
        self.flipped = flipped
        self.hours = rng.integers(0, 2, n) * 12
        self.clients = [("north", "south")[int(c)] for c in rng.integers(0, 2, n)]
        times = [start + timedelta(minutes=i) for i in range(n)]
        self.events = conform(
            pa.table(
                {
                    "event_id": [f"e{i}" for i in range(n)],
                    "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
                    "client_id": self.clients,
                    "user_id": [f"u{u}" for u in rng.integers(0, 9, n)],
                    "context": pa.array(
                        [encode({"hour": int(h), "part": f"p{h}"}) for h in self.hours], EVENTS.field("context").type
                    ),
                    "candidates": pa.array([CATALOGUE if i % 5 else None for i in range(n)], pa.list_(pa.string())),
                    "item_id": [CATALOGUE[int(k)] for k in rng.integers(0, 4, n)],
                    "propensity": np.full(n, 0.25),
                }
            ),
            EVENTS,
            "events",
        )

    def mean_rewards(self, row: int, item_ids: Any, position: int = 0) -> Any:
        best = "b" if self.hours[row] < 12 else "c"
        means = np.array([0.7 if item == best else 0.2 for item in item_ids])
        return 1 - means if self.clients[row] in self.flipped else means

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return float(draw(7, row, item_id) < self.mean_rewards(row, [item_id])[0])

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0


def version_of(world: World, bandits: BanditSettings | None = None) -> Version:
    """A version with the four predefined members, fitted on the world's first rows with rewards."""
    rewards = [world.reward(row, item) for row, item in enumerate(world.events["item_id"].to_pylist())]
    events = world.events.set_column(world.events.schema.get_field_index("reward"), "reward", pa.array(rewards))
    items = conform(pa.table({"item_id": CATALOGUE, "category": ["x", "x", "y", "y"]}), ITEMS, "items")
    users = conform(pa.table({"user_id": [f"u{u}" for u in range(9)]}), USERS, "users")
    dataset = Dataset("feedback", events, items, users)
    feature_map = FeatureMap.fit(dataset, np.arange(40), FeatureSettings(), 0)
    design = Design.of(feature_map, events.slice(0, 40), RewardKind())
    members = Predefined(design, feature_map, bandits or BanditSettings()).members()
    ensemble = Ensemble(
        members=members,
        values_M=np.full(len(members), 0.5),
        law=LawSettings(particles=16),
        weights=WeightSettings(),
        dimension=feature_map.dimension,
        fingerprint=feature_map.fingerprint,
    )
    return Version(feature_map, ensemble, items)


@pytest.fixture(scope="module")
def world() -> World:
    return World(150)


@pytest.fixture(scope="module")
def version(world: World) -> Version:
    return version_of(world)


def schedule(n: int, window_s: float = 0.5, per_s: float = 50.0) -> Schedule:
    """Odd times, so that none is a publication's."""
    return Schedule(np.arange(n), 0.0037 + np.arange(n) / per_s, window_s, 0.2)


def from_scratch(ensemble: Ensemble, version: Version, world: World, when: Schedule) -> list[str]:
    """The same choices by replaying, before each decision, all that it may know into a new learner."""
    log: list[tuple[float, str, learn.Outcome]] = []
    chosen = []
    for row, second in zip(when.row_N.tolist(), when.second_N.tolist(), strict=True):
        situation = Situations(world.events)[row]
        known = int(second / when.publish_s) * when.publish_s
        state = learn.start(ensemble)
        for at, client, outcome in log:
            if client == situation.client_id and at + when.window_s <= known:
                state = learn.step(state, outcome)
        items = list(situation.candidates or CATALOGUE)
        features = version.feature_map.features(situation.context, items, situation.user_id)
        past = state.histories.get(situation.user_id or "")
        slot = law.decide(learn.publish(state), features, past, (3 << 32) + row).slots[0]
        chosen.append(items[slot.index])
        k = slot.index
        log.append(
            (
                second,
                situation.client_id,
                learn.Outcome(
                    situation.user_id,
                    features.phi_KD[k],
                    int(features.arm_K[k]),
                    int(features.item_K[k]),
                    world.reward(row, items[k]),
                    slot.propensity,
                    slot.member_propensities_M,
                ),
            )
        )
    return chosen


@pytest.mark.parametrize("name", ["popularity", "linear"])
def test_choices_are_those_of_a_replay_from_scratch(name: str, world: World, version: Version) -> None:
    ensemble, when = version.ensemble.only(name), schedule(120)
    found = baselines.play({name: ensemble}, version, world, when, seed=3)[name]
    assert list(found.item_N) == from_scratch(ensemble, version, world, when)


def test_several_slots_hold_different_items_and_the_first_is_the_choice_of_one(world: World, version: Version) -> None:
    """Until the first outcomes are seen, the first of three slots is what one slot would hold."""
    ensemble, one = version.ensemble.only("linear"), schedule(100, window_s=1.0)
    many = replace(one, slots=3)
    found = [baselines.play({"p": ensemble}, version, world, when, seed=2)["p"] for when in (one, many)]
    slates = np.array(found[1].item_N).reshape(100, 3)
    assert all(len(set(slate)) == 3 for slate in slates.tolist())
    before = int((one.second_N < 1.0).sum())
    assert slates[:before, 0].tolist() == list(found[0].item_N[:before])
    assert found[1].reward_N.tolist() == [world.reward(row, item) for row in range(100) for item in slates[row]]


def test_rewards_are_the_worlds(world: World, version: Version) -> None:
    found = baselines.play(baselines.policies(version, "linear"), version, world, schedule(150), seed=1)
    assert set(found) == {"uniform", "popularity", "pooled_linear", "best_predefined"}
    for played in found.values():
        assert played.reward_N.tolist() == [world.reward(row, item) for row, item in enumerate(played.item_N)]
        expected = [world.mean_rewards(row, [item])[0] for row, item in enumerate(played.item_N)]
        assert played.expected_N.tolist() == expected
        assert played.propensity_N.min() >= LawSettings().epsilon / 4
    assert found["best_predefined"] is found["pooled_linear"]  # the same member is played once
    assert np.allclose(found["uniform"].propensity_N, 0.25)


def test_nothing_is_learned_before_a_window_closes(world: World, version: Version) -> None:
    """Paid the reverse, a policy chooses the same until the first outcomes are final and published, not after."""
    reverse, when = World(150, flipped=("north", "south")), schedule(150, window_s=1.0)
    one, other = (
        baselines.play({"p": version.ensemble.only("popularity")}, version, w, when, seed=2)["p"].item_N
        for w in (world, reverse)
    )
    before = int((when.second_N < 1.0).sum())
    assert list(one[:before]) == list(other[:before])
    assert list(one[before:]) != list(other[before:])


@pytest.mark.parametrize("seed", [4, 5, 6])
def test_after_an_abrupt_drift_the_one_that_forgets_earns_more(seed: int) -> None:
    """Tastes turn after 500 of 1,200 decisions; half-life 100. What was learned is then wrong, not just useless."""
    world = World(1_200, seed=seed)
    version = version_of(world, BanditSettings(forgetting_half_life=100.0))
    turned = Drifting(world, 0, CATALOGUE, "abrupt", at=5 / 12)
    alone = {name: version.ensemble.only(name) for name in ("linear", "forgetting")}
    found = baselines.play(alone, version, turned, schedule(1_200, window_s=0.1), seed=0)
    before, turn, after = (
        {name: found[name].expected_N[rows].mean() for name in alone}
        for rows in (slice(250, 500), slice(500, 750), slice(500, None))
    )
    uniform = np.mean([0.7, 0.2, 0.2, 0.2])
    assert turn["linear"] < uniform < before["linear"]
    assert after["forgetting"] > after["linear"]


def test_clients_do_not_learn_from_each_other(world: World, version: Version) -> None:
    reverse, when = World(150, flipped=("north",)), schedule(150)
    ensemble = {"p": version.ensemble.only("popularity")}
    one, other = (baselines.play(ensemble, version, w, when, seed=2)["p"].item_N for w in (world, reverse))
    south = [row for row in range(150) if world.clients[row] == "south"]
    assert [one[row] for row in south] == [other[row] for row in south]
    assert list(one) != list(other)


def test_a_policy_that_learns_earns_more(version: Version) -> None:
    """1,200 decisions: uniform expects 0.325; what a linear model learns in time is well above it."""
    world = World(1_200, seed=5)
    found = baselines.play(baselines.policies(version, "linear"), version, world, schedule(1_200), seed=0)
    assert found["uniform"].expected_N.mean() == pytest.approx(0.325, abs=0.03)
    assert found["pooled_linear"].expected_N[600:].mean() > 0.45


def test_rows_may_be_a_part_of_the_world_in_any_order(world: World, version: Version) -> None:
    rows = np.array([5, 3, 80, 81])
    when = Schedule(rows, np.array([0.0, 0.1, 0.2, 0.3]), 2.0, 0.2)
    found = baselines.play(baselines.policies(version, "popularity"), version, world, when, seed=0)["uniform"]
    assert [world.reward(row, item) for row, item in zip(rows, found.item_N, strict=True)] == found.reward_N.tolist()


def test_a_version_without_some_members_has_fewer_baselines(version: Version) -> None:
    small = Version(version.feature_map, version.ensemble.only("linear"), version.items)
    assert set(baselines.policies(small, "linear")) == {"uniform", "pooled_linear", "best_predefined"}
    with pytest.raises(ModelError, match="no member"):
        baselines.policies(small, "popularity")


def test_items_that_have_said_something_of_the_members_are_no_hindrance(version: Version) -> None:
    told = ItemWeights(np.array([1]), np.array([[0.4, 0.3, 0.2, 0.1]]))
    for names in (version.ensemble.names, version.ensemble.names[1:]):
        ensemble = replace(version.ensemble, items=told).only(*names)
        found = baselines.policies(Version(version.feature_map, ensemble, version.items), "linear")
        assert [len(each.names) for each in found.values()] == [1, 1, 1, 1]
        assert found["uniform"].names == ("uniform",)
