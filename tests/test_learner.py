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
from actors.bandits.version import Version
from cluster import config
from cluster.config import RewardKind, Settings
from cluster.errors import RegistryError, StateError
from cluster.journal.journal import Journal, Reader, RewardRecord
from cluster.registry import DEFAULT_NAME, VersionGone
from serve.app import prepare
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.current import load
from serve.learner import Learner
from serve.learning import checkpoint
from serve.learning.ledger import Ledger, Publication, StaleOwner
from serve.learning.service import LearnerService
from serve.messages import DecisionRequest
from tests import kindred, serving

WAIT_S = 20.0


class World:
    """A journal with decisions of real versions, written as a gateway would."""

    def __init__(self, folder: Path, version: Version | None = None) -> None:
        self.folder = folder
        self.versions: dict[int, Version] = {1: version or serving.version()}
        self.now = 1_000.0
        self.url = str(folder / "journal.db")
        self.journal = Journal(self.url, {"reward": RewardKind(window_s=10)}, lambda: self.now, close_every_s=0.01)
        self.asked = 0
        self.rng = np.random.default_rng(0)

    def traffic(self, decisions: int, number: int = 1, clients: tuple[str, ...] = ("shop", "other")) -> None:
        """Decide, reward some, close the windows."""
        engine = Engine(seed=1)
        engine.install(load(number, self.versions[number]))
        before = len(self.outcomes())
        for _ in range(decisions):
            self.asked += 1
            client = clients[self.asked % len(clients)]
            device = ("mobile", "desktop")[int(self.rng.integers(2))]
            request = DecisionRequest(
                user_id=f"u{int(self.rng.integers(5))}", context={"device": device, "hour": 3}, slots=2
            )
            record = engine.decide(client, request, f"D{self.asked}")
            self.journal.decide([record]).result(WAIT_S)
            if self.rng.random() < 0.4:
                event = RewardRecord(client, record.decision_id, 0, "reward", 1.0, f"R{self.asked}")
                self.journal.reward([event]).result(WAIT_S)
        self.close_windows(before + 2 * decisions)

    def close_windows(self, outcomes: int) -> None:
        """Let every window close, and wait until the journal has this many outcomes."""
        self.now += 11
        deadline = time.monotonic() + WAIT_S
        while len(self.outcomes()) < outcomes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.outcomes()) == outcomes

    def outcomes(self) -> list[Any]:
        reader = Reader(self.url)
        rows = reader.outcomes(0, 100_000, "reward")
        reader.close()
        return rows

    def learner(self, ledger: str = "learner.db") -> Learner:
        return Learner(self.load, Reader(self.url), Ledger(str(self.folder / ledger)), "reward", lambda: self.now)

    def load(self, number: int) -> Version:
        if number not in self.versions:
            raise VersionGone(f"no version {number}")
        return self.versions[number]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


def all_of(learner: Learner, limit: int = 1_000) -> None:
    while learner.advance(limit):
        continue


def bits(learner: Learner, client: str, version: int) -> dict[str, bytes]:
    """Everything that a learner of a version knows."""
    state = learner.state(client, version)
    out = {"performance": state.performance.sums_5M.tobytes(), "count": state.count.to_bytes(8)}
    for name, statistics in state.statistics.items():
        out[f"precision/{name}"] = statistics.data_precision_ADD.tobytes()
        out[f"shift/{name}"] = statistics.data_shift_AD.tobytes()
    for user, past in state.histories.items():
        out[f"user/{user}"] = past.phi_ND.tobytes() + past.arm_N.tobytes() + past.reward_N.tobytes()
    return out


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


def test_of_old_publications_the_last_of_each_hour_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "learner.db"))
    made = [("shop", 1, 60 * n) for n in range(240)] + [("shop", 2, 10), ("shop", 2, 20), ("other", 1, 30)]
    rows = [Publication(c, v, n, float(at), n, n, {"linear": 1.0}) for n, (c, v, at) in enumerate(made)]
    ledger.write(publications=rows)
    assert ledger.prune(3 * 3_600.0) == 180 - 3 + 1  # of version 1 one in each of three hours, of version 2 one of two
    kept = [(p.client, p.version, p.at) for p in ledger.publications()]
    recent = [("shop", 1, 60.0 * n) for n in range(180, 240)]
    hourly = [("shop", 1, 60.0 * n) for n in (59, 119, 179)]
    assert sorted(kept) == sorted([*recent, *hourly, ("shop", 2, 20.0), ("other", 1, 30.0)])
    assert ledger.prune(3 * 3_600.0) == 0
    newer = Ledger(str(tmp_path / "learner.db"))
    with pytest.raises(StaleOwner):
        ledger.prune(4 * 3_600.0)
    assert newer.prune(4 * 3_600.0) == 59
    ledger.close()
    newer.close()


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


def test_a_stale_owner_cannot_write(world: World) -> None:
    world.traffic(6)
    old = world.learner()
    old.advance(6)
    new = world.learner()
    with pytest.raises(StaleOwner, match="newer learner"):
        old.publish()
    with pytest.raises(StaleOwner):
        old.save()
    new.advance(12)
    assert new.publish() == 1


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


def test_a_version_with_a_watermark_learns_what_came_after_it(world: World) -> None:
    world.traffic(20)
    learner = world.learner()
    all_of(learner)
    world.versions[2] = serving.version(seed=1, facts={"watermark": 15})
    world.versions[3] = serving.version(seed=2)
    learner.adopt(2)
    learner.adopt(3)  # made from imported logs alone: nothing to learn from earlier versions
    after = [row for row in world.outcomes() if row.seq > 15 and row.client == "shop"]
    assert learner.state("shop", 2).count == len(after)
    with pytest.raises(StateError, match="nothing of version 3"):
        learner.state("shop", 3)
    world.traffic(4, number=2)
    all_of(learner)
    assert learner.state("shop", 2).count == len(after) + 4
    assert learner.state("shop", 1).count == 20
    known = world.versions[2].feature_map.features({"device": "mobile", "hour": 3}, ["i0"], "u1").phi_KD[0]
    assert learner.state("shop", 2).histories["u1"].phi_ND.shape[1] == len(known)
    rebuilt = world.learner("another.db")
    rebuilt.adopt(2)
    all_of(rebuilt)
    assert bits(rebuilt, "shop", 2) == bits(learner, "shop", 2)


def test_a_held_client_learns_on_its_own_version_and_catches_up_when_it_is_let_go(world: World) -> None:
    """Two newer versions would retire the first one; those who are held at it go on, and lose nothing afterwards."""
    world.traffic(10)
    learner = world.learner()
    all_of(learner)
    for number in (2, 3):
        world.versions[number] = serving.version(seed=number, facts={"watermark": 0})
        learner.adopt(number, {"shop"})
    world.traffic(5)
    all_of(learner)
    rows = [row for row in world.outcomes() if row.client == "shop"]
    assert learner.state("shop", 1).count == len(rows) > 10
    with pytest.raises(StateError, match="nothing of version 3"):
        learner.state("shop", 3)
    learner.adopt(3)
    assert learner.state("shop", 3).count == len(rows)


def test_versions_without_a_watermark_learn_from_their_own_decisions(world: World) -> None:
    world.traffic(10)
    world.versions[2] = serving.version(seed=1)
    world.traffic(6, number=2)
    world.traffic(4, number=1)
    learner = world.learner()
    all_of(learner)
    assert learner.state("shop", 1).count == 14
    assert learner.state("shop", 2).count == 6


def test_old_versions_retire(world: World) -> None:
    for number in (2, 3):
        world.versions[number] = serving.version(seed=number)
    learner = world.learner()
    for number in (1, 2, 3):
        world.traffic(2, number=number, clients=("shop",))
        all_of(learner)
        learner.save()
    with pytest.raises(StateError):
        learner.state("shop", 1)
    world.traffic(2, number=1, clients=("shop",))
    all_of(learner)
    with pytest.raises(StateError):
        learner.state("shop", 1)
    assert {c.version for c in Ledger(str(world.folder / "learner.db")).checkpoints()} == {2, 3}


def test_baselines_and_versions_that_are_gone_are_passed_over(world: World) -> None:
    world.traffic(3, clients=("shop",))
    world.journal.decide([Engine().decide("shop", DecisionRequest(items=["a"]), "B1")]).result(WAIT_S)
    world.now += 11
    while len(world.outcomes()) < 7:
        time.sleep(0.01)
    del world.versions[1]
    learner = world.learner()
    all_of(learner)
    assert learner.seq == 7
    with pytest.raises(StateError):
        learner.state("shop", 1)


def test_a_version_that_cannot_be_had_for_a_moment_is_waited_for(world: World) -> None:
    """Else its outcomes until the next restart were passed over for good."""
    world.traffic(10)
    learner = world.learner()
    all_of(learner)
    learner.save()
    world.versions[2] = serving.version(seed=1, facts={"watermark": 0})
    learner.adopt(2, {"other"})
    learner.save()
    away = {1}

    def load_here(number: int) -> Version:
        if number in away:
            raise RegistryError("away for a moment")
        return world.load(number)

    for ledger in ("learner.db", "another.db"):  # from checkpoints, and from the journal's start
        away.add(1)
        restarted = Learner(load_here, Reader(world.url), Ledger(str(world.folder / ledger)), "reward")
        world.traffic(5)
        for _ in range(2):
            with pytest.raises(RegistryError, match="away"):
                restarted.advance()
        assert (restarted.publish(), restarted.seq) == (0, 0)
        restarted.save()
        away.clear()
        all_of(restarted)
        rebuilt = world.learner(f"fresh-{ledger}")
        all_of(rebuilt)
        assert bits(restarted, "other", 1) == bits(rebuilt, "other", 1)


def test_a_checkpoint_of_another_version_is_refused_and_rebuilt(world: World) -> None:
    world.traffic(5)
    learner = world.learner()
    all_of(learner)
    learner.save()
    wanted = bits(learner, "shop", 1)
    dumped = checkpoint.dump(learner.state("shop", 1))
    with pytest.raises(StateError, match="another format or version"):
        checkpoint.load(serving.version(kind="arms").ensemble, dumped)
    with pytest.raises(StateError, match="cannot be read"):
        checkpoint.load(world.versions[1].ensemble, dumped[:-40])
    ledger = Ledger(str(world.folder / "learner.db"))
    damaged = [c.__class__(c.client, c.version, c.seq, c.state[:50]) for c in ledger.checkpoints()]
    ledger.write(checkpoints=damaged)
    rebuilt = world.learner()
    assert rebuilt.seq == 0
    all_of(rebuilt)
    assert bits(rebuilt, "shop", 1) == wanted


def test_the_ledger_on_postgres(world: World, postgres_url: str) -> None:
    world.traffic(8)

    def learner() -> Learner:
        return Learner(world.load, Reader(world.url), Ledger(postgres_url), "reward", lambda: world.now)

    first = learner()
    all_of(first)
    first.publish()
    first.save()
    second = learner()
    assert bits(second, "shop", 1) == bits(first, "shop", 1)
    assert [p.epoch for p in second.publications("shop", 1)] == [2]
    assert len(second.publications()) == 2
    world.traffic(2)
    all_of(first)
    with pytest.raises(StaleOwner):
        first.save()


def test_a_ledger_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be read or written"):
        Ledger(str(tmp_path / "file" / "learner.db"))


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
