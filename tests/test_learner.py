"""The learner: a function of the journal alone, whatever kills, restarts and checkpoints come between."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.bandits import learn
from actors.bandits.ensemble import Admission
from cluster import config
from cluster.config import Settings
from cluster.registry import DEFAULT_NAME
from serve.app import prepare
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.current import load
from serve.learning.service import LearnerService
from serve.messages import DecisionRequest
from tests import kindred, serving
from tests.learner_cases import WAIT_S, World, all_of, bits, world_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_at(tmp_path) as made:
        yield made


def test_only_live_answers_and_an_apprentice_teach(world: World) -> None:
    engine = Engine(seed=1)
    engine.install(load(1, world.versions[1]))
    for number, mode in enumerate(("live", "shadow", "off", "baseline", "apprentice", "apprentice")):
        record = engine.decide("shop", DecisionRequest(user_id="u"), f"D{number}")
        world.journal.decide([replace(record, mode=mode)]).result(WAIT_S)
    world.close_windows(6)
    learner = world.learner()
    all_of(learner)
    assert (learner.state("shop", 1).count, learner.seq) == (3, 6)


def test_it_learns_each_outcome_once_in_order(world: World) -> None:
    world.traffic(60)
    learner = world.learner()
    all_of(learner, limit=7)
    rows = world.outcomes()
    expected = learn.start(world.versions[1].ensemble)
    for row in rows:
        if row.client == "shop":
            known = evidence.unpack(row.evidence)
            outcome = learn.Outcome(
                row.user, known.phi(row.slot), known.arm(row.slot), known.item(row.slot), row.reward,
                known.propensity(row.slot), known.members(row.slot),
            )  # fmt: skip
            learn.step(expected, outcome)
    state = learner.state("shop", 1)
    assert state.count == expected.count == 60
    for name, statistics in expected.statistics.items():
        assert np.array_equal(statistics.data_shift_AD, state.statistics[name].data_shift_AD)
    assert np.array_equal(expected.performance.sums_5M, state.performance.sums_5M)
    assert learner.seq == rows[-1].seq == 120


def test_models_of_providers_and_clusters_learn_from_the_journal(world: World) -> None:
    """By names: what each provider's and cluster's items earned, in the order of names as rows of parameters."""
    made = world.versions[1] = kindred.version()
    world.traffic(40, clients=("shop",))
    learner = world.learner()
    all_of(learner)
    state, names = learner.state("shop", 1), made.ensemble.names
    sums = {"provider": np.zeros((7, made.ensemble.dimension)), "cluster": np.zeros((3, made.ensemble.dimension))}
    earned: dict[str, list[float]] = {}
    for row in world.outcomes():
        known = evidence.unpack(row.evidence)
        item = known.item_ids[row.slot]
        owner = kindred.provider(item)
        earned.setdefault(item, []).append(row.reward)
        assert known.members(row.slot).shape == known.kin.means_SM[row.slot].shape == (len(names),)
        if owner is not None:
            phi_D = known.phi(row.slot) * row.reward / 0.2
            sums["provider"][sorted(kindred.CLUSTER_OF).index(owner)] += phi_D
            sums["cluster"][["far", "near"].index(kindred.CLUSTER_OF[owner])] += phi_D
    for name, sum_AD in sums.items():
        np.testing.assert_allclose(state.statistics[name].data_shift_AD, sum_AD, rtol=1e-9)
        assert sum_AD.any()
    for item, rewards in earned.items():
        place = made.feature_map.fitted_ids.index(item)
        assert state.items.sums(place)[:2] == (len(rewards), sum(rewards))
        assert state.items.weights(place).max() > 1 / len(names)


def test_a_later_version_learns_of_its_own_providers(world: World) -> None:
    """Outcomes of an earlier version's decisions after the watermark: features and rows are the later version's."""
    world.traffic(20, clients=("shop",))
    world.versions[2] = kindred.version(facts={"watermark": 10})
    learner = world.learner()
    all_of(learner)
    learner.adopt(2)
    counts = np.zeros(7)
    for row in world.outcomes()[10:]:
        known = evidence.unpack(row.evidence)
        owner = kindred.provider(known.item_ids[row.slot])
        counts[6 if owner is None else sorted(kindred.CLUSTER_OF).index(owner)] += owner is not None
    data_A = learner.state("shop", 2).statistics["provider"].data_precision_ADD[:, 0, 0] * 0.2
    np.testing.assert_allclose(data_A, counts, rtol=1e-9)
    assert counts.sum() > 5


def test_a_client_learns_of_the_members_that_it_admitted(world: World) -> None:
    made = serving.version()
    ensemble = replace(made.ensemble, admissions={"forgetting": Admission(True, {"shop": False})})
    world.versions[1] = replace(made, ensemble=ensemble)
    world.traffic(20)
    learner = world.learner()
    all_of(learner)
    learner.publish()
    learner.save()
    engine = Engine(seed=1)
    engine.install(load(1, world.versions[1]))
    for update in learner.since(0)[1]:
        engine.publish(update)
    for client, members in (("shop", 3), ("other", 4)):
        assert learner.state(client, 1).count == 20
        assert len(learner.state(client, 1).performance.prior_M) == members
        answer = engine.decide(client, DecisionRequest(context={"device": "mobile", "hour": 3}), "D")
        assert len(json.loads(answer.answer)["slots"][0]["models"]) == members
        again = world.learner()
        assert bits(again, client, 1) == bits(learner, client, 1)
    assert learner.skipped == 0


def test_a_rebuild_is_bit_equal_from_the_journal_and_from_a_checkpoint(world: World) -> None:
    world.traffic(50)
    first = world.learner()
    first.advance(37)
    first.publish()
    first.save()
    first.advance(20)  # learned, but lost with the process
    restarted = world.learner()
    assert restarted.seq == 37
    all_of(restarted)
    world.traffic(20)
    all_of(restarted)
    rebuilt = world.learner("another.db")
    all_of(rebuilt)
    for client in ("shop", "other"):
        assert bits(restarted, client, 1) == bits(rebuilt, client, 1)


def test_publications_number_on_after_a_restart(world: World) -> None:
    world.traffic(10)
    first = world.learner()
    first.advance(10)
    first.publish()
    first.save()
    first.advance(10)
    first.publish()
    second = world.learner()
    all_of(second)
    second.publish()
    for client in ("shop", "other"):
        made = second.publications(client)
        assert [p.epoch for p in made] == [2, 3, 4]
        assert made[-1].outcomes == 10
        assert sum(made[-1].weights.values()) == pytest.approx(1.0)


def test_after_a_restart_nothing_is_published_from_before_the_last_publication(world: World) -> None:
    """Replicas have the histories of that publication: with an older state beside them a decision could not be made
    again."""
    world.traffic(20, clients=("shop",))
    first = world.learner()
    first.advance(10)
    first.publish()
    first.save()
    first.advance(20)
    first.publish()
    (published,) = first.since(0)[1]
    second = world.learner()
    second.advance(5)
    assert (second.publish(), second.since(0)) == (0, (0, []))
    assert second.recall("shop", 1, ["u1"]).epoch == 1
    second.advance(15)
    assert second.publish() == 1
    (again,) = second.since(0)[1]
    assert again.histories.keys() == published.histories.keys()
    for user, past in published.histories.items():
        assert np.array_equal(again.histories[user].phi_ND, past.phi_ND)
    lost = world.learner()  # a journal that lacks what was published: it is not waited for
    lost._published = 1_000
    all_of(lost)
    assert lost.publish() == 1


def test_histories_are_recalled_as_they_were_published(world: World) -> None:
    world.traffic(20, clients=("shop",))
    learner = world.learner()
    learner.advance(20)
    learner.publish()
    published = learner.since(0)[1][0]
    learner.advance(20)
    found = learner.recall("shop", 1, [*published.histories, "stranger"])
    assert (found.client, found.version, found.epoch) == ("shop", 1, published.epoch)
    assert found.histories == {**published.histories, "stranger": None}
    assert learner.recall("nobody", 1, ["u1"]).histories == {"u1": None}


def test_news_hold_what_was_published_and_nothing_learned_since(world: World) -> None:
    """Else a decision between two publications could not be made again from the first of them."""
    world.traffic(40, clients=("shop",))
    learner = world.learner()
    learner.advance(30)
    learner.publish()
    before = {user: past.phi_ND.tobytes() for user, past in learner.since(0)[1][0].histories.items()}
    learner.advance(30)
    assert {user: past.phi_ND.tobytes() for user, past in learner.since(0)[1][0].histories.items()} == before
    learner.publish()
    after = learner.since(0)[1][0].histories
    assert after.keys() == learner.state("shop", 1).histories.keys()
    assert {user: past.phi_ND.tobytes() for user, past in after.items()} != before


def test_news_hold_the_latest_state_and_the_histories_that_changed(world: World) -> None:
    world.traffic(40, clients=("shop",))
    learner = world.learner()
    assert learner.since(0) == (0, [])
    learner.advance(40)
    learner.publish()
    number, updates = learner.since(0)
    assert (number, len(updates)) == (1, 1)
    assert set(updates[0].histories) == {row.user for row in world.outcomes()[:40]}
    assert set(updates[0].members) == {"popularity", "linear", "forgetting"}
    assert learner.since(1) == (1, [])
    learner.advance(1)
    learner.publish()
    number, updates = learner.since(1)
    assert number == 2
    assert set(updates[0].histories) == {world.outcomes()[40].user}
    assert len(learner.since(0)[1][0].histories) == 5


@pytest.fixture
def quick(home: Path) -> Settings:
    settings = config.load(
        rewards={"reward": {"window_s": 0.3}}, serve={"checkpoint_s": 0.5, "versions_refresh_s": 0.2}
    )
    serving.publish(settings, serving.version())
    prepare(settings)
    return settings


async def until(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = await check()
        if found:
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


def test_rewards_move_the_answers_of_a_replica(quick: Settings) -> None:
    """End to end: HTTP, journal, windows, learner, publication, replica."""
    request = {"user_id": "u1", "context": {"device": "mobile"}, "items": ["i1"]}

    async def main() -> None:
        service = LearnerService(quick.model_dump(mode="json"), DEFAULT_NAME)
        async with serving.running(quick, service) as r:
            before = (await r.decide(request)).json()["decisions"][0]["slots"][0]["score"]
            for _ in range(30):
                decision = (await r.decide(request)).json()["decisions"][0]
                await r.reward({"decision_id": decision["decision_id"], "value": 1.0})

            async def better() -> bool:
                score = (await r.decide(request)).json()["decisions"][0]["slots"][0]["score"]
                return bool(score > before + 0.05)

            await until(better, "a better score of the rewarded item")
            assert (await r.http.get("/v1/health")).json()["learner"] == "following"
            operator = {"Authorization": f"Bearer {r.operator}"}
            rows = (await r.http.get("/v1/weights?client_id=shop", headers=operator)).json()["publications"]
            assert [row["epoch"] for row in rows] == list(range(2, len(rows) + 2))
            assert set(rows[-1]["weights"]) == {"uniform", "popularity", "linear", "forgetting"}
        await service.stop()
        again = LearnerService(quick.model_dump(mode="json"), DEFAULT_NAME)
        news = await again.wait(0, 0)
        assert news.updates[0].epoch > rows[-1]["epoch"]
        assert len(news.updates[0].histories["u1"]) >= rows[-1]["outcomes"]
        await again.stop()

    asyncio.run(main())


def test_a_new_version_is_installed_without_a_restart(quick: Settings) -> None:
    async def main() -> None:
        async with serving.running(quick) as r:
            assert (await r.decide({})).json()["decisions"][0]["version"] == 1
            serving.publish(quick, serving.version(seed=1))

            async def newer() -> bool:
                return bool((await r.decide({})).json()["decisions"][0]["version"] == 2)

            await until(newer, "version 2")

    asyncio.run(main())
