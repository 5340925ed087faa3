import json
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.importers.imported import Imported, Options
from cluster.importers.table import read_table
from cluster.records import EVENTS


def table(path: Path, options: Options | None = None, most: int = 50_000, seed: int = 0) -> Imported:
    return read_table([path], options or Options(), DataSettings(max_events=most), seed)


def write(tmp_path: Path, columns: dict[str, list[object]]) -> Path:
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    return tmp_path / "table.parquet"


def test_one_arm_per_class_and_the_label_only_in_truth(tmp_path) -> None:
    labels = ["x", "y", "z", "x"] * 500
    imported = table(write(tmp_path, {"size": [1, None] * 1000, "hue": ["red", "blue"] * 1000, "label": labels}))
    data = imported.dataset
    assert data.events.schema.equals(EVENTS)
    assert data.truth is not None
    assert data.truth["item_id"].to_pylist() == labels
    assert data.truth["event_id"].equals(data.events["event_id"])
    assert data.items["item_id"].to_pylist() == ["x", "y", "z"]
    assert data.events["candidates"].to_pylist()[9] == ["x", "y", "z"]
    assert set(data.events["propensity"].to_pylist()) == {1 / 3}
    actions = data.events["item_id"].to_pylist()
    assert data.events["reward"].to_pylist() == [float(a == b) for a, b in zip(actions, labels, strict=True)]
    assert max(abs(n - 2000 / 3) for n in Counter(actions).values()) < 85  # 4 standard deviations
    context = [{k: json.loads(v) for k, v in row} for row in data.events["context"].to_pylist()[:2]]
    assert context == [{"size": 1, "hue": "red"}, {"hue": "blue"}]
    assert imported.roles == {"label": "label", "context": "size, hue"}


def test_the_same_seed_draws_the_same_actions(tmp_path) -> None:
    path = write(tmp_path, {"x": list(range(200)), "label": [0, 1] * 100})
    assert table(path).dataset.events.equals(table(path).dataset.events)
    assert not table(path).dataset.events.equals(table(path, seed=1).dataset.events)


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path) -> None:
    path = write(tmp_path, {"x": [1.0, 2.0, 3.0], "class": [10.0, 9.0, 1.0]})
    assert table(path).dataset.items["item_id"].to_pylist() == ["1", "9", "10"]


def test_rows_past_the_limit_are_left_out_at_random(tmp_path) -> None:
    path = write(tmp_path, {"x": list(range(1000)), "label": ["first"] * 500 + ["last"] * 500})
    data = table(path, most=100).dataset
    assert data.truth is not None
    counts = Counter(data.truth["item_id"].to_pylist())
    assert min(counts.values()) > 30
    assert (data.facts["events"], data.facts["left_out_at_random"]) == (100, 900)
    assert data.events["timestamp"].to_pylist() == sorted(data.events["timestamp"].to_pylist())


def test_a_row_without_a_label_is_quarantined(tmp_path) -> None:
    imported = table(write(tmp_path, {"x": [1.0, 2.0, 3.0, float("inf")], "label": ["a", None, "b", "a"]}))
    assert imported.quarantine["reason"].to_pylist() == [
        "label: expected a class, found none",
        "x: expected a finite number, found inf",
    ]
    assert imported.dataset.events["event_id"].to_pylist() == ["row-1", "row-3"]


def test_a_label_by_mapping(tmp_path) -> None:
    path = write(tmp_path, {"x": [1, 2, 3], "edible": [True, False, True]})
    assert table(path, Options({"label": "edible"})).dataset.items["item_id"].to_pylist() == ["false", "true"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": [1, 2], "lable": [0, 1]}, "no column for label; the nearest is 'lable'; say --map label=lable"),
        ({"x": [1, 2], "label": ["a", "a"]}, "the label is 'a' in every row; expected two classes or more"),
        ({"label": list(range(1_001))}, "the label has 1001 values; expected at most 1000 classes"),
    ],
)
def test_a_table_without_classes(tmp_path, columns: dict[str, list[object]], message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        table(write(tmp_path, columns))


def test_a_column_that_tells_the_label_is_named(tmp_path) -> None:
    path = write(
        tmp_path,
        {
            "grade": ["A1", "B1", "A2", "B2"] * 10,
            "hue": ["red", "red", "blue", "red", "red"] * 8,
            "number": list(range(40)),
            "label": [0, 1] * 20,
        },
    )
    assert table(path).dataset.facts["notes"] == [
        "column 'number' counts the rows of table.parquet, as a saved index does: it is left out",
        "column 'grade' tells the label; if it is the label in other words, leave it out with --exclude grade",
    ]


def test_amounts_as_labels_are_told(tmp_path) -> None:
    path = write(tmp_path, {"x": [1, 2, 5] * 20, "label": [n / 2 for n in range(60)]})
    assert table(path).dataset.facts["notes"] == [
        "the label holds 60 numbers, and each is read as a class; an amount wants bins first"
    ]


@pytest.mark.skipif("MEDLEY_DATA" not in os.environ, reason="set MEDLEY_DATA to the folder of real data")
@pytest.mark.parametrize(
    ("name", "exclude", "classes"),
    [("adult", ("split",), 2), ("shuttle", ("label_name",), 7), ("mushroom", (), 2), ("pendigits", (), 10)],
)
def test_real_tables(name: str, exclude: tuple[str, ...], classes: int) -> None:
    path = Path(os.environ["MEDLEY_DATA"]) / "classification" / f"{name}.parquet"
    imported = table(path, Options(exclude=exclude))
    raw = pq.read_table(path)
    data = imported.dataset
    assert len(data.events) == min(50_000, len(raw))
    assert (len(data.items), len(imported.quarantine), data.facts["notes"]) == (classes, 0, [])
    assert data.truth is not None
    for event in (0, 4_000):
        row = int(data.events["event_id"][event].as_py().removeprefix("row-")) - 1
        values = {n: raw[n][row].as_py() for n in raw.column_names if n not in (*exclude, "label")}
        found = {k: json.loads(v) for k, v in data.events["context"][event].as_py()}
        assert found == {k: v for k, v in values.items() if v is not None}
        assert data.truth["item_id"][event].as_py() == str(raw["label"][row].as_py())


@pytest.mark.skipif("MEDLEY_DATA" not in os.environ, reason="set MEDLEY_DATA to the folder of real data")
def test_shuttle_with_its_label_name_is_noticed() -> None:
    imported = table(Path(os.environ["MEDLEY_DATA"]) / "classification" / "shuttle.parquet")
    assert "--exclude label_name" in imported.dataset.facts["notes"][0]
