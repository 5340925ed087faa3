"""Logged feedback under our own names or by mapping, good rows and bad."""

import json
import os
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.config import DataSettings
from cluster.errors import SchemaError, SourceError
from cluster.importers.imported import Imported, Options
from cluster.importers.native import read_native
from cluster.records import EVENTS, QUARANTINE, Dataset

HEADER = "event_id,time,user,item,propensity,click,device"
ROWS = (
    "e1,2025-01-01T10:00,u1,a,0.5,1,mobile",
    "e2,2025-01-01T11:00,u2,b,0.5,0,tv",
    "e3,2025-01-01T12:00,u1,a,0.25,0,",
)


def write(tmp_path: Path, *rows: str, header: str = HEADER, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def native(*paths: Path, maps: tuple[str, ...] = (), settings: DataSettings | None = None, **options: Any) -> Imported:
    return read_native(paths, Options.parse(maps, **options), settings or DataSettings(), 0)


def contexts(imported: Imported) -> list[dict[str, Any]]:
    rows = imported.dataset.events["context"].to_pylist()
    return [{key: json.loads(text) for key, text in row} for row in rows]


def test_a_log_under_usual_names(tmp_path) -> None:
    imported = native(write(tmp_path, *ROWS))
    events = imported.dataset.events
    assert events.schema.equals(EVENTS)
    assert events["event_id"].to_pylist() == ["e1", "e2", "e3"]
    assert events["timestamp"].to_pylist()[0] == datetime(2025, 1, 1, 10, tzinfo=UTC)
    assert events["reward"].to_pylist() == [1.0, 0.0, 0.0]
    assert events["propensity"].to_pylist() == [0.5, 0.5, 0.25]
    assert contexts(imported) == [{"device": "mobile"}, {"device": "tv"}, {}]
    assert set(events["client_id"].to_pylist()) == {"default"}
    assert imported.dataset.items["item_id"].to_pylist() == ["a", "b"]
    assert imported.dataset.users["user_id"].to_pylist() == ["u1", "u2"]
    assert imported.roles["reward"] == "click"
    assert (imported.dataset.format, imported.dataset.truth, len(imported.quarantine)) == ("feedback", None, 0)


BAD = {
    "x,2025-01-01T10:00,u,a,0.5,nan,": "reward: expected a finite number, found none",
    "x,2025-01-01T10:00,u,a,0.5,-inf,": "reward: expected a finite number, found -inf",
    "x,2025-01-01T10:00,u,a,0.5,,": "reward: expected a finite number, found none",
    "x,2025-01-01T10:00,u,a,0.5,maybe,": "reward: expected a number, found 'maybe'",
    "x,2025-01-01T10:00,u,a,0,1,": "propensity: expected above 0 and at most 1, found 0.0",
    "x,2025-01-01T10:00,u,a,1.5,1,": "propensity: expected above 0 and at most 1, found 1.5",
    "x,2025-01-01T10:00,u,a,-0.1,1,": "propensity: expected above 0 and at most 1, found -0.1",
    "x,2025-01-01T10:00,u,,0.5,1,": "item_id: expected a value, found none",
    "x,yesterday,u,a,0.5,1,": "timestamp: expected a date and time, found 'yesterday'",
    "x,,u,a,0.5,1,": "timestamp: expected a value, found none",
    "e1,2025-01-01T10:00,u,a,0.5,1,": "event_id: expected once for each item and reward kind, found again, found 'e1'",
    ",2025-01-01T10:00,u,a,0.5,1,": "event_id: expected a value, found none",
    "x,2025-01-01T10:00,u,a,0.5,1": "line: expected 7 fields, found 6",
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_row_is_quarantined_and_the_good_ones_go_on(tmp_path, bad: str) -> None:
    imported = native(write(tmp_path, *ROWS, bad))
    assert imported.dataset.events["event_id"].to_pylist() == ["e1", "e2", "e3"]
    assert imported.dataset.facts["rejected"] == 1
    assert imported.quarantine.schema.equals(QUARANTINE)
    (reject,) = imported.quarantine.to_pylist()
    assert (reject["source"], reject["row"], reject["reason"]) == ("log.csv", 4, BAD[bad])
    assert "2025" in reject["raw"] or "yesterday" in reject["raw"] or "'u'" in reject["raw"]


def test_words_for_a_missing_value_are_no_people_and_no_propensities(tmp_path) -> None:
    rows = ["x,2025-01-01T13:00,NULL,a,NA,no,-", "y,2025-01-01T14:00,u2,none,\\N,yes,tv", "z,2025-01-01,u2,NaN,1,1,tv"]
    imported = native(write(tmp_path, *ROWS, *rows))
    events = imported.dataset.events.slice(3).to_pylist()
    assert [(e["user_id"], e["item_id"], e["propensity"], e["reward"]) for e in events] == [
        (None, "a", None, 0.0),
        ("u2", "none", None, 1.0),
    ]
    assert contexts(imported)[3:] == [{}, {"device": "tv"}]
    assert imported.rejects() == [("item_id: expected a value", 1)]


def test_reasons_are_counted_without_their_values(tmp_path) -> None:
    rows = [f"x{i},2025-01-01,u,a,{p},1," for i, p in enumerate([0, 2, 3, 0.5])]
    imported = native(write(tmp_path, *rows, "y,2025-01-01,u,a,1,nan,"))
    assert imported.rejects() == [
        ("propensity: expected above 0 and at most 1", 3),
        ("reward: expected a finite number", 1),
    ]


def test_rows_out_of_order_are_sorted_and_told(tmp_path) -> None:
    imported = native(write(tmp_path, ROWS[2], ROWS[0], ROWS[1]))
    assert imported.dataset.events["event_id"].to_pylist() == ["e1", "e2", "e3"]
    assert contexts(imported) == [{"device": "mobile"}, {"device": "tv"}, {}]
    assert imported.dataset.facts["out_of_order"] == 2


def test_the_most_recent_events_are_kept(tmp_path) -> None:
    imported = native(write(tmp_path, ROWS[2], ROWS[0], ROWS[1]), settings=DataSettings(max_events=2))
    assert imported.dataset.events["event_id"].to_pylist() == ["e2", "e3"]
    assert (imported.dataset.facts["older_left_out"], imported.dataset.facts["rows"]) == (1, 3)


def test_a_misspelt_column_is_told_with_the_nearest(tmp_path) -> None:
    with pytest.raises(
        SchemaError, match=r"log.csv: no column for reward; the nearest is 'clck'; say --map reward=clck"
    ):
        native(write(tmp_path, *ROWS, header=HEADER.replace("click", "clck")))


def test_no_row_can_be_used(tmp_path) -> None:
    with pytest.raises(SourceError, match=r"log.csv: none of 1 rows can be used; the first: row 1: reward: expected"):
        native(write(tmp_path, "e1,2025-01-01,u,a,1,,"))


def test_a_reward_column_of_another_type(tmp_path) -> None:
    pq.write_table(pa.table({"time": [1], "item": ["a"], "reward": [[1.0]]}), tmp_path / "log.parquet")
    with pytest.raises(SchemaError, match="reward: expected a column of numbers, found list"):
        native(tmp_path / "log.parquet")


def test_mapping_excluding_and_the_client(tmp_path) -> None:
    imported = native(
        write(tmp_path, "1,x,3,de,9", "2,y,4,fr,9", header="a,b,c,land,secret"),
        maps=("item_id=b", "reward=c", "timestamp=row()", "session_id=a", "reward_kind='order'"),
        exclude=["secret"],
        client="land",
    )
    events = imported.dataset.events
    assert events["client_id"].to_pylist() == ["de", "fr"]
    assert events["reward_kind"].to_pylist() == ["order", "order"]
    assert events["session_id"].to_pylist() == ["1", "2"]
    assert (events["timestamp"][1].as_py() - events["timestamp"][0].as_py()).total_seconds() == 1.0
    assert contexts(imported) == [{}, {}]
    assert events["event_id"].to_pylist() == ["row-1", "row-2"]


def test_an_item_outside_the_table_of_items(tmp_path) -> None:
    items = write(
        tmp_path,
        "a,Lamp,9.5,tall,2025-07-01T10:00:00Z",
        "a,Twin,1,x,",
        "b,Rug,-1,x,",
        header="item,name,price,shape,expires",
        name="items.csv",
    )
    imported = native(write(tmp_path, *ROWS), items)
    (item,) = imported.dataset.items.to_pylist()
    assert (item["item_id"], item["title"], item["price"], item["attributes"]) == (
        "a",
        "Lamp",
        9.5,
        [("shape", '"tall"')],
    )
    assert item["expires_at"].isoformat() == "2025-07-01T10:00:00+00:00"
    assert imported.dataset.events["event_id"].to_pylist() == ["e1", "e3"]
    assert [(r["source"], r["row"], r["reason"]) for r in imported.quarantine.to_pylist()] == [
        ("log.csv", 2, "item_id: expected an item of the catalogue, found 'b'"),
        ("items.csv", 2, "item_id: expected once, found again, found 'a'"),
        ("items.csv", 3, "price: expected a finite number, not negative, found -1.0"),
    ]


def test_a_table_of_users(tmp_path) -> None:
    users = write(tmp_path, "u1,31", header="user_id,age", name="users.csv")
    assert native(write(tmp_path, *ROWS), users).dataset.users.to_pylist()[0]["attributes"] == [("age", "31")]


def test_only_items(tmp_path) -> None:
    with pytest.raises(SourceError, match="only items or users"):
        native(write(tmp_path, "a", header="item", name="items.csv"))


def test_candidates_from_the_log_or_all_items(tmp_path) -> None:
    rows = ("1,a,1,a|b|c", "2,c,0,a|b", "3,b,0,b")
    path = write(tmp_path, *rows, header="time,item,reward,candidates")
    listed = native(path)
    assert listed.dataset.events["candidates"].to_pylist() == [["a", "b", "c"], ["b"]]
    assert listed.quarantine["reason"].to_pylist() == ["item_id: expected one of the candidates, found 'c'"]
    everything = native(path, maps=("candidates=all()",), exclude=["candidates"])
    assert everything.dataset.events["candidates"].to_pylist() == [["a", "b", "c"]] * 3


def test_a_large_catalogue_is_not_listed(tmp_path) -> None:
    path = write(tmp_path, *(f"{i},item{i},1" for i in range(300)), header="time,item,reward")
    assert native(path, maps=("candidates=all()",)).dataset.events["candidates"].null_count == 300


def test_what_was_exported_is_imported_again(tmp_path) -> None:
    first = native(write(tmp_path, *ROWS)).dataset
    (tmp_path / "again").mkdir()
    pq.write_table(first.events, tmp_path / "again" / "events.parquet")
    pq.write_table(first.items, tmp_path / "again" / "items.parquet")
    pq.write_table(first.users, tmp_path / "again" / "users.parquet")
    again = native(tmp_path / "again").dataset
    assert again.events.equals(first.events)
    assert again.items.drop_columns("attributes").equals(first.items.drop_columns("attributes"))
    assert again.users["user_id"].equals(first.users["user_id"])


def test_two_files_have_different_event_ids(tmp_path) -> None:
    header = "time,item,reward"
    paths = [write(tmp_path, "1,a,1", header=header, name=name) for name in ("one.csv", "two.csv")]
    assert native(*paths).dataset.events["event_id"].to_pylist() == ["1/row-1", "2/row-1"]


def test_the_quarantine_lies_beside_the_data_set(tmp_path) -> None:
    imported = native(write(tmp_path, *ROWS, "x,2025-01-01,u,a,7,1,"))
    imported.save(tmp_path / "home")
    assert Dataset.load(tmp_path / "home").events.equals(imported.dataset.events)
    assert pq.read_table(tmp_path / "home" / "quarantine.parquet").equals(imported.quarantine)


def test_the_fingerprint_is_of_the_content(tmp_path) -> None:
    path = write(tmp_path, *ROWS)
    first = native(path).dataset.facts["fingerprint"]
    assert native(path).dataset.facts["fingerprint"] == first
    assert native(write(tmp_path, *ROWS[:2])).dataset.facts["fingerprint"] != first


PERSONAL = (
    "gender,age,maritalStatus,has_children,education,occupation,income,car,Bar,CoffeeHouse,CarryAway,"
    "RestaurantLessThan20,Restaurant20To50"
)
COUPON = (
    "item_id=coupon",
    "reward=Y",
    f"user_id=run({PERSONAL})",
    "timestamp=row()",
    "candidates=all()",
)


@pytest.mark.skipif("MEDLEY_DATA" not in os.environ, reason="set MEDLEY_DATA to the folder of real data")
def test_coupon_as_native_events() -> None:
    path = Path(os.environ["MEDLEY_DATA"]) / "coupon" / "coupon.parquet"
    imported = native(path, maps=COUPON)
    events, raw = imported.dataset.events, pq.read_table(path)
    assert (len(events), len(imported.quarantine)) == (12_684, 0)
    assert events["item_id"].to_pylist() == raw["coupon"].to_pylist()
    assert events["reward"].to_pylist() == raw["Y"].to_pylist()
    assert events["propensity"].null_count == len(events)
    assert events["candidates"].to_pylist()[7] == sorted(set(raw["coupon"].to_pylist()))
    people = list(zip(*(raw[name].to_pylist() for name in PERSONAL.split(",")), strict=True))
    users = [f"run-{i}" for i, (_, run) in enumerate(groupby(people), 1) for _ in run]
    assert events["user_id"].to_pylist() == users
    assert len(imported.dataset.users) == 587
    told = contexts(imported)
    for row in (0, 5_000, 12_683):
        expected = {n: raw[n][row].as_py() for n in raw.column_names if n not in ("coupon", "Y")}
        assert told[row] == {k: v for k, v in expected.items() if v is not None}
