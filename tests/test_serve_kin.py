"""Decisions where items have kin, as they are served: answers, lessons, restarts, and replays under stress."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic_core import from_json

from actors.bandits import law, learn
from actors.bandits.members import Shared, view
from actors.bandits.version import Version
from cluster.config import Settings
from cluster.journal.journal import Reader
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.asked import Asked
from serve.decisions.catalogue import Large
from serve.decisions.current import load
from serve.ids import seed_of
from serve.learner import Learner
from serve.learning.ledger import Ledger
from serve.learning.service import ledger_url
from serve.messages import DecisionRequest
from serve.replay import replay
from tests import kindred
from tests.learner_cases import WAIT_S, World, all_of
from tests.test_ensemble import residual
from tests.test_replay import served

ITEMS = [f"i{n}" for n in range(12)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """With a residual too, and rewards in [−1, 3]."""
    made = kindred.version(facts={"name": "test"})
    ensemble, relations = made.ensemble, made.feature_map.relations
    assert relations is not None
    sizes = relations.kin.reduced_KQ.shape[1], relations.neighbours
    wide = residual(np.random.default_rng(0), ensemble.names, *sizes)
    made = replace(made, ensemble=replace(ensemble, residual=wide, low=-1.0, high=3.0))
    registry = Registry(str(tmp_path / "registry"))
    registry.publish(DEFAULT_NAME, made.save)
    found = World(tmp_path, Version.load(registry.fetch(DEFAULT_NAME, 1)))
    yield found
    found.journal.close()


@pytest.fixture
def taught(world: World) -> tuple[Engine, Learner]:
    """An engine and the learner whose last publication it has."""
    world.traffic(40, clients=("shop",))
    learner, engine = world.learner(), Engine(seed=1)
    all_of(learner)
    learner.publish()
    engine.install(load(1, world.versions[1]))
    for update in learner.since(0)[1]:
        engine.publish(update)
    return engine, learner


def asked(number: int, **changes: Any) -> DecisionRequest:
    context = {"device": ("mobile", "desktop")[number % 2], "hour": number % 24}
    return DecisionRequest.model_validate({"user_id": f"u{number % 5}", "context": context, "slots": 3} | changes)


def test_requests_together_are_answered_as_alone(taught: tuple[Engine, Learner]) -> None:
    engine, _ = taught
    some = [Asked("shop", asked(n, items=ITEMS[: 3 + n % 4] if n % 3 else None), f"T{n}") for n in range(20)]
    for one, found in zip(some, engine.decide_many(some), strict=True):
        alone = engine.decide_many([one])[0]
        assert (found.answer, found.evidence) == (alone.answer, alone.evidence)


def test_a_slot_tells_the_weights_and_parts_of_its_own_item(taught: tuple[Engine, Learner], world: World) -> None:
    """What the models add sums to the score, by the weights that the slot names, which differ between items."""
    engine, learner = taught
    published = engine.current("shop").published  # type: ignore[union-attr]
    context = asked(1).context
    features = world.versions[1].feature_map.features(context, ITEMS, "nobody")
    weights = set()
    for n in range(10):
        record = engine.decide("shop", asked(1, user_id="nobody", items=ITEMS), f"S{n}")
        for slot in from_json(record.answer)["slots"]:
            k, models = ITEMS.index(slot["item_id"]), slot["models"]
            weights.add(tuple(models.values()))
            assert -1 + sum(slot["contributions"].values()) == pytest.approx(slot["score"], abs=1e-9)
            assert sum(models.values()) == pytest.approx(1)
            total, moved_D = sum(w for name, w in models.items() if name != "uniform"), np.zeros(published.dimension)
            for member in published.members:
                if isinstance(member, Shared) and member.view != "items":
                    row = view(features, member.view)[1][k]
                    moved_D += 4 * models[member.name] / total * member.posterior.mean_AD[row] * features.phi_KD[k]
            order = 1 + np.argsort(-np.abs(moved_D[1:]))[:3]
            found = [reason["contribution"] for reason in slot["reasons"]]
            assert found == pytest.approx(moved_D[order].tolist())
    assert len(weights) > 3
    assert learner.state("shop", 1).items.published() is not None


def test_an_apprentices_lesson_says_what_members_thought_of_the_callers_choice(
    taught: tuple[Engine, Learner], world: World
) -> None:
    engine, learner = taught
    request = asked(3, baseline_item="i9", slots=2, items=ITEMS)
    record = engine.decide("shop", request, "OWN", mode="apprentice")
    published = engine.current("shop").published  # type: ignore[union-attr]
    features = world.versions[1].feature_map.features(request.context, ITEMS, request.user_id)
    past = learner.state("shop", 1).histories.get("u3")
    expected = law.probabilities(published, features, past, seed_of("OWN", 1)).member_means_MK
    known = evidence.unpack(record.evidence or b"")
    assert known.kin is not None
    assert known.item_ids[0] == "i9"
    for slot, item in enumerate(known.item_ids):
        np.testing.assert_array_equal(known.kin.means_SM[slot], expected[:, ITEMS.index(item)])
    before = learner.state("shop", 1).items.weights(9)
    count = learner.state("shop", 1).items.sums(9)[0]
    world.journal.decide([record]).result(WAIT_S)
    world.close_windows(len(world.outcomes()) + 2)
    all_of(learner)
    assert learner.state("shop", 1).items.sums(9)[0] == count + 1
    assert not np.array_equal(learner.state("shop", 1).items.weights(9), before)


def test_a_restarted_learner_has_the_items_of_one_that_begins_anew(world: World) -> None:
    learner = world.learner("first.db")
    for _ in range(3):
        world.traffic(8)
        all_of(learner, 5)
        learner.publish()
        learner.save()
        learner = world.learner("first.db")
    anew = world.learner("second.db")
    all_of(anew)
    for client in ("shop", "other"):
        items, others = (one.state(client, 1).items.arrays() for one in (learner, anew))
        assert len(items["rows"]) > 3
        for name, array in items.items():
            np.testing.assert_array_equal(others[name], array)


@pytest.mark.parametrize("large", [None, Large(6, 2)])
def test_decisions_replay_to_the_bit_also_from_pruned_publications(world: World, large: Large | None) -> None:
    ids = served(world, 8, large, [{"provider_id": "p1", "embedding": [1.0, 0.0, -1.0, 0.5, 2.0]}])
    settings = Settings.model_validate({"home": world.folder, "seed": 1})
    first = [replay(settings, Reader(world.url), world.load, one) for one in ids]
    assert all(found.same for found in first)
    assert max(found.epoch for found in first) > 2
    ledger = Ledger(ledger_url(settings, 0))
    assert ledger.prune(before=1e12) > 0
    ledger.close()
    again = [replay(settings, Reader(world.url), world.load, one) for one in ids]
    assert all(found.same for found in again)
    assert any(found.tried > 1 for found in again)


def test_a_replica_decides_by_what_its_learner_published(taught: tuple[Engine, Learner], world: World) -> None:
    engine, learner = taught
    found = engine.current("shop").published  # type: ignore[union-attr]
    expected = learn.publish(copy.deepcopy(learner.state("shop", 1)))
    for name in ("weights_M", "alternatives_M", "values_M", "errors_M"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert found.items is not None
    assert expected.items is not None
    np.testing.assert_array_equal(found.items.rows_N, expected.items.rows_N)
    np.testing.assert_array_equal(found.items.weights_NM, expected.items.weights_NM)
    features = world.versions[1].feature_map.features(asked(1).context, ITEMS, None)
    one, other = (law.probabilities(published, features, None, 3) for published in (found, expected))
    np.testing.assert_array_equal(one.pi_K, other.pi_K)
    assert found.weights == expected.weights == world.versions[1].ensemble.weights
