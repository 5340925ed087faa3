"""The journal's export: every final outcome once, as the event that it was."""

import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from cluster.config import RewardKind, Settings
from cluster.errors import ConfigError, StateError
from cluster.journal.events import FINALS, Choice, events
from cluster.journal.exported import Mark, export
from cluster.journal.journal import DecisionRecord, Final, Journal, Reader, RewardRecord, journal_url
from cluster.records import decode

WAIT_S = 20.0
START = 1_767_225_600.0  # 2026-01-01T00:00:00Z
DAY_S = 86_400.0


def final(request: dict[str, Any], slot: int = 0, mode: str = "live", **answer: Any) -> Final:
    slots = [{"item_id": "i2", "propensity": 0.25}, {"item_id": "i1", "propensity": 0.7}]
    texts = json.dumps(request), json.dumps({"slots": slots, "version": 3} | answer)
    return Final(7, "d", "shop", START, mode, slot, "reward", 0.5, 1, *texts, None)


def event(row: Final) -> dict[str, Any]:
    table = events([row])
    assert table.schema == FINALS
    return dict(table.to_pylist()[0])


REQUEST = {
    "user_id": "u1",
    "session_id": "s1",
    "context": {"device": "mobile", "hour": 21, "recent": ["i7"]},
    "items": ["i1", "i2", "i3", "i4"],
    "exclude": ["i4", "i9"],
    "slots": 2,
}


def test_an_outcome_is_an_event() -> None:
    first = event(final(REQUEST))
    assert first == {
        "event_id": "d/0",
        "timestamp": datetime(2026, 1, 1, tzinfo=UTC),
        "client_id": "shop",
        "user_id": "u1",
        "session_id": "s1",
        "context": [("device", '"mobile"'), ("hour", "21"), ("recent", '["i7"]')],
        "candidates": ["i1", "i2", "i3"],
        "item_id": "i2",
        "position": 0,
        "propensity": 0.25,
        "reward": 0.5,
        "reward_kind": "reward",
        "version": 3,
        "mode": "live",
        "excluded": None,
        "catalogue": None,
        "rewards": 1,
        "outcome": 7,
    }
    assert decode(first["context"]) == REQUEST["context"]
    second = event(final(REQUEST, slot=1))
    assert {name: second[name] for name in second if second[name] != first[name]} == {
        "event_id": "d/1",
        "candidates": ["i1", "i3"],  # without what the first slot took
        "item_id": "i1",
        "position": 1,
        "propensity": 0.7,
    }


def test_of_the_whole_catalogue_only_what_was_left_out_is_listed() -> None:
    found = event(final({"exclude": ["i9"]}, slot=1))
    assert (found["candidates"], found["excluded"], found["propensity"]) == (None, ["i9", "i2"], 0.7)
    assert event(final({}))["excluded"] == []


@pytest.mark.parametrize("rule", [{"where": [{"field": "price", "op": "<", "value": 3}]}, {"unseen_s": 60}])
def test_without_knowing_what_was_eligible_there_is_no_propensity(rule: dict[str, Any]) -> None:
    for request in (rule, rule | {"items": ["i1", "i2"]}):
        found = event(final(request))
        assert (found["candidates"], found["excluded"], found["propensity"]) == (None, None, None)


@pytest.mark.parametrize("mode", ["baseline", "off", "shadow", "apprentice"])
def test_a_baseline_has_no_propensity(mode: str) -> None:
    found = event(final(REQUEST, mode=mode, version=None))
    assert (found["mode"], found["propensity"], found["version"]) == (mode, None, None)
    assert found["candidates"] == ["i1", "i2", "i3"]


class World:
    """A journal whose time a test moves; every decision is between two items, and clicked."""

    def __init__(self, settings: Settings) -> None:
        self.now = START
        self.url = journal_url(settings)
        self.journal = Journal(self.url, {"reward": RewardKind(window_s=10)}, lambda: self.now, close_every_s=0.01)
        self.reader = Reader(self.url)
        self.names: list[str] = []

    def decide(self, *names: str, client: str = "shop") -> None:
        answer = json.dumps({"version": 1, "slots": [{"item_id": "i1", "propensity": 0.5}]})
        request = json.dumps({"items": ["i1", "i2"]})
        records = [DecisionRecord(name, client, None, None, 1, 1, 1, request, answer, None) for name in names]
        self.journal.decide(records).result(WAIT_S)
        self.journal.reward([RewardRecord(client, n, 0, "reward", 1.0, f"r/{n}") for n in names]).result(WAIT_S)
        self.names += names

    def close_windows(self) -> None:
        self.now += 11
        deadline = time.monotonic() + WAIT_S
        while self.reader.last_outcome() < len(self.names) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.reader.last_outcome() == len(self.names)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    made = World(settings)
    yield made
    made.journal.close()
    made.reader.close()


def read(folder: Path) -> pa.Table:
    return ds.dataset(folder, format="parquet", partitioning="hive").to_table().sort_by("outcome")


def decisions(folder: Path) -> list[str]:
    return [event_id.removesuffix("/0") for event_id in read(folder)["event_id"].to_pylist()]


def test_each_run_adds_what_is_new_once(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert export(world.reader, folder, Choice()).watermark == 0
    world.decide("a", "b")
    world.decide("c", client="a/b")
    world.close_windows()
    told: list[tuple[int, int]] = []
    mark = export(world.reader, folder, Choice(), lambda *at: told.append(at))
    assert (mark.watermark, mark.events, told) == (3, 3, [(3, 3)])
    world.now += DAY_S
    world.decide("d")
    world.close_windows()
    for _ in range(2):
        assert export(world.reader, folder, Choice()).watermark == 4
    assert decisions(folder) == world.names
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet")) == [
        "client=a%2Fb/day=2026-01-01/part-1-3.parquet",
        "client=shop/day=2026-01-01/part-1-3.parquet",
        "client=shop/day=2026-01-02/part-4-4.parquet",
    ]
    assert set(zip(*(read(folder)[name].to_pylist() for name in ("client", "client_id")), strict=True)) == {
        ("a/b", "a/b"),
        ("shop", "shop"),
    }


def test_the_folders_of_a_new_day_are_durable_before_the_watermark(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    export(world.reader, folder, Choice())
    world.decide("a")
    world.close_windows()
    synced: list[Path] = []
    monkeypatch.setattr("cluster.journal.exported.flush", synced.append)
    export(world.reader, folder, Choice())
    client = folder / "client=shop"
    mark, part = folder / "._export.json", folder / ".part"
    assert synced == [mark, folder, part, client / "day=2026-01-01", client, mark, folder]


def test_a_run_that_was_killed_before_its_watermark_leaves_nothing_twice(world: World, tmp_path: Path) -> None:
    """Parts are there whose outcomes the watermark does not know, and one half written: the next block differs."""
    folder = tmp_path / "out"
    world.decide("a", "b")
    world.close_windows()
    export(world.reader, folder, Choice())
    before = (folder / "_export.json").read_bytes()
    world.decide("c")
    world.close_windows()
    export(world.reader, folder, Choice())
    (folder / "_export.json").write_bytes(before)
    (folder / ".part").write_bytes(b"PAR1 half")
    world.decide("d")
    world.close_windows()
    assert export(world.reader, folder, Choice()).events == 4
    assert decisions(folder) == ["a", "b", "c", "d"]


def test_blocks_bound_what_is_in_memory(world: World, tmp_path: Path) -> None:
    world.decide(*"abcde")
    world.close_windows()
    told: list[tuple[int, int]] = []
    export(world.reader, tmp_path / "out", Choice(), lambda *at: told.append(at), block=2)
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert decisions(tmp_path / "out") == list("abcde")


def test_a_client_and_a_span_of_time(world: World, tmp_path: Path) -> None:
    world.decide("a")
    world.decide("b", client="other")
    world.now += DAY_S
    world.decide("c")
    world.now += DAY_S
    world.decide("d")
    world.close_windows()
    for number, (words, expected) in enumerate(
        [
            (("shop", None, None), ["a", "c", "d"]),
            ((None, "2026-01-02", None), ["c", "d"]),
            ((None, None, "2026-01-02"), ["a", "b"]),
            (("shop", "2026-01-01T00:00:01+00:00", "2026-01-03"), ["c"]),
        ]
    ):
        mark = export(world.reader, tmp_path / str(number), Choice.parse(*words))
        assert (decisions(tmp_path / str(number)), mark.events, mark.watermark) == (expected, len(expected), 4)
    with pytest.raises(ConfigError, match="'tomorrow' is no day"):
        Choice.parse(None, "tomorrow", None)


def test_a_folder_holds_one_export(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export(world.reader, folder, Choice())
    with pytest.raises(StateError, match=r"holds an export of .*'client': None.* asked for .*'client': 'c'"):
        export(world.reader, folder, Choice(client="c"))
    stated = Mark(**json.loads((folder / "_export.json").read_text()))
    (folder / "_export.json").write_text(json.dumps(asdict(replace(stated, journal="else"))))
    with pytest.raises(StateError, match="of another journal"):
        export(world.reader, folder, Choice())
    (folder / "_export.json").write_text("{")
    with pytest.raises(StateError, match="not readable"):
        export(world.reader, folder, Choice())
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(StateError, match="another run"):
            export(world.reader, folder, Choice())


def test_a_place_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="choose another folder"):
        export(world.reader, tmp_path / "file", Choice())


def test_any_name_of_a_client_makes_a_folder(world: World, tmp_path: Path) -> None:
    names = ["..", "ü" * 128, "ü" * 127 + "v", "a=b c"]
    for number, name in enumerate(names):
        world.decide(f"d{number}", client=name)
    world.close_windows()
    export(world.reader, tmp_path / "out", Choice())
    assert read(tmp_path / "out")["client_id"].to_pylist() == names
    assert len(list((tmp_path / "out").glob("client=*"))) == len(names)
