"""Columns that say what the log chose, or in which row: they are no context."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.importers.imported import Imported, Options
from cluster.importers.native import read_native
from cluster.importers.table import read_table
from cluster.importers.telling import describes, tells
from cluster.importers.transactions import read_transactions

GENRES = ("drama|war", "comedy", "comedy|drama", "war")
ROWS = 400


def written(tmp_path: Path, header: str, rows: list[str], name: str = "log.csv") -> Path:
    (tmp_path / name).write_text("\n".join([header, *rows]) + "\n")
    return tmp_path / name


def films(tmp_path: Path, *also: Path) -> Imported:
    """A log in which 20 items have a title, a price and a genre each, 40 users an age, and each row a device."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(ROWS):
        item, user, device = int(rng.integers(20)), int(rng.integers(40)), rng.choice(["tv", "mobile"])
        rows.append(
            f"{n},{n + 1},f{item},u{user},{item % 3},Film {item},{item}.5,{GENRES[item % 4]},{user + 20},{device}"
        )
    path = written(tmp_path, "index,time,movieId,user,rating,name,price,genre,age,device", rows)
    return read_native([path, *also], Options.parse(exclude=["time"], maps=["timestamp=row()"]), DataSettings(), 0)


def test_what_describes_the_item_is_of_the_item(tmp_path) -> None:
    imported = films(tmp_path)
    items = {row["item_id"]: row for row in imported.dataset.items.to_pylist()}
    assert set(items) == {f"f{i}" for i in range(20)}
    for i, row in enumerate(items[f"f{i}"] for i in range(20)):
        assert (row["title"], row["price"]) == (f"Film {i}", i + 0.5)
        assert {name: json.loads(text) for name, text in row["attributes"]} == {"genre": GENRES[i % 4].split("|")}
    assert {key for row in imported.dataset.events["context"].to_pylist() for key, _ in row} == {"age", "device"}
    assert imported.roles["context"] == "age, device"
    assert imported.roles["of the item"] == "name, price, genre"
    assert "column 'index' counts the rows of log.csv, as a saved index does: it is left out" in imported.remarks()


def test_with_a_file_of_items_it_is_left_out_and_told(tmp_path) -> None:
    items = written(tmp_path, "item_id,colour", [f"f{i},red" for i in range(20)], "items.csv")
    imported = films(tmp_path, items)
    assert {key for row in imported.dataset.events["context"].to_pylist() for key, _ in row} == {"age", "device"}
    assert imported.dataset.facts["columns_left_out"] == dict.fromkeys(
        ("name", "price", "genre"), "says the same of an item in every row: it belongs in the file of items"
    )


def test_an_item_that_was_only_a_candidate_is_described_by_nothing(tmp_path) -> None:
    rows = [f"{n},i{n % 4},i{n % 4}|i9,{n % 2},Lamp {n % 4},-3" for n in range(60)]
    path = written(tmp_path, "t,item,candidates,click,title,price", rows)
    items = read_native([path], Options.parse(["timestamp=t"]), DataSettings(), 0).dataset.items.to_pylist()
    assert [(row["item_id"], row["title"], row["price"]) for row in items] == [
        *((f"i{i}", f"Lamp {i}", None) for i in range(4)),
        ("i9", None, None),
    ]


def test_a_description_that_is_missing_here_and_there_is_taken_where_it_is(tmp_path) -> None:
    rows = [
        f"{n},i{n % 4},{n % 2},{'NA' if n % 3 == 0 else f'Lamp {n % 4}'},{'-' if n < 8 else n % 4}" for n in range(80)
    ]
    path = written(tmp_path, "t,item,click,title,shelf", rows)
    mapping = Options.parse(["timestamp=t", "item.shelf=shelf"])
    items = read_native([path], mapping, DataSettings(), 0).dataset.items.to_pylist()
    assert [(row["title"], row["attributes"]) for row in items] == [
        (f"Lamp {i}", [("shelf", str(i))]) for i in range(4)
    ]


def situation(tmp_path: Path, column: str, *maps: str, device: bool = True) -> tuple[set[str], set[str], list[str]]:
    """Keys of contexts and of items' attributes, and the notes, of a log whose column is `market` (of two items each)
    or `segment` (of one)."""
    rows = [f"{n},i{n * n % 7},{n % 3 % 2},{n * n % 7 % (2 if column == 'market' else 9)}s,{n % 5}" for n in range(200)]
    path = written(tmp_path, f"t,item,click,{column},device", rows)
    exclude = () if device else ("device",)
    imported = read_native([path], Options.parse(["timestamp=t", *maps], exclude), DataSettings(), 0)
    keys = [
        {key for row in column.to_pylist() for key, _ in row or []}
        for column in (imported.dataset.events["context"], imported.dataset.items["attributes"])
    ]
    notes = [note for note in imported.remarks() if "all rows of an item" in note]
    assert notes == [note for note in imported.dataset.facts["notes"] if note in notes]
    return keys[0], keys[1], notes


def test_what_could_be_of_the_item_or_the_situation_is_told_and_can_be_said(tmp_path) -> None:
    """A policy that goes by segment shows each segment one item; no log tells that from a column on the item."""
    word = "column {0!r} is the same in all rows of an item; it is read as {1}; if it is {2}, say "
    word += "--map {3}.{0}={0}, or leave it out with --exclude {0}"
    assert situation(tmp_path, "segment") == (
        {"device", "segment"},
        set(),
        [word.format("segment", "context", "data of the item", "item")],
    )
    assert situation(tmp_path, "market") == (
        {"device"},
        {"market"},
        [word.format("market", "data of the item", "context", "context")],
    )
    assert situation(tmp_path, "market", device=False)[:2] == ({"market"}, set())
    assert situation(tmp_path, "segment", "item.segment=segment") == ({"device"}, {"segment"}, [])
    assert situation(tmp_path, "market", "context.market=market") == ({"device", "market"}, set(), [])
    assert situation(tmp_path, "movie_title")[:2] == ({"device"}, {"movie_title"})


def test_a_key_of_a_whole_context_has_no_column_to_map(tmp_path) -> None:
    rows = [f'{n},i{n * n % 7},{n % 3 % 2},"{{""market"": {n * n % 7 % 2}, ""n"": {n % 5}}}"' for n in range(200)]
    path = written(tmp_path, "t,item,click,context", rows)
    imported = read_native([path], Options.parse(["timestamp=t"]), DataSettings(), 0)
    (note,) = imported.remarks()
    assert note.endswith("if it is context, give it a column of its own, and say which with --map")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("context.hour=device", "the column keeps its name; say --map context.device=device"),
        ("item.devise=devise", "no column 'devise'; did you mean 'device'?"),
        ("user.device=device", "unknown name 'user.device'"),
    ],
)
def test_a_place_that_cannot_be_meant(tmp_path, said: str, message: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(message)):
        situation(tmp_path, "market", said)


def test_an_index_of_rows_is_no_feature_of_a_table(tmp_path) -> None:
    rows = [f"{n},{'ab'[n >= 30]},{n * 7 % 11}" for n in range(60)]
    imported = read_table([written(tmp_path, "rownames,label,x", rows)], Options(), DataSettings(), 0)
    assert imported.roles["context"] == "x"
    rows[40] = rows[40].replace("40,", "400,")
    imported = read_table([written(tmp_path, "rownames,label,x", rows)], Options(), DataSettings(), 0)
    assert imported.roles["context"] == "rownames, x"


def test_an_index_that_begins_anew_in_each_file_and_skips_bad_rows(tmp_path) -> None:
    first = [f"{n},{'ab'[n % 2]}" for n in range(40)]
    first[35] = "35,a,too,many"
    paths = [written(tmp_path, "i,label", rows, name) for rows, name in ((first, "1.csv"), (first[:20], "2.csv"))]
    assert read_table(paths, Options(), DataSettings(), 0).roles["context"] == ""


def test_what_is_the_same_for_a_customer_is_context_of_purchases(tmp_path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for n in range(300):
        customer, item = int(rng.integers(30)), int(rng.integers(15))
        rows.append(
            f"{n},2011-03-{n // 12 + 1:02d},c{customer},sku{item},{'nw'[customer % 2]},shelf {item % 5},{n * n % 7}"
        )
    path = written(tmp_path, "invoice,date,customer,sku,region,shelf,till", rows)
    imported = read_transactions([path], Options(), DataSettings(candidates=4), 0)
    keys = {key for row in imported.dataset.events["context"].to_pylist() for key, _ in row}
    assert keys == {"recent", "hour", "weekday", "region"}
    assert {key for row in imported.dataset.items["attributes"].to_pylist() for key, _ in row} == {"shelf"}


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(2, 5))
def test_the_name_of_a_group_describes_it_and_a_rare_mark_does_not(seed: int, groups: int, values: int) -> None:
    rng = np.random.default_rng(seed)
    group_N = rng.integers(groups, size=600)
    assert describes(group_N % values, group_N) == (min(groups, values) > 1)
    rare_N = np.zeros(600, np.int64)
    rare_N[rng.integers(600, size=2)] = 1
    assert not describes(rare_N, group_N)
    assert not describes(np.zeros(600, np.int64), group_N)
    assert not describes(group_N, np.full(600, -1))


def test_a_column_by_chance_seldom_describes_anything() -> None:
    """Error rate below 1 in 1,000: with 3,000 seeds, 8 or more are as rare as 1 in 100 at that rate."""
    found = 0
    for seed in range(3_000):
        rng = np.random.default_rng(seed)
        share = rng.choice([0.5, 0.9, 0.99])
        found += describes((rng.random(40) > share).astype(np.int64), rng.integers(rng.integers(2, 20), size=40))
    assert found < 8


def test_a_column_that_predicts_well_is_not_the_label_in_other_words() -> None:
    """As capital gains of `adult`: most have none and may be either, the others say it."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(2, size=2_000)
    gain_N = np.where(rng.random(2_000) < 0.9, 0, 2 + 10 * label_N + rng.integers(9, size=2_000))
    assert not tells(gain_N, label_N)
    assert tells(2 * rng.integers(30, size=2_000) + label_N, label_N)
    assert not tells(np.arange(2_000), label_N)


def test_what_came_after_the_decision_is_named(tmp_path) -> None:
    rng = np.random.default_rng(2)
    click_N = rng.random(400) < 0.3
    rows = [
        f"{n},i{rng.integers(9)},{click:d},{rng.integers(1, 10**6) if click else 0},{rng.integers(4)}"
        for n, click in enumerate(click_N)
    ]
    path = written(tmp_path, "t,item,click,dwell_ms,hour", rows)
    imported = read_native([path], Options.parse(["timestamp=t"]), DataSettings(), 0)
    (note,) = imported.dataset.facts["notes"]
    assert note == (
        "column 'dwell_ms' tells the reward; if it is known only after the decision, leave it out with "
        "--exclude dwell_ms"
    )


@pytest.mark.parametrize(("rewards", "told"), [(("1", "5"), True), (("0", "1"), False)])
def test_rewards_beyond_the_range_are_told_at_the_import(tmp_path, rewards: tuple[str, str], told: bool) -> None:
    from cluster.config import Settings
    from cluster.imports import Request, read

    path = written(tmp_path, "time,item,reward", [f"{n},i{n % 3},{rewards[n % 2]}" for n in range(9)])
    remarks = read(Request("native", (path,)), Settings()).remarks()
    words = (
        "rewards go from 1 to 5, and the configuration says [0, 1]; for a composition say the range there, such as "
        "rewards: {reward: {low: 1, high: 5}}"
    )
    assert remarks == ([words] if told else [])
