"""Which versions a learner learns, and from whose decisions."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.bandits.version import Version
from cluster.errors import RegistryError, StateError
from cluster.journal.journal import Reader
from serve.decide import Engine
from serve.learner import Learner
from serve.learning import checkpoint
from serve.learning.ledger import Ledger
from serve.messages import DecisionRequest
from tests import serving
from tests.learner_cases import WAIT_S, World, all_of, bits, world_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_at(tmp_path) as made:
        yield made


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
