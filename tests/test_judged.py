"""Which rows of a log are judged, from memory and from a folder, and what a version has seen of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.bandits.version import Version
from cluster.errors import EvidenceError, SourceError
from cluster.records import EVENTS, Dataset
from tests.compose_cases import LAMPS, changed, two_kinds
from tests.test_version import version
from tune.split import parts
from tune.whatif.judged import Judged, Part
from tune.whatif.native_files import NativeFiles

DATA = two_kinds(users=60, rows=5)


def ids(judged: Judged) -> list[str]:
    return [event for table in judged.events() for event in table["event_id"].to_pylist()]


@pytest.mark.parametrize("part", ["all", "confirm", "world"])
def test_a_folder_gives_the_rows_of_the_part_in_order(tmp_path: Path, part: Part) -> None:
    DATA.save(tmp_path)
    split = parts(DATA, seed=2)
    rows = np.arange(300) if part == "all" else np.sort(getattr(split, part))
    expected = [f"e{row}" for row in rows]
    assert ids(Judged.folder(tmp_path, part, seed=2)) == expected
    assert ids(Judged.of(DATA, part, seed=2)) == expected


def test_tables_of_any_size_give_the_same_rows() -> None:
    whole = Judged.of(DATA, "confirm", seed=2)

    pieces = replace(whole, tables=lambda: (DATA.events.slice(start, 7) for start in range(0, 300, 7)))
    assert ids(pieces) == ids(whole)


def test_what_is_no_import_or_has_no_row(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no finished import here .*; run `medley import` again"):
        Judged.folder(tmp_path, "all", 0)
    DATA.save(tmp_path)
    (tmp_path / "events.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match="no finished import here"):
        Judged.folder(tmp_path, "all", 0)
    few = replace(DATA, events=DATA.events.slice(0, 1))
    with pytest.raises(EvidenceError, match="--part world: no event of the log is in it"):
        ids(Judged.of(few, "world", 0))


def from_these(made: Version, data: Dataset, seed: int = 2) -> Version:
    return replace(made, facts={"data": data.facts["fingerprint"], "seed": seed})


def test_a_version_that_was_fitted_on_the_rows_is_told() -> None:
    """Fitted: everything but the world's fifth and the confirm users' first half."""
    made = from_these(version(), DATA)
    split = parts(DATA, 2)
    seen = len(split.fit) + len(split.stop) + len(split.select) + len(split.confirm)
    told = Judged.of(DATA, "all", 2).overlap(made)
    assert told == f"fitted on {seen / 300:.0%} of these rows, which flatters it; --part world has none of them"
    assert Judged.of(DATA, "confirm", 2).overlap(made).startswith("fitted on 100% of these rows")
    assert Judged.of(DATA, "world", 2).overlap(made) == ""


def test_the_parts_are_those_of_the_version_not_of_the_question() -> None:
    """A table's world is a seeded fifth of its rows: under another seed another one."""
    rows = replace(DATA, format="table")
    other = from_these(version(), rows, seed=9)
    judged = Judged.of(rows, "world", 2)
    seen = np.isin(parts(rows, 2).world, parts(rows, 9).world)
    assert 0 < seen.mean() < 1
    assert judged.overlap(other).startswith("fitted on ")
    assert judged.overlap(from_these(version(), rows)) == ""


def test_versions_of_other_data_or_of_no_known_data_have_no_remark() -> None:
    other = replace(DATA, facts={"fingerprint": "another"})
    assert Judged.of(DATA, "all", 2).overlap(from_these(version(), other)) == ""
    nameless = Dataset("feedback", EVENTS.empty_table(), DATA.items, DATA.users)
    assert Judged.of(nameless, "all", 2).overlap(replace(version(), facts={})) == ""


def test_files_of_the_layout_are_asked_as_they_lie(tmp_path: Path) -> None:
    """Two files of events, in order; columns that may be absent are."""
    events = DATA.events.drop_columns(["session_id", "version"])
    pq.write_table(events.slice(0, 120), tmp_path / "a.parquet")
    pq.write_table(events.slice(120), tmp_path / "b.parquet")
    files = NativeFiles([tmp_path])
    assert files.fit()
    for part in ("all", "confirm", "world"):
        assert ids(files.judged(part, 2)) == ids(Judged.of(DATA, part, 2))
    assert files.judged("all", 2).about.items["item_id"].to_pylist() == sorted(LAMPS)
    pq.write_table(DATA.items.slice(0, 5), tmp_path / "items.parquet")
    assert NativeFiles([tmp_path]).judged("all", 2).about.items.equals(DATA.items.slice(0, 5))


def test_an_event_that_comes_twice_is_refused(tmp_path: Path) -> None:
    """Within a file or between two; what came of one decision for several items or reward kinds is none."""
    pq.write_table(DATA.events, tmp_path / "a.parquet")
    pq.write_table(DATA.events.slice(7, 2), tmp_path / "b.parquet")
    fault = "event 300: event_id: expected once for each item and reward kind, found 'e7' again; give each file once"
    with pytest.raises(SourceError, match=fault):
        NativeFiles([tmp_path]).judged("all", 2)
    kinds = changed(DATA, reward_kind=["click"] * 300).events
    pq.write_table(kinds, tmp_path / "b.parquet")
    assert len(ids(NativeFiles([tmp_path]).judged("all", 2))) == 600
    pq.write_table(kinds.drop_columns(["reward_kind"]), tmp_path / "b.parquet")
    (tmp_path / "a.parquet").unlink()
    assert len(ids(NativeFiles([tmp_path]).judged("all", 2))) == 300


@pytest.mark.parametrize("change", ["column", "type", "missing", "text"])
def test_files_of_another_layout_are_for_an_importer(tmp_path: Path, change: str) -> None:
    events = DATA.events
    match change:
        case "column":
            events = events.append_column("colour", pa.array(["red"] * len(events)))
        case "type":
            events = events.set_column(10, "reward", events["reward"].cast(pa.float32()))
        case "missing":
            events = events.drop_columns(["client_id"])
    pq.write_table(events, tmp_path / ("a.csv" if change == "text" else "a.parquet"))
    assert not NativeFiles([tmp_path]).fit()


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"a\.parquet: cannot be read as Parquet"):
        NativeFiles([tmp_path]).fit()
