"""What a decision earns: clicks, conversions and sessions worked out by hand and by a plain loop."""

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.importers.native import read_native
from cluster.records import EVENTS, ITEMS, TRUTH, USERS, Dataset
from tests.compose_cases import changed, two_kinds
from tests.features_samples import labelled, table
from tune import metric
from tune.groundwork import Groundwork
from tune.worlds.build import build
from tune.worlds.labelled import Labelled
from tune.worlds.marketplace import MarketplaceWorld
from tune.worlds.reward_model import RewardModel

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MIX = {"click_through": 1, "conversion": 3}


def asked(kind: str, **more: Any) -> Settings:
    return Settings.model_validate({"metric": {"kind": kind, **more}})


def log(rows: list[dict[str, Any]], form: str = "feedback") -> Dataset:
    """Events of one client and one item unless they say otherwise; `at` is in minutes."""
    columns: dict[str, list[Any]] = {
        "event_id": [row.get("event", f"e{n}") for n, row in enumerate(rows)],
        "timestamp": [START + dt.timedelta(minutes=row["at"]) for row in rows],
        "client_id": [row.get("client", "c") for row in rows],
        "user_id": [row.get("user") for row in rows],
        "session_id": [row.get("session") for row in rows],
        "item_id": [row.get("item", "i") for row in rows],
        "reward": [row.get("reward") for row in rows],
        "reward_kind": [row.get("kind", "click") for row in rows],
    }
    return Dataset(form, table(EVENTS, len(rows), **columns), ITEMS.empty_table(), USERS.empty_table())


def values(dataset: Dataset) -> list[float]:
    found: list[float] = dataset.events["reward"].to_pylist()
    return found


SHOP = [
    {"at": 0, "event": "a", "reward": 1.0, "kind": "click"},
    {"at": 1, "event": "a", "reward": 35.0, "kind": "purchase"},
    {"at": 2, "event": "b", "reward": 1.0, "kind": "click"},
    {"at": 3, "event": "c", "reward": 0.0, "kind": "click"},
    {"at": 4, "event": "c", "item": "j", "reward": 1.0, "kind": "click"},
    {"at": 5, "event": "a", "client": "d", "reward": None, "kind": "click"},
    {"at": 6, "event": "b", "reward": 0.0, "kind": "purchase"},
    {"at": 7, "event": "b", "reward": 0.0, "kind": "click"},
]
"""Five decisions: a (clicked, bought), b (clicked, returned), two places of c, and another client's a."""


def test_clicks_conversions_and_their_mix_by_hand() -> None:
    dataset = log(SHOP)
    clicks = metric.apply(dataset, asked("click_through"))
    assert clicks.events["event_id"].to_pylist() == ["a", "b", "c", "c", "a"]
    assert clicks.events["timestamp"].to_pylist() == [START + dt.timedelta(minutes=m) for m in (0, 2, 3, 4, 5)]
    assert values(clicks) == [1, 1, 0, 1, 0]
    assert values(metric.apply(dataset, asked("conversion"))) == [1, 0, 0, 0, 0]
    mixed = metric.apply(dataset, asked("mix", weights=MIX))
    assert values(mixed) == [1, 0.25, 0, 0.25, 0]
    assert mixed.events["reward_kind"].unique().to_pylist() == ["mix"]
    assert mixed.events.schema == EVENTS
    assert mixed.facts["metric_left_out"] == 0
    both = asked("click_through", clicks=["click", "purchase"])
    assert values(metric.apply(log([{"at": 0, "kind": "purchase", "reward": 2.0}, *SHOP[1:4]]), both)) == [1, 1, 1, 0]


def test_the_logs_own_reward_is_left_alone_and_a_metric_is_applied_once() -> None:
    dataset = log(SHOP)
    assert metric.apply(dataset, Settings()) is dataset
    once = metric.apply(dataset, asked("conversion"))
    assert metric.apply(once, asked("conversion")) is once


def test_sessions_by_hand() -> None:
    """u: pauses of 10, 30, 31 minutes; the last 30 minutes of the log are not known. v: sessions by name, however
    long the pause. Nobody's row has no session."""
    rows = [
        {"at": 0, "user": "u"},
        {"at": 5, "user": "v", "session": "s"},
        {"at": 10, "user": "u"},
        {"at": 12},
        {"at": 40, "user": "u"},
        {"at": 71, "user": "u"},
        {"at": 80, "user": "v", "session": "s"},
        {"at": 85, "user": "v", "session": "t"},
        {"at": 85, "user": "w"},
        {"at": 99, "user": "u"},
    ]
    found = metric.apply(log(rows), asked("session_length"))
    kept = ["e0", "e1", "e2", "e4", "e6", "e7"]
    assert found.events["event_id"].to_pylist() == kept
    assert values(found) == [1, 1, 1, 0, 0, 0]
    assert found.facts["metric_left_out"] == 4
    short = metric.apply(log(rows), asked("session_length", gap_minutes=10))
    goes_on = dict(zip(short.events["event_id"].to_pylist(), values(short), strict=True))
    assert goes_on == {"e0": 1, "e1": 1, "e2": 0, "e4": 0, "e5": 0, "e6": 0, "e7": 0, "e8": 0}


def test_the_mean_says_how_long_sessions_are() -> None:
    """Named sessions of 1 to 6 moments: 1/(1 − v) is their mean length; places of one page are one moment."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 200)
    rows = [
        {"at": 10 * s + m, "user": f"u{s % 7}", "session": f"s{s}"} for s, n in enumerate(lengths) for m in range(n)
    ]
    rows.sort(key=lambda row: row["at"])
    found = metric.apply(log(rows), asked("session_length"))
    assert len(found.events) == lengths.sum()
    assert 1 / (1 - np.mean(values(found))) == pytest.approx(lengths.mean())
    pages = [row | {"item": item, "event": f"p{n}"} for n, row in enumerate(rows) for item in ("i", "j")]
    assert values(metric.apply(log(pages), asked("session_length"))) == np.repeat(values(found), 2).tolist()


people = st.tuples(st.sampled_from(["c", "d"]), st.sampled_from([None, "u", "v"]), st.sampled_from([None, "s"]))


@examples(max_examples=60, deadline=None)
@given(st.lists(st.tuples(people, st.integers(0, 300)), min_size=1, max_size=40), st.integers(1, 60))
def test_sessions_against_a_plain_loop(drawn: list[tuple[Any, int]], gap: int) -> None:
    drawn = sorted(drawn, key=lambda row: row[1])
    rows = [{"client": c, "user": u, "session": s, "at": at} for (c, u, s), at in drawn]
    expected: list[float | None] = []
    for who, at in drawn:
        later = [other for person, other in drawn if person == who and other > at]
        if who[2] is not None:
            expected.append(float(bool(later)))
        elif who[1] is None or at > drawn[-1][1] - gap:
            expected.append(None)
        else:
            expected.append(float(bool(later) and later[0] - at <= gap))
    found = metric.going_on(log(rows).events, gap * metric.MINUTE_US)
    assert [None if np.isnan(value) else value for value in found] == expected


def test_clicks_and_purchases_of_a_decision_come_through_the_import(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"e{n},2025-01-01T10:{n:02},u{n},a,0.5,{kind},{int(hit)}" for n in range(4)
            for kind, hit in (("click", n < 3), ("purchase", n == 0))]  # fmt: skip
    path.write_text("\n".join(["event_id,timestamp,user_id,item_id,propensity,reward_kind,reward", *rows]))
    read = read_native([path], Options(), Settings().data, 0)
    assert len(read.quarantine) == 0
    mixed = asked("mix", weights={"click_through": 1, "conversion": 9}, clicks=["click"], conversions=["purchase"])
    assert values(metric.apply(read.dataset, mixed)) == [1.0, 0.1, 0.1, 0.0]


def test_what_a_log_lacks_is_named() -> None:
    with pytest.raises(EvidenceError, match=r"no rewards of kind 'tap'; it has click, purchase: .* metric.clicks"):
        metric.apply(log(SHOP), asked("click_through", clicks=["click", "tap"]))
    with pytest.raises(EvidenceError, match=r"no rewards of kind 'purchase'; it has click: .* metric.conversions"):
        metric.apply(log(SHOP[2:4]), asked("mix", weights=MIX))
    with pytest.raises(EvidenceError, match="none of 5 decisions has a known session"):
        metric.apply(log(SHOP), asked("session_length"))
    with pytest.raises(EvidenceError, match=r"2 kinds .*metric.kind"):
        Groundwork.of(log(SHOP), Settings())


def test_the_main_job_and_its_world_see_the_metric() -> None:
    """Stars from 0 to 5 as clicks: models and the world learn from what earned any, in [0, 1]."""
    dataset = two_kinds(users=60)
    stars = changed(dataset, reward=5 * dataset.events["reward"].to_numpy(), reward_kind=["stars"] * 600)
    settings = asked("click_through", clicks=["stars"])
    work = Groundwork.of(stars, settings)
    assert set(work.dataset.events["reward"].unique().to_pylist()) == {0.0, 1.0}
    assert work.facts()["metric"] == "click_through"
    np.testing.assert_array_equal(
        work.predefined.design.reward_N, Groundwork.of(dataset, Settings()).predefined.design.reward_N
    )
    world = build(stars, settings)
    assert isinstance(world, RewardModel)
    assert world.mean_rewards(0, ["red0"]) == pytest.approx(build(dataset, Settings()).mean_rewards(0, ["red0"]))


def test_a_truth_answers_what_it_knows_and_not_how_long_sessions_are() -> None:
    data = Settings.model_validate(
        {"data": {"marketplace_users": 60, "marketplace_items": 20, "marketplace_events": 900}}
    ).data
    market = read_marketplace([], Options(), data, 0).dataset
    assert isinstance(build(market, asked("click_through", clicks=["reward"])), MarketplaceWorld)
    sessions = metric.apply(market, asked("session_length"))
    assert (sessions.format, sessions.truth) == ("feedback", None)
    assert isinstance(build(market, asked("session_length")), RewardModel)
    rows = labelled(300)
    truth = table(TRUTH, 300, event_id=rows.events["event_id"].to_pylist(), item_id=["a"] * 300)
    told = Dataset("table", rows.events, rows.items, rows.users, truth)
    assert isinstance(build(told, asked("conversion", conversions=["reward"])), Labelled)
