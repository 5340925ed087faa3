"""The journal as a data set, and a version composed from it that goes on where the data end."""

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic_core import from_json

from actors.bandits.version import Version
from cluster.config import ClientMode, RewardKind, Settings, changed
from cluster.errors import SourceError
from cluster.importers.assemble import MOST_LISTED_ITEMS
from cluster.journal.catalogue import Catalogues
from cluster.journal.data import dataset
from cluster.journal.events import Choice
from cluster.journal.journal import ItemRecord, Journal, Reader, RewardRecord, journal_url
from cluster.records import EVENTS, ITEMS, Dataset
from cluster.registry import DEFAULT_NAME, Registry
from serve.decide import Engine
from serve.decisions.current import load
from serve.ids import DecisionIds
from serve.learner import Learner
from serve.learning.ledger import Ledger
from serve.messages import DecisionRequest
from tests import serving
from tests.compose_cases import quick
from tests.programs import ended
from tune.composer import compose
from tune.stages import Stages

WAIT_S = 20.0
IDS = tuple(f"i{n}" for n in range(12))


class World:
    """Decisions of a published version in a journal whose time a test moves."""

    def __init__(self, settings: Settings, items: int = 12) -> None:
        self.settings = settings
        self.registry = Registry(settings.registry_uri)
        self.version = serving.version(items=items)
        self.registry.publish(DEFAULT_NAME, self.version.save)
        self.engine = Engine(seed=1)
        self.engine.install(load(1, self.version))
        self.now = 1_767_225_600.0
        kinds = {"reward": RewardKind(window_s=10), "buy": RewardKind(window_s=5)}
        self.journal = Journal(journal_url(settings), kinds, lambda: self.now, close_every_s=0.01)
        self.reader = Reader(journal_url(settings))
        self.slots = 0

    def decide(
        self,
        client: str = "shop",
        mode: ClientMode = "live",
        clicked: bool = False,
        seen: tuple[str, ...] = (),
        **request: Any,
    ) -> str:
        """The item of the first slot."""
        asked = DecisionRequest.model_validate({"user_id": "u", "context": {"device": "mobile"}} | request)
        record = self.engine.decide(client, asked, f"D{self.slots:05d}", mode=mode, seen=seen)
        self.journal.decide([record]).result(WAIT_S)
        self.slots += record.slots
        if clicked:
            click = RewardRecord(client, record.decision_id, 0, "reward", 1.0, record.decision_id)
            self.journal.reward([click]).result(WAIT_S)
        self.now += 0.001
        return str(from_json(record.answer)["slots"][0]["item_id"])

    def change(self, item: str, body: str | None, client: str = "shop") -> None:
        revision = self.journal.items([ItemRecord(client, item, body)]).result(WAIT_S)
        self.engine.change(client, item, body, revision)
        self.engine.rebuild(client)

    def close_windows(self) -> None:
        self.now += 11
        deadline = time.monotonic() + WAIT_S
        while self.reader.last_outcome() < 2 * self.slots and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.reader.last_outcome() == 2 * self.slots

    def dataset(self, **changes: Any) -> Dataset:
        return dataset(changed(self.settings, changes), self.reader)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    made = World(settings)
    yield made
    made.journal.close()
    made.reader.close()


def test_the_events_are_those_of_the_learned_kind_with_their_candidates(world: World) -> None:
    first = world.decide(clicked=True, slots=2)
    world.decide(items=["i1", "i2"], exclude=["i1"])
    world.close_windows()
    made = world.dataset()
    events = made.events
    assert events.schema == EVENTS
    assert made.items.schema == ITEMS
    assert made.items["item_id"].to_pylist() == list(IDS)
    assert set(events["reward_kind"].to_pylist()) == {"reward"}
    assert events["reward"].to_pylist() == [1.0, 0.0, 0.0]
    assert events["candidates"].to_pylist() == [list(IDS), [i for i in IDS if i != first], ["i2"]]
    assert events["propensity"].null_count == 0
    assert made.users["user_id"].to_pylist() == ["u"]
    assert made.facts["watermark"] == 6
    assert made.facts["notes"] == []


def test_a_baseline_teaches_but_has_no_propensity(world: World) -> None:
    world.decide(mode="apprentice", items=["i3", "i4"])
    world.decide(mode="off")
    world.close_windows()
    assert world.dataset().events.select(["item_id", "propensity", "version"]).to_pylist() == [
        {"item_id": "i3", "propensity": None, "version": None},
        {"item_id": "i0", "propensity": None, "version": None},
    ]


def test_the_catalogue_is_what_the_decision_knew(world: World) -> None:
    world.decide()
    world.change("new", '{"title": "a red thing", "price": 3.0, "attributes": {"size": 4}}')
    world.change("i0", None)
    world.change("i1", None)
    world.decide(items=["new", "i2"])
    world.decide()
    world.change("i1", '{"title": "another"}')
    world.close_windows()
    made = world.dataset()
    without = [item for item in IDS if item not in ("i0", "i1")]
    assert [sorted(row) for row in made.events["candidates"].to_pylist()] == [
        sorted(IDS),
        ["i2", "new"],
        sorted([*without, "new"]),
    ]
    titles = dict(zip(made.items["item_id"].to_pylist(), made.items["title"].to_pylist(), strict=True))
    assert titles["new"] == "a red thing"
    assert titles["i1"] == "another"
    assert titles["i0"] == "a red thing 0"  # gone, but a candidate of the first event
    assert set(titles) == {*IDS, "new"}


def test_what_the_user_had_seen_or_had_expired_was_no_candidate(world: World) -> None:
    ends = '{"title": "until tomorrow", "expires_at": "2026-01-02T00:00:00Z"}'
    world.change("new", ends)
    world.decide(unseen_s=60.0, seen=("i2", "i5"))
    world.decide(unseen_s=60.0)
    world.now += 86_400
    world.close_windows()
    rows = world.dataset().events["candidates"].to_pylist()
    assert [sorted(row) for row in rows] == [
        sorted([*(item for item in IDS if item not in ("i2", "i5")), "new"]),
        sorted([*IDS, "new"]),
    ]
    catalogues = Catalogues(world.registry, DEFAULT_NAME, world.reader.changes(0), ["shop"])
    before, after = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2))
    assert not catalogues.expired(1, "shop", 1, before)
    assert "new" in catalogues.expired(1, "shop", 1, after)
    assert not catalogues.expired(1, "shop", 0, after)
    assert not catalogues.expired(1, "other", 1, after)


def test_an_item_of_a_version_ends_until_the_client_puts_it_anew(tmp_path: Path) -> None:
    """i3 ends on 2 January in the version, i4 on the 3rd; the client prolongs i3 by a change, and then deletes it."""
    made = serving.version()
    ends = [datetime(2026, 1, {"i3": 2, "i4": 3}[item], tzinfo=UTC) if item in ("i3", "i4") else None for item in IDS]
    column = pa.array(ends, pa.timestamp("us", "UTC"))
    items = made.items.set_column(made.items.schema.get_field_index("expires_at"), "expires_at", column)
    registry = Registry(str(tmp_path))
    registry.publish(DEFAULT_NAME, replace(made, items=items).save)
    registry.publish(
        DEFAULT_NAME, replace(made, items=made.items.drop_columns(["expires_at"])).save
    )  # an older Medley's
    later = json.dumps({"expires_at": "2026-01-05T00:00:00Z"})
    changes = [(1, ItemRecord("shop", "i3", later)), (2, ItemRecord("shop", "i3", None))]
    catalogues = Catalogues(registry, DEFAULT_NAME, changes, ["shop"])

    def expired(day: int, revision: int = 0, client: str = "shop", version: int = 1) -> set[str]:
        found = catalogues.expired(version, client, revision, datetime(2026, 1, day, tzinfo=UTC))
        assert bool(found) or not any(item in found for item in IDS)
        return {item for item in IDS if item in found}

    assert [expired(day) for day in (1, 2, 3)] == [set(), {"i3"}, {"i3", "i4"}]
    assert [expired(day, 1) for day in (2, 3, 5)] == [set(), {"i4"}, {"i3", "i4"}]
    assert expired(9, 2) == {"i4"}  # and it is no candidate at all any more
    assert expired(3, 1, "other") == {"i3", "i4"}
    assert expired(9, version=2) == expired(9, version=77) == set()


def test_what_expires_between_a_decision_and_its_commit_was_a_candidate(world: World) -> None:
    asked = world.now
    ends = datetime.fromtimestamp(asked + 0.05, UTC).isoformat()
    world.change("flash", json.dumps({"title": "a flash", "expires_at": ends}))
    ids = DecisionIds(bytes(16), lambda: asked)
    world.now = asked + 0.1
    request = DecisionRequest(user_id="u", context={"device": "mobile"}, items=["flash", "i1"])
    for excluded in ([], ["i1"]):
        record = world.engine.decide("shop", request.model_copy(update={"exclude": excluded}), ids.new("shop"))
        world.journal.decide([record]).result(WAIT_S)
        world.slots += 1
    asked = world.now
    record = world.engine.decide("shop", request, ids.new("shop"))
    world.journal.decide([record]).result(WAIT_S)
    world.slots += 1
    world.close_windows()
    assert world.dataset().events["candidates"].to_pylist() == [["flash", "i1"], ["flash"], ["i1"]]


def test_a_replica_that_missed_a_delete_has_its_own_candidates(world: World) -> None:
    """What it could still show stands in the journal by the change that it knew."""
    engine, late = world.engine, Engine(seed=1)
    late.install(load(1, world.version))
    world.change("i3", None)
    for replica in (late, engine):
        world.engine = replica
        world.decide()
    world.engine = late
    world.decide(items=["i3"])
    world.close_windows()
    events = world.dataset().events
    assert events["candidates"].to_pylist() == [list(IDS), [item for item in IDS if item != "i3"], ["i3"]]
    assert events["item_id"].to_pylist()[2] == "i3"


def test_what_nobody_can_be_shown_any_more_is_no_item(world: World) -> None:
    world.change("i0", None)
    world.decide()
    world.close_windows()
    assert world.dataset().items["item_id"].to_pylist() == list(IDS[1:])


def test_an_item_of_one_client_stays_its_own(world: World) -> None:
    world.change("mine", '{"title": "mine"}')
    for client in ("shop", "other"):
        world.change("ours", '{"title": "ours"}', client)
    world.decide(items=["mine"])
    world.decide(items=["ours"])
    world.decide("other", items=["ours", "i1"])
    world.close_windows()
    made = world.dataset()
    assert made.items["item_id"].to_pylist() == [*IDS, "ours"]
    assert made.events["candidates"].to_pylist() == [["ours"], ["ours", "i1"]]
    assert made.facts["notes"] == ["1 events left out: of items that one of several clients put for itself"]


def test_who_decides_outside_of_the_choice_is_a_client_too(world: World) -> None:
    world.decide("other")
    world.change("secret", '{"title": "secret"}')
    world.decide()
    world.decide()
    world.close_windows()
    choices = Choice(), Choice(client="shop"), Choice(since=datetime.fromtimestamp(world.now - 11.001, UTC))
    assert [dataset(world.settings, world.reader, choice).items["item_id"].to_pylist() for choice in choices] == [
        list(IDS)
    ] * 3
    assert world.dataset(**{"data.max_events": 1}).items["item_id"].to_pylist() == list(IDS)


def test_of_a_large_catalogue_what_left_something_out_cannot_be_judged(settings: Settings) -> None:
    world = World(settings, items=MOST_LISTED_ITEMS + 1)
    world.decide(slots=2)
    world.decide(exclude=["i1"])
    world.close_windows()
    made = world.dataset()
    assert made.events["candidates"].to_pylist() == [None]
    assert made.events["position"].to_pylist() == [0]
    assert made.facts["notes"] == [
        "2 events left out: of a catalogue above 256 items something was excluded, or taken before"
    ]
    world.journal.close()
    world.reader.close()


def test_the_newest_events_are_kept(world: World) -> None:
    for _ in range(5):
        world.decide()
    world.close_windows()
    made = world.dataset(**{"data.max_events": 3})
    assert made.events["event_id"].to_pylist() == ["D00002/0", "D00003/0", "D00004/0"]
    assert made.facts["older_left_out"] == 2


def test_a_span_of_time_ends_at_its_last_outcome(world: World) -> None:
    world.decide()
    world.now += 86_400
    world.decide()
    world.close_windows()
    until = dataset(world.settings, world.reader, Choice.parse(None, None, "2026-01-02"))
    assert (len(until.events), until.facts["watermark"]) == (1, 1)
    with pytest.raises(SourceError, match=r"no final outcome for .*'client': 'nobody'"):
        dataset(world.settings, world.reader, Choice(client="nobody"))


def test_a_version_composed_from_the_journal_learns_only_what_came_after(world: World, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def traffic(number: int) -> None:
        for _ in range(number):
            context = {"device": ("mobile", "desktop")[int(rng.integers(2))], "hour": int(rng.integers(24))}
            world.decide(clicked=bool(rng.random() < 0.4), user_id=f"u{rng.integers(60)}", context=context)
        world.close_windows()

    traffic(400)
    settings = quick(world.settings.home, sweep={"top_k": 2})
    facts = json.loads(ended("cluster.export", "--name", "live").stdout)
    assert (facts["events"], facts["watermark"]) == (400, 800)
    result = compose(Dataset.load(Path(facts["folder"])), settings, Stages(None), DEFAULT_NAME)
    assert result["version"] == 2
    made = Version.load(world.registry.fetch(DEFAULT_NAME, 2))
    assert made.facts["watermark"] == world.reader.last_outcome() == 800
    traffic(30)
    versions = {1: world.version, 2: made}
    ledger = Ledger(str(tmp_path / "learner.db"))
    learner = Learner(versions.__getitem__, world.reader, ledger, "reward", lambda: world.now)
    while learner.advance():
        continue
    learner.adopt(2)
    assert learner.state("shop", 1).count == 430
    assert learner.state("shop", 2).count == 30
    ledger.close()
