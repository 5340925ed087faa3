import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.errors import SchemaError, SourceError, StateError
from cluster.importers.imported import Imported
from cluster.records import EVENTS, ITEMS, QUARANTINE, TRUTH, USERS, Dataset, conform, decode, encode

values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
contexts = st.dictionaries(st.text(max_size=8), values | st.lists(st.text(max_size=5), max_size=3), max_size=5)


@given(contexts)
def test_a_context_survives_its_arrow_map(context: dict[str, object]) -> None:
    column = pa.array([encode(context)], EVENTS.field("context").type)  # type: ignore[arg-type]
    assert decode(column.to_pylist()[0]) == context


def test_no_context_is_an_empty_one() -> None:
    assert decode(None) == {}


def dataset(truth: pa.Table | None = None) -> Dataset:
    items = conform(pa.table({"item_id": ["a", "b"]}), ITEMS, "items")
    return Dataset("feedback", EVENTS.empty_table(), items, USERS.empty_table(), truth, {"seed": 3})


def test_a_data_set_is_read_as_it_was_written(tmp_path) -> None:
    truth = pa.table([["e"], ["a"]], schema=TRUTH)
    dataset(truth).save(tmp_path / "d")
    found = Dataset.load(tmp_path / "d")
    assert found.items.equals(dataset().items)
    assert found.truth is not None
    assert found.truth.equals(truth)
    assert (found.format, found.facts) == ("feedback", {"seed": 3})


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StateError, match=r"cannot be written .* free the disk or set MEDLEY_HOME"):
        dataset().save(tmp_path / "file" / "d")
    with pytest.raises(StateError, match="cannot be written"):
        Imported(dataset(), QUARANTINE.empty_table(), {}).save(tmp_path / "file" / "d")


def test_saving_without_truth_removes_an_older_one(tmp_path) -> None:
    dataset(pa.table([["e"], ["a"]], schema=TRUTH)).save(tmp_path)
    dataset().save(tmp_path)
    assert Dataset.load(tmp_path).truth is None


@pytest.mark.parametrize("damage", ["missing", "half written", "corrupt"])
def test_an_unfinished_folder_is_no_data_set(tmp_path, damage: str) -> None:
    if damage != "missing":
        dataset().save(tmp_path)
    if damage == "half written":
        (tmp_path / "dataset.json").unlink()
    if damage == "corrupt":
        (tmp_path / "events.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(SourceError, match="run `medley import` again"):
        Dataset.load(tmp_path)


def test_conform_orders_columns_and_fills_those_that_may_be_absent() -> None:
    table = conform(pa.table({"price": [1], "item_id": ["a"]}), ITEMS, "items")
    assert table.schema.equals(ITEMS)
    assert table.to_pylist()[0] | {"item_id": "a", "price": 1.0, "title": None} == table.to_pylist()[0]


def test_conform_names_the_missing_column() -> None:
    with pytest.raises(SchemaError, match=r"items: column 'item_id' is missing.*found price"):
        conform(pa.table({"price": [1.0]}), ITEMS, "items")


def test_conform_names_the_column_of_another_type() -> None:
    with pytest.raises(SchemaError, match="items: column 'price' is string, expected double"):
        conform(pa.table({"item_id": ["a"], "price": ["dear"]}), ITEMS, "items")
