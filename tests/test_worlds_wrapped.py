"""What each wrapper changes, by hand; what it must leave alone, by property; how often, by frequency."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import stats

from cluster import config
from cluster.config import Settings, WorldSettings
from cluster.errors import ConfigError, DataError
from cluster.records import EVENTS, ITEMS, USERS, Dataset, conform
from tune.worlds.base import World, draw
from tune.worlds.build import wrapped
from tune.worlds.churn import Churn
from tune.worlds.delayed import Delayed
from tune.worlds.drifting import Drifting, moved_shares
from tune.worlds.non_responders import NonResponders
from tune.worlds.position_bias import PositionBias
from tune.worlds.wrapped import Wrapped, innermost, time_shares

ITEM_IDS = ("a", "b", "c", "d")
MEANS = {"a": 0.1, "b": 0.3, "c": 0.5, "d": 0.9}


class Known:
    """Rewards of 0 and 1 at the rates of MEANS, one situation a second, user i % users."""

    def __init__(self, n: int, offers: list[list[str] | None] | None = None, users: int = 7):
        times = pa.array([1_000_000 * row for row in range(n)], pa.int64()).cast(pa.timestamp("us", "UTC"))
        columns = {
            "event_id": [f"e{row}" for row in range(n)],
            "timestamp": times,
            "client_id": ["shop"] * n,
            "user_id": [f"u{row % users}" for row in range(n)],
            "candidates": pa.array(offers or [list(ITEM_IDS)] * n, pa.list_(pa.string())),
            "item_id": ["a"] * n,
        }
        self.events = conform(pa.table(columns), EVENTS, "events")

    def mean_rewards(self, row: int, item_ids: Any, position: int = 0) -> Any:
        return np.array([MEANS.get(item, 0.0) for item in item_ids])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return float(draw(3, row, item_id) < MEANS.get(item_id, 0.0))

    def delay_s(self, row: int, item_id: str) -> float:
        return 10.0 * ITEM_IDS.index(item_id)


def rate_within(world: World, item: str, position: int = 0) -> None:
    """The rewards of an item come at the rate of its stated means: within four standard errors."""
    n = len(world.events)
    mean_N = np.array([world.mean_rewards(row, [item], position)[0] for row in range(n)])
    reward_N = np.array([world.reward(row, item, position) for row in range(n)])
    assert abs(reward_N.mean() - mean_N.mean()) <= 4 * np.sqrt((mean_N * (1 - mean_N)).sum()) / n


def every_wrapper(n: int = 40) -> list[World]:
    inner = Known(n)
    return [
        Wrapped(inner, 1),
        Delayed(inner, 1, 5.0, 1.5),
        Drifting(inner, 1, ITEM_IDS, "gradual"),
        PositionBias(inner, 1, (0.8, 0.4), 0.0),
        Churn(inner, 1, 0.5, 0.0),
        NonResponders(inner, 1, 0.5, 0.0),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_wrapper_keeps_the_protocol_and_its_draws_are_pure(number: int) -> None:
    first, again = every_wrapper()[number], every_wrapper()[number]
    assert isinstance(first, World)

    asked = [(row, item, position) for row in range(40) for item in ITEM_IDS for position in (0, 1)]

    def answers(world: World, order: list[tuple[int, str, int]]) -> dict[Any, Any]:
        return {each: (world.reward(*each), world.delay_s(*each[:2])) for each in order}

    assert answers(first, asked) == answers(again, asked[::-1])
    assert np.isfinite(first.mean_rewards(3, ITEM_IDS, 2)).all()


def test_wrappers_stack_and_the_innermost_is_found() -> None:
    inner = Known(5)
    outer = Delayed(NonResponders(inner, 0, 0.5, 0.0), 0, 1.0, 2.0)
    assert innermost(outer) is inner
    assert innermost(inner) is inner
    assert outer.events is inner.events
    assert Delayed(inner, 0, 1.0, 2.0).seed != NonResponders(inner, 0, 0.5, 0.0).seed != 0


def test_delays_follow_the_lomax_law() -> None:
    """Against SciPy's Lomax with the same median: Kolmogorov-Smirnov, p = 0.001; half are below the median."""
    world = Delayed(Known(1), 0, median_s=8.0, tail=1.2)
    added = np.array([world.delay_s(row, "b") - 10.0 for row in range(4_000)])  # item b is 10 s late itself
    scale = 8.0 / (2 ** (1 / 1.2) - 1)
    assert stats.kstest(added, stats.lomax(1.2, scale=scale).cdf).pvalue > 0.001
    assert np.median(added) == pytest.approx(8.0, rel=0.1)
    assert added.max() > 100 * np.median(added)


def test_a_slot_earns_by_how_much_it_is_looked_at() -> None:
    world = PositionBias(Known(4_000), 0, (0.5, 0.25), default=-1.0)
    # −1 + 0.5·(0.9 + 1) = −0.05 and −1 + 0.25·1.9 = −0.525; the last share holds for all after it
    assert [world.mean_rewards(0, ["d"], position)[0] for position in (0, 1, 7)] == pytest.approx(
        [-0.05, -0.525, -0.525]
    )
    looked = np.array([[world.reward(row, "d", position) != -1.0 for position in (0, 1)] for row in range(4_000)])
    assert abs(looked[:, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(4_000)
    assert abs(looked[:, 1].mean() - 0.25) < 4 * 0.5 / np.sqrt(4_000)
    assert looked[looked[:, 1], 0].all()  # who looks at the second slot has looked at the first
    rows = np.flatnonzero(looked[:, 1])
    assert all(world.reward(row, "d", 1) == world.world.reward(row, "d") for row in rows)


def test_some_users_never_answer() -> None:
    world = NonResponders(Known(6_000, users=3_000), 0, share=0.3, default=0.25)
    silent = world.silent_N
    assert abs(silent[:3_000].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 3_000)
    np.testing.assert_array_equal(silent[:3_000], silent[3_000:])  # the same users, whenever they come
    quiet, loud = int(np.flatnonzero(silent)[0]), int(np.flatnonzero(~silent)[0])
    np.testing.assert_array_equal(world.mean_rewards(quiet, ["a", "d"]), [0.25, 0.25])
    assert {world.reward(quiet, item) for item in ITEM_IDS} == {0.25}
    np.testing.assert_array_equal(world.mean_rewards(loud, ["a", "d"]), [0.1, 0.9])


def test_items_come_and_go() -> None:
    """All items churn: each is on offer in half of the situations, as one stretch of time (round the end)."""
    names = [f"i{k}" for k in range(30)]
    world = Churn(Known(200, [names] * 200), 0, share=1.0, default=0.0)
    offers = world.events["candidates"].to_pylist()
    for item in names:
        here = np.array([item in offer for offer in offers])
        assert abs(here.sum() - 100) <= 1
        assert (here != np.roll(here, 1)).sum() <= 3  # the grid's ends may cut a stretch
    assert all(offer == [item for item in names if item in offer] for offer in offers)
    assert Counter(len(offer) < 30 for offer in offers)[True] == 200
    only = Churn(Known(200, [names] * 200), 0, share=0.4, default=0.0).events["candidates"].to_pylist()
    staying = set(names).intersection(*only)
    assert 10 <= len(staying) <= 25  # 18 expected, standard deviation 2.7


def test_what_is_away_earns_nothing() -> None:
    world = Churn(Known(400), 0, share=1.0, default=-0.5)
    away = [
        (row, item)
        for row, offer in enumerate(world.events["candidates"].to_pylist())
        for item in ITEM_IDS
        if item not in offer
    ]
    assert away
    for row, item in away[:50]:
        assert world.reward(row, item) == world.mean_rewards(row, [item])[0] == -0.5
    for row, offer in enumerate(world.events["candidates"].to_pylist()):
        assert len(offer) >= 2
        np.testing.assert_array_equal(world.mean_rewards(row, offer), [MEANS[item] for item in offer])


def test_a_whole_catalogue_cannot_churn() -> None:
    with pytest.raises(DataError, match=r"1 of 2 situations offer the whole catalogue, .* set world\.churn to 0"):
        Churn(Known(2, [None, ["a", "b"]]), 0, 0.5, 0.0)


def test_the_share_that_has_moved() -> None:
    at_N = np.array([0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(moved_shares(at_N, "gradual", 0.3, 2.0), at_N)
    np.testing.assert_allclose(moved_shares(at_N, "abrupt", 0.5, 2.0), [0, 0, 1, 1, 1])
    np.testing.assert_allclose(moved_shares(at_N, "seasonal", 0.3, 1.0), [0, 0.5, 1, 0.5, 0])
    np.testing.assert_allclose(moved_shares(at_N, "seasonal", 0.3, 2.0), [0, 1, 0, 1, 0], atol=1e-12)


def test_items_take_the_part_of_those_half_an_offer_on() -> None:
    """a < b < c < d by mean: with all four a takes c's part, b d's, c a's, d b's; of a, c, d, a takes c's, c d's."""
    world = Drifting(Known(3, [["d", "b", "a", "c"], ["c", "d", "a"], None]), 0, ITEM_IDS, "abrupt", at=0.0)
    np.testing.assert_array_equal(world.mean_rewards(0, ITEM_IDS), [0.5, 0.9, 0.1, 0.3])
    np.testing.assert_array_equal(world.mean_rewards(1, ["a", "c", "d"]), [0.5, 0.9, 0.1])
    np.testing.assert_array_equal(world.mean_rewards(2, ITEM_IDS), [0.5, 0.9, 0.1, 0.3])
    assert world.mean_rewards(1, ["b"])[0] == 0.3  # not on offer: as it was
    assert world.delay_s(0, "a") == 20.0  # c's
    assert all(world.reward(0, item) == world.world.reward(0, part) for item, part in zip("abcd", "cdab", strict=True))


def test_before_an_abrupt_drift_nothing_is_changed_and_after_it_everything() -> None:
    world = Drifting(Known(101), 0, ITEM_IDS, "abrupt", at=0.5)
    for row in (0, 30, 49):
        assert [world.reward(row, i) for i in ITEM_IDS] == [world.world.reward(row, i) for i in ITEM_IDS]
        np.testing.assert_array_equal(world.mean_rewards(row, ITEM_IDS), world.world.mean_rewards(row, ITEM_IDS))
    for row in (50, 77, 100):
        np.testing.assert_array_equal(world.mean_rewards(row, ITEM_IDS), [0.5, 0.9, 0.1, 0.3])


@pytest.mark.parametrize("kind", ["gradual", "abrupt", "seasonal"])
def test_drifting_rewards_come_at_the_stated_rate(kind: Any) -> None:
    world = Drifting(Known(6_000), 0, ITEM_IDS, kind)
    for item in ITEM_IDS:
        rate_within(world, item)


@examples(deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8, unique=True), st.floats(0, 1))
def test_what_can_be_earned_stays_the_same(offer: list[str], at: float) -> None:
    """The second table deals the same means to the items on offer, so the best one is as good as before."""
    world = Drifting(Known(5, [offer] * 5), 0, ITEM_IDS, "abrupt", at)
    for row in (0, 4):
        after = world.mean_rewards(row, offer)
        assert sorted(after) == pytest.approx(sorted(world.world.mean_rewards(row, offer)))


def test_times_from_first_to_last() -> None:
    assert time_shares(Known(3).events).tolist() == [0.0, 0.5, 1.0]
    assert time_shares(Known(1).events).tolist() == [0.0]


def test_settings_wrap_and_by_default_do_not() -> None:
    inner = Known(20)
    catalogue = conform(pa.table({"item_id": ITEM_IDS}), ITEMS, "items")
    data = Dataset("feedback", inner.events, catalogue, USERS.empty_table())
    assert wrapped(inner, data, Settings()) is inner
    every: dict[str, Any] = {
        "churn": 0.2,
        "drift": "seasonal",
        "non_responders": 0.1,
        "examination": (1.0, 0.5),
        "delay_median_s": 60.0,
    }
    kinds = (Churn, Drifting, NonResponders, PositionBias, Delayed)
    for (name, value), kind in zip(every.items(), kinds, strict=True):
        found = wrapped(inner, data, Settings(world=WorldSettings.model_validate({name: value})))
        assert type(found) is kind
        assert innermost(found) is inner
    found = wrapped(inner, data, Settings(world=WorldSettings.model_validate(every)))
    order = []
    while isinstance(found, Wrapped):
        order.append(type(found))
        found = found.world
    assert order == list(kinds[::-1])


def test_a_misspelt_world_setting_is_named(tmp_path: Any) -> None:
    (tmp_path / "s.yaml").write_text("world: {drift: sudden}")
    with pytest.raises(ConfigError, match=r"world\.drift = 'sudden'"):
        config.load(tmp_path / "s.yaml")
    (tmp_path / "s.yaml").write_text("world: {churns: 0.1}")
    with pytest.raises(ConfigError, match="did you mean 'churn'"):
        config.load(tmp_path / "s.yaml")
