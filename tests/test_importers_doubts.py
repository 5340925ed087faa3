"""What can be read in two ways is told, and tables that belong together read their ids alike."""

from pathlib import Path

import pytest

from cluster.config import DataSettings
from cluster.importers.imported import Imported, Options
from cluster.importers.native import read_native
from cluster.importers.table import read_table
from cluster.importers.transactions import read_transactions


def written(tmp_path: Path, header: str, rows: list[str], name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def native(*paths: Path, maps: tuple[str, ...] = ()) -> Imported:
    return read_native(paths, Options.parse(maps), DataSettings(), 0)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (("1.234", "2.500"), "a decimal point (1.234 lies between 1 and 2); if it marks thousands, remove it"),
        (("1,234", "999"), "marks at the thousands (1,234 is 1234); if they are decimals, write points"),
        (("1,2", "2,3"), "a decimal comma (1,2 lies between 1 and 2); if these are two choices, write 1|2"),
        (("1 234", "2 345"), "a blank at the thousands (1 234 is 1234); if these are codes, remove the blank"),
        (("1.234", "2.5"), None),
        (("1,2", "2,35"), None),
        (("1 234", "lamp"), None),
    ],
)
def test_numbers_that_may_mean_another_are_told(tmp_path, values: tuple[str, str], note: str | None) -> None:
    rows = [f'{1_600_000_000 + n},u{n % 7},i{n % 4},{n % 2},"{values[n % 3 % 2]}"' for n in range(60)]
    found = native(written(tmp_path, "timestamp,user,item,click,x", rows)).remarks()
    assert found == ([f"column 'x' is read as numbers with {note}"] if note else [])


@pytest.mark.parametrize(("last", "told"), [("12", True), ("13", False)])
def test_days_that_can_be_months_are_told(tmp_path, last: str, told: bool) -> None:
    rows = [f"0{day}/02/2021 10:00,i{day},1" for day in range(1, 9)] + [f"{last}/02/2021,i1,0"]
    (note,) = native(written(tmp_path, "date,item,click", rows)).remarks() or [""]
    assert note.startswith("date: every day can be read month first or day first; it is read month first") == told


def test_an_item_called_na_is_the_same_in_events_candidates_and_items(tmp_path) -> None:
    rows = [f"{n},u{n},{('NA', 'US')[n % 2]},NA|US|None,{n % 2}" for n in range(8)]
    log = written(tmp_path, "t,user,item_id,candidates,click", [*rows, "9,None,NULL,NA|US,1"])
    items = written(tmp_path, "item_id,title", ["NA,Namibia", "US,States", "None,Nowhere"], "items.csv")
    for files in ((log,), (log, items)):
        imported = native(*files, maps=("timestamp=t",))
        assert imported.dataset.items["item_id"].to_pylist() in (["NA", "None", "US"], ["NA", "US", "None"])
        assert imported.dataset.events["item_id"].to_pylist() == ["NA", "US"] * 4
        assert imported.rejects() == [("item_id: expected a value", 1)]
        assert "column 'item_id': 4 rows say 'NA', read as a name; if it is none, empty it" in imported.remarks()
        assert "column 'item_id': 1 rows say 'NULL', read as missing" in imported.remarks()
        assert "column 'user': 1 rows say 'None', read as missing" in imported.remarks()


def test_a_class_and_an_article_may_be_called_na(tmp_path) -> None:
    table = written(tmp_path, "x,label", [f"{n % 5},{('NA', 'US')[n % 2]}" for n in range(8)])
    assert read_table([table], Options(), DataSettings(), 0).dataset.items["item_id"].to_pylist() == ["NA", "US"]
    rows = [f"{n},{('NA', 'X')[n % 2]},2011-01-0{1 + n}" for n in range(8)]
    sold = written(tmp_path, "invoice,stockcode,date", rows)
    assert len(read_transactions([sold], Options(), DataSettings(), 0).dataset.events) == 8


def test_a_rank_of_items_stays_and_a_saved_index_is_told(tmp_path) -> None:
    log = written(tmp_path, "t,user,item,click", [f"{n},u{n % 5},i{n % 40},{n % 2}" for n in range(80)])
    items = written(tmp_path, "index,item,sales_rank", [f"{n},i{n},{n + 1}" for n in range(40)], "items.csv")
    users = written(tmp_path, "user,queue,row", [f"u{n},{n},{n}" for n in range(40)], "users.csv")
    imported = native(log, items, users, maps=("timestamp=t",))
    assert imported.dataset.items["attributes"].to_pylist()[4] == [("sales_rank", "5")]
    assert imported.dataset.users["attributes"].to_pylist()[4] == [("queue", "4")]
    left = "column {!r} counts the rows of {}, as a saved index does: it is left out"
    assert imported.remarks() == [left.format("index", "items.csv"), left.format("row", "users.csv")]
