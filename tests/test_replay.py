"""A decision is made again from the journal, bit-equal, whatever was learned and changed since."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import to_json

from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import JournalError, StateError
from cluster.journal.journal import ItemRecord, Reader
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions.catalogue import Large
from serve.decisions.current import load
from serve.learning.ledger import Ledger
from serve.learning.service import ledger_url
from serve.messages import DecisionRequest
from serve.replay import Replayed, replay, show
from tests import kindred, serving
from tests.learner_cases import WAIT_S, World
from tests.programs import ended


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    registry = Registry(str(tmp_path / "registry"))
    registry.publish(DEFAULT_NAME, made.versions[1].save)
    made.versions[1] = Version.load(registry.fetch(DEFAULT_NAME, 1))  # bits are those of what is published
    yield made
    made.journal.close()


def settings_of(world: World) -> Settings:
    return Settings.model_validate({"home": world.folder, "seed": 1})


def served(
    world: World, requests: int = 12, large: Large | None = None, more: Sequence[dict[str, Any]] = ({},)
) -> list[str]:
    """Decisions of a replica that follows a learner, with traffic, publications and catalogue changes between.

    more: of the items that are put, in turn.
    """
    learner = world.learner("learner-0.db")
    engine = Engine(seed=1)
    engine.install(load(1, world.versions[1], large))
    ids = []
    for n in range(requests):
        if n % 4 == 3:
            new = {"title": f"new {n}", "category": "red", "price": 2.0, **more[n // 8 % len(more)]}
            body = None if n % 8 == 7 else to_json(new).decode()
            item = "i3" if body is None else f"new{n}"
            revision = world.journal.items([ItemRecord("shop", item, body)]).result(WAIT_S)
            engine.change("shop", item, body, revision)
            engine.rebuild("shop")
        request = DecisionRequest(user_id=f"u{n % 3}", context={"device": "mobile", "hour": n}, slots=3)
        record = engine.decide("shop", request, f"X{n}")
        world.journal.decide([record]).result(WAIT_S)
        ids.append(record.decision_id)
        world.close_windows(len(world.outcomes()) + 3)
        world.traffic(6)
        while learner.advance(5):
            continue
        learner.publish()
        if n % 5 == 0:
            learner.save()
        for update in learner.since(learner.number - 1)[1]:
            engine.publish(update)
    return ids


@pytest.mark.parametrize("large", [None, Large(6, 2)])
def test_every_decision_replays_to_the_bit(world: World, large: Large | None) -> None:
    """Also where a part of the catalogue is scored: the journal has the part, and a replay needs no index."""
    ids = served(world, large=large)
    reader, settings = Reader(world.url), settings_of(world)
    epochs = []
    for decision_id in ids:
        found = replay(settings, reader, world.load, decision_id)
        assert found.same, (found.stored, found.again)
        epochs.append(found.epoch)
    assert epochs == sorted(epochs)
    assert epochs[-1] > epochs[0]
    last = replay(settings, reader, world.load, ids[-1])
    assert last.outcomes > 0


def test_a_decision_replays_where_items_have_kin(tmp_path: Path) -> None:
    """Providers and neighbours of items put meanwhile are found again, and what items have taught."""
    world = World(tmp_path, kindred.version(facts={"name": "test"}))
    try:
        registry = Registry(str(tmp_path / "registry"))
        registry.publish(DEFAULT_NAME, world.versions[1].save)
        world.versions[1] = Version.load(registry.fetch(DEFAULT_NAME, 1))
        more = [{"provider_id": name, "embedding": [1.0, n, -1.0, 0.5, 2.0]} for n, name in enumerate(("p1", "new"))]
        ids = served(world, more=more)
        reader, settings = Reader(world.url), settings_of(world)
        models = set()
        for decision_id in ids:
            found = replay(settings, reader, world.load, decision_id)
            assert found.same, (found.stored, found.again)
            models |= {json.dumps(slot["models"]) for slot in found.stored["slots"]}
        assert len(models) > len(ids)  # weights of each item's own
    finally:
        world.journal.close()


def test_a_publication_that_was_pruned_is_found_again(world: World) -> None:
    ids = served(world)
    reader, settings = Reader(world.url), settings_of(world)
    known = [replay(settings, reader, world.load, one) for one in ids]
    ledger = Ledger(ledger_url(settings, 0))
    before = len(ledger.publications("shop", 1))
    assert ledger.prune(before=1e12) > 0
    ledger.close()
    again = [replay(settings, reader, world.load, one) for one in ids]
    assert all(found.same for found in again)
    assert any(found.tried > 1 for found in again)
    for found, first in zip(again, known, strict=True):
        assert found.seq <= first.seq  # where several states give the same answer the first of them is named
    assert before > 3


@pytest.mark.parametrize("pruned", [False, True])
def test_a_version_made_from_the_journal_replays_before_its_own_first_outcome(world: World, pruned: bool) -> None:
    learner = world.learner("learner-0.db")
    engine = Engine(seed=1)
    engine.install(load(1, world.versions[1]))
    world.traffic(10)
    world.versions[2] = serving.version(seed=1, facts={"watermark": 8})
    made = []
    for n in range(3):
        world.traffic(4)  # of version 1
        while learner.advance(5):
            continue
        learner.adopt(2)
        learner.publish()
        engine.install(load(2, world.versions[2]))
        for update in learner.since(0)[1]:
            engine.publish(update)
        for k in range(4):
            request = DecisionRequest(user_id="u1", context={"device": "mobile", "hour": k}, slots=3)
            record = engine.decide("shop", request, f"W{n}{k}")
            assert (record.version, record.epoch) == (2, n + 2)
            made.append(record)
    world.journal.decide(made).result(WAIT_S)
    settings = settings_of(world)
    if pruned:
        ledger = Ledger(ledger_url(settings, 0))
        assert ledger.prune(before=1e12) > 0
        ledger.close()
    assert all(replay(settings, Reader(world.url), world.load, one.decision_id).same for one in made)


def test_a_decision_without_a_version_replays_with_what_was_put_and_seen_then(world: World) -> None:
    engine = Engine(seed=1)

    def put(item: str, category: str) -> None:
        body = to_json({"category": category}).decode()
        engine.change("shop", item, body, world.journal.items([ItemRecord("shop", item, body)]).result(WAIT_S))

    for item, category in (("a", "red"), ("b", "blue"), ("c", "red")):
        put(item, category)
    where = {"items": ["b", "a", "c"], "where": [{"field": "category", "op": "==", "value": "red"}]}
    unseen = {"items": ["a", "b"], "user_id": "u", "unseen_s": 1000}
    made = [
        engine.decide("shop", DecisionRequest.model_validate(where), "V0"),
        engine.decide("shop", DecisionRequest.model_validate(unseen), "V1", seen=["a"]),
        engine.decide("shop", DecisionRequest.model_validate(where), "V2", mode="off"),
    ]
    world.journal.decide(made).result(WAIT_S)
    put("a", "blue")
    for record, item in zip(made, ("a", "b", "a"), strict=True):
        found = replay(settings_of(world), Reader(world.url), world.load, record.decision_id)
        assert found.same, (found.stored, found.again)
        assert found.again["slots"][0]["item_id"] == item


def test_a_replay_takes_no_shard_over(world: World) -> None:
    ids = served(world, 3)
    settings = settings_of(world)
    owner = Ledger(ledger_url(settings, 0))
    replay(settings, Reader(world.url), world.load, ids[-1])
    owner.write()  # still the owner


def test_another_seed_or_history_is_seen(world: World) -> None:
    ids = served(world)
    settings = settings_of(world).model_copy(update={"seed": 2})
    again = [replay(settings, Reader(world.url), world.load, one).same for one in ids]
    assert not all(again)


def test_what_is_not_there_is_named(world: World) -> None:
    ids = served(world, 3)
    with pytest.raises(JournalError, match="no decision 'Y'"):
        replay(settings_of(world), Reader(world.url), world.load, "Y")
    (world.folder / "learner-0.db").unlink()
    Ledger(ledger_url(settings_of(world), 0)).close()
    with pytest.raises(StateError, match="is not in the learner's ledger, nor any after it"):
        replay(settings_of(world), Reader(world.url), world.load, ids[-1])


def test_a_home_that_never_served_says_so_and_stays_as_it_was(tmp_path: Path) -> None:
    reader = Reader(str(tmp_path / "journal.db"))
    with pytest.raises(JournalError, match="nothing has been logged here yet"):
        reader.decision("X")
    assert not list(tmp_path.iterdir())


def test_the_command(world: World) -> None:
    ids = served(world, 4)
    (world.folder / "settings.yaml").write_text("seed: 1")
    command = ["cluster.cli", "replay", ids[-1], "--config", str(world.folder / "settings.yaml")]
    home = str(world.folder)
    done = ended(*command, "--json", MEDLEY_HOME=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["same"]
    shown = ended(*command, MEDLEY_HOME=home)
    assert "the same, to the bit" in shown.stdout


def test_brackets_of_item_ids_are_shown_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    slots = [{"item_id": "[/x] of [red]", "propensity": 0.5, "score": 0.2}]
    answer = {"decision_id": "D", "mode": "live", "version": 1, "slots": slots}
    show(Replayed(answer, answer, 1, 0, 0))
    assert "│ [/x] of [red] │" in capsys.readouterr().out
