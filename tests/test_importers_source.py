"""Files as they come: cut short, corrupt, too long a line, of another alphabet; the good rows go on."""

import bz2
import csv
import gzip
import io
import lzma
import random
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import DataSettings
from cluster.errors import SchemaError, SourceError
from cluster.importers.lines import Lines, Reject
from cluster.importers.source import find, read

SETTINGS = DataSettings(max_line_bytes=1_000)
field_text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12)


def written(tmp_path: Path, content: bytes, name: str = "log.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


@given(st.lists(st.lists(field_text, min_size=3, max_size=3), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_is_read_back(rows: list[list[str]], end: str) -> None:
    rows = [["h1", "h2", "h3"], *rows]
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator=end).writerows(rows)
    found = list(Lines(io.BytesIO(buffer.getvalue().encode()), ",", 100_000))
    assert found == rows


@given(st.binary(max_size=300), st.integers(1, 40))
def test_any_bytes_are_read_to_the_end(content: bytes, limit: int) -> None:
    for record in Lines(io.BytesIO(content), ",", limit):
        assert isinstance(record, Reject | list)


def test_types_come_from_parquet_and_text_stays_text(tmp_path) -> None:
    pq.write_table(pa.table({"a": [1, 2]}), tmp_path / "log.parquet")
    typed = read([tmp_path / "log.parquet"], SETTINGS)
    text = read([written(tmp_path, b"a,b\n1,\n2,x\n")], SETTINGS)
    assert (typed.table["a"].type, typed.text) == (pa.int64(), False)
    assert (text.table.to_pydict(), text.text) == ({"a": ["1", "2"], "b": [None, "x"]}, True)
    assert text.row_N.tolist() == [1, 2]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path, delimiter: str) -> None:
    content = "\n".join(delimiter.join(row) for row in (["a", "b"], ["1", "x, y" if delimiter != "," else "x"]))
    assert read([written(tmp_path, content.encode())], SETTINGS).table.column_names == ["a", "b"]


def test_a_byte_order_mark_and_windows_line_ends(tmp_path) -> None:
    source = read([written(tmp_path, b"\xef\xbb\xbfa,b\r\n1,2\r\n")], SETTINGS)
    assert source.table.to_pydict() == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize(("pack", "suffix"), [(gzip.compress, ".gz"), (bz2.compress, ".bz2"), (lzma.compress, ".xz")])
def test_packed_text_is_unpacked_as_it_is_read(tmp_path, pack, suffix: str) -> None:
    path = written(tmp_path, pack(b"a\tb\n1\tx, y\n"), "log.tsv" + suffix)
    assert read(find([tmp_path]), SETTINGS).table.to_pydict() == {"a": ["1"], "b": ["x, y"]}
    told: list[tuple[int, int]] = []
    numbers = random.Random(0).choices(range(10**9), k=70_000)
    written(tmp_path, pack("\n".join(["a", *map(str, numbers)]).encode()), path.name)
    assert read([path], SETTINGS, lambda *now: told.append(now)).table["a"].to_pylist() == list(map(str, numbers))
    assert {total for _, total in told} == {path.stat().st_size}


def test_a_large_packed_file_that_is_cut_short(tmp_path) -> None:
    whole = gzip.compress("\n".join(["a", *map(str, random.Random(0).choices(range(10**9), k=70_000))]).encode())
    with pytest.raises(SourceError, match=r"log.csv: cannot be read to its end .* copy or pack it again"):
        read([written(tmp_path, whole[: len(whole) // 2])], SETTINGS)


BLANKS = {
    "runs of blanks": b" customer_id  date n   value\n 00001 19970101  1   11.77\n 00002 19970112  12  12.00 \n",
    "as R writes": b'"customer_id" "date" "n" "value"\n"1" "00001" "19970101" 1 11.77\n"2" "00002" 19970112 12 12.00\n',
}


@pytest.mark.parametrize("form", BLANKS)
def test_blanks_between_fields(tmp_path, form: str) -> None:
    assert read([written(tmp_path, BLANKS[form])], SETTINGS).table.to_pylist() == [
        {"customer_id": "00001", "date": "19970101", "n": "1", "value": "11.77"},
        {"customer_id": "00002", "date": "19970112", "n": "12", "value": "12.00"},
    ]


def test_a_blank_in_a_quoted_field_is_no_delimiter(tmp_path) -> None:
    source = read([written(tmp_path, b'when what\n"1 May"  "a  b"\nx y\n')], SETTINGS)
    assert source.table.to_pylist() == [{"when": "1 May", "what": "a  b"}, {"when": "x", "what": "y"}]


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_spreadsheet_may_say_its_delimiter_first(tmp_path, mark: bytes) -> None:
    source = read([written(tmp_path, mark + b"sep=;\r\na;b,c\r\n1;2\r\n")], SETTINGS)
    assert source.table.to_pylist() == [{"a": "1", "b,c": "2"}]


def test_a_delimiter_at_the_end_of_each_line_but_the_header(tmp_path) -> None:
    source = read([written(tmp_path, b"a;b\n1;2;\n3;4;\n")], SETTINGS)
    assert source.table.to_pylist() == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_one_line_with_a_field_too_many_does_not_shift_the_others(tmp_path) -> None:
    source = read([written(tmp_path, b"a,b\n1,2,3\n4,5\n")], SETTINGS)
    assert source.table.to_pylist() == [{"a": "4", "b": "5"}]


R_FILES = {
    "numbered": (b"a,b\n1,x,2.5\n2,y,3\n", ["a", "b"]),
    "named, tabs": (b"a\tb\nMazda RX4\t21\t6\nFiat 128\t32\t4\n", ["a", "b"]),
    "named, blanks": (b'a b\n"Mazda RX4" 21 6\n"Fiat 128" 32 4\n', ["a", "b"]),
}


@pytest.mark.parametrize("name", R_FILES)
def test_names_of_rows_that_r_gives_no_name(tmp_path, name: str) -> None:
    content, columns = R_FILES[name]
    source = read([written(tmp_path, content)], SETTINGS)
    assert (source.table.column_names, len(source)) == (columns, 2)


SPLIT = {
    "a decimal comma, users come again": b"user,reward\nu1,0,5\nu1,1,5\n",
    "a decimal comma, users differ": b"user,reward\n1,0,5\n2,1,5\n",
    "a date and a clock": b"user date click\nu1 2021-01-01 10:00:01 1\nu2 2021-01-01 10:00:02 0\n",
    "one row": b"user,name\nu1,Smith,John\n",
}


@pytest.mark.parametrize("name", SPLIT)
def test_a_field_in_two_does_not_shift_the_columns(tmp_path, name: str) -> None:
    with pytest.raises(SourceError, match=r"found \d; a field that holds the delimiter .* must be in quotes \(row 1\)"):
        read([written(tmp_path, SPLIT[name])], SETTINGS)


def test_lines_of_another_alphabet_are_told_with_the_remedy(tmp_path) -> None:
    source = read([written(tmp_path, "a,b\n1,£5\n2,6\n".encode("latin-1"))], SETTINGS)
    (note,) = source.notes
    assert note == (
        "log.csv: 1 lines are not UTF-8; if they are of Windows or Latin-1, say: "
        "iconv -f WINDOWS-1252 -t UTF-8 log.csv > utf8-log.csv"
    )


BAD_ROWS = {
    "a null byte": (b"1,\x00x", "found a null byte"),
    "another alphabet": ("1,café".encode("latin-1"), "expected UTF-8, found byte 0xe9 at 5"),
    "a long line": (b"1," + b"x" * 5_000, "expected at most 1000 bytes"),
    "a field too few": (b"1", "expected 2 fields, found 1"),
    "a field too many": (b"1,2,3", "expected 2 fields, found 3"),
    "a quote left open": (b'1,"two', "expected a closing quote"),
    "text after a quote": (b'1,"two"three', "cannot read the quotes"),
}


def test_the_row_index_of_pandas_is_left_out(tmp_path) -> None:
    frame = {"a": [1.0, 2.0], "__index_level_0__": [7, 9]}
    pq.write_table(pa.table(frame), tmp_path / "log.parquet")
    assert read([tmp_path / "log.parquet"], SETTINGS).table.column_names == ["a"]
    assert read([written(tmp_path, b"Unnamed: 0,a\n7,1\n")], SETTINGS).table.column_names == ["a"]


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_is_set_aside_and_the_others_go_on(tmp_path, bad: str) -> None:
    line, reason = BAD_ROWS[bad]
    source = read([written(tmp_path, b"a,b\n1,first\n" + line + b"\n3,third\n4,fourth\n")], SETTINGS)
    assert source.table["b"].to_pylist() == ["first", "third", "fourth"]
    assert source.row_N.tolist() == [1, 3, 4]
    (reject,) = source.rejects.to_pylist()
    assert (reject["source"], reject["row"]) == ("log.csv", 2)
    assert reason in reject["reason"]
    assert reject["raw"].startswith("1")


def test_a_long_line_is_never_held(tmp_path) -> None:
    path = tmp_path / "log.csv"
    with path.open("wb") as file:
        file.write(b"a,b\n1,first\n2,")
        for _ in range(64):
            file.write(b"x" * 2**20)
        file.write(b"\n3,third\n")
    tracemalloc.start()
    source = read([path], SETTINGS)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.table["b"].to_pylist() == ["first", "third"]
    assert peak < 8 * 2**20  # the file has 64 MiB


def test_a_quoted_field_may_hold_lines_delimiters_and_quotes(tmp_path) -> None:
    source = read([written(tmp_path, b'a,b\n1,"one, ""two""\nthree"\n2,x\n')], SETTINGS)
    assert source.table["b"].to_pylist() == ['one, "two"\nthree', "x"]


BAD_FILES = {
    "empty": (b"", "log.csv: the file is empty"),
    "a header only": (b"a,b\n", "log.csv: no usable row"),
    "only bad rows": (b"a,b\n1\n", "no usable row: line: expected 2 fields, found 1 \\(row 1\\)"),
    "blank": (b"\n\n\n", "cannot read the header"),
    "a long header": (b"a" * 2_000, "cannot read the header: line: expected at most 1000 bytes"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "UTF-16 text: save it as UTF-8"),
    "gzip cut short": (gzip.compress(b"a,b\n" + b"1,2\n" * 9)[:-9], "log.csv: cannot be read"),
    "gzip of nothing": (gzip.compress(b""), "log.csv: the file is empty"),
    "UTF-16 in gzip": (gzip.compress("a,b\n1,2\n".encode("utf-16")), "UTF-16 text: save it as UTF-8"),
    "a spreadsheet": (b"PK\x03\x04rest", "save it as CSV"),
    "lines of JSON": (b'{"a": 1}\n{"a": 2}\n', "JSON: save it as CSV or Parquet"),
    "a JSON list": (b'[{"a": 1}]', "JSON: save it as CSV or Parquet"),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_file_that_cannot_be_used(tmp_path, bad: str) -> None:
    content, message = BAD_FILES[bad]
    with pytest.raises(SourceError, match=message):
        read([written(tmp_path, content)], SETTINGS)


@pytest.mark.parametrize("cut", [8, 200, -8])
def test_a_corrupt_parquet_file(tmp_path, cut: int) -> None:
    pq.write_table(pa.table({"a": list(range(1_000))}), tmp_path / "whole.parquet")
    content = (tmp_path / "whole.parquet").read_bytes()
    with pytest.raises(SourceError, match=r"cut.parquet: not a whole Parquet file .* copy or write it again"):
        read([written(tmp_path, content[:cut], "cut.parquet")], SETTINGS)


def test_a_parquet_file_with_a_damaged_page(tmp_path) -> None:
    table = pa.table({"a": [f"word-{i * i}" for i in range(5_000)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", write_page_checksum=True)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 400] = b"\xff" * 400
    with pytest.raises(SourceError, match="not a whole Parquet file"):
        read([written(tmp_path, bytes(content), "a.parquet")], SETTINGS)


def test_a_parquet_file_whose_text_is_no_utf8(tmp_path) -> None:
    pq.write_table(pa.table({"a": ["good", "caf#"] * 100}), tmp_path / "a.parquet", compression="none")
    content = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(SourceError, match="not a whole Parquet file"):
        read([written(tmp_path, content.replace(b"caf#", b"caf\xe9"), "a.parquet")], SETTINGS)


def test_a_missing_file(tmp_path) -> None:
    with pytest.raises(SourceError, match=r"nowhere.csv: cannot be read: No such file"):
        read([tmp_path / "nowhere.csv"], SETTINGS)


def test_a_column_that_is_there_twice(tmp_path) -> None:
    with pytest.raises(SchemaError, match="column 'a' is there more than once"):
        read([written(tmp_path, b"a,a\n1,2\n")], SETTINGS)
    with pytest.raises(SchemaError, match="column '0' is there more than once; does the first line hold the names"):
        read([written(tmp_path, b"0,0,5\n1,2,3\n")], SETTINGS)


def test_a_saved_row_index_is_left_out(tmp_path) -> None:
    source = read([written(tmp_path, b",a\n0,x\n1,y\n")], SETTINGS)
    assert source.table.column_names == ["a"]
    assert "row index" in source.notes[0]


def test_files_follow_one_another(tmp_path) -> None:
    paths = [written(tmp_path, b"a\n1\n2\n", "one.csv"), written(tmp_path, b"a\n3\n", "two.csv")]
    source = read(paths, SETTINGS)
    assert source.table["a"].to_pylist() == ["1", "2", "3"]
    assert (source.file_N.tolist(), source.row_N.tolist()) == ([0, 0, 1], [1, 2, 1])


def test_files_of_other_columns_are_refused(tmp_path) -> None:
    paths = [written(tmp_path, b"a\n1\n", "one.csv"), written(tmp_path, b"b\n3\n", "two.csv")]
    with pytest.raises(SchemaError, match=r"two.csv: expected the columns of one.csv \(a\), found b"):
        read(paths, SETTINGS)


def test_a_folder_means_the_tables_in_it(tmp_path) -> None:
    for name in ("b.csv", "a.parquet", "notes.md"):
        written(tmp_path, b"x", name)
    assert [path.name for path in find([tmp_path])] == ["a.parquet", "b.csv"]


def test_a_folder_without_tables(tmp_path) -> None:
    with pytest.raises(SourceError, match="no file here that ends in"):
        find([tmp_path])


def test_no_file_at_all() -> None:
    with pytest.raises(SourceError, match="name one or more with --data"):
        find([])


def test_progress_is_told_in_bytes(tmp_path) -> None:
    told: list[tuple[int, int]] = []
    path = written(tmp_path, b"a\n" + b"1\n" * 140_000)
    read([path], SETTINGS, lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {path.stat().st_size}
    assert len(told) == 2
