"""Files -> one Arrow table with row numbers, and the rows that could not be read.

Parquet keeps its types. Delimited text (UTF-8, a header; comma, semicolon, tab, bar or blanks; plain or packed by
gzip, bzip2 or xz) comes back as text; `columns` finds the types. A file that cannot be used at all raises
SourceError; a row that cannot is set aside.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.config import DataSettings
from cluster.errors import SchemaError, SourceError
from cluster.faults import Faults
from cluster.importers.imported import Progress
from cluster.importers.lines import SHOWN_BYTES, Lines, Reject
from cluster.importers.numerals import number
from cluster.importers.packed import UNPACKING, opened, suffix
from cluster.records import QUARANTINE

CHUNK_ROWS = 65_536
FIRST_ROWS = 20
"""Records that show what the header leaves out."""
SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".txt")
_REMEDY = "; a field that holds the delimiter (1,5 between commas) must be in quotes"
_SPLIT = {",": re.compile(r"[-+]?\d*,\d+"), " ": re.compile(r"\d+[-/.]\d+[-/.]\d+ \d+:\d+.*")}
"""One value in two fields, by the delimiter."""
_INDEX = ("Unnamed: 0", "__index_level_0__")
"""Names that pandas gives the index of rows."""
_MAGIC = {
    b"{": "JSON: save it as CSV or Parquet",
    b"[{": "JSON: save it as CSV or Parquet",
    b"PK\x03\x04": "a zip file or spreadsheet: save it as CSV or Parquet",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


@dataclass(frozen=True)
class Source:
    """N rows of one or more files of the same columns.

    file_N: index into `files`; row_N: number of the row in its file, from 1. text: whether all values are text,
    their types still to be found. digest: SHA-256 of the bytes.
    """

    files: tuple[str, ...]
    table: pa.Table
    file_N: NDArray[np.int64]
    row_N: NDArray[np.int64]
    rejects: pa.Table
    text: bool
    digest: str
    notes: tuple[str, ...] = ()
    name: str = field(default="", compare=False)

    def __len__(self) -> int:
        return len(self.table)

    def quarantine(self, faults: Faults) -> pa.Table:
        """The rows at fault, in QUARANTINE's columns, after those that could not be read."""
        rows = np.flatnonzero(~faults.good_N)
        raws = [str(row)[:SHOWN_BYTES] for row in self.table.take(pa.array(rows)).to_pylist()]
        names = [self.files[i] for i in self.file_N[rows]]
        reasons = [str(reason) for reason in faults.reason_N[rows]]
        found = pa.table([names, self.row_N[rows], reasons, raws], schema=QUARANTINE)
        return pa.concat_tables([self.rejects, found])


def find(paths: Sequence[Path]) -> list[Path]:
    """The files meant by `paths`; of a folder, those in it that are Parquet or delimited text."""
    files: list[Path] = []
    for path in map(Path, paths):
        inside = sorted(p for p in path.iterdir() if suffix(p) in SUFFIXES) if path.is_dir() else [path]
        if not inside:
            raise SourceError(f"{path}: no file here that ends in {', '.join(SUFFIXES)}")
        files += inside
    if not files:
        raise SourceError("no file given: name one or more with --data")
    return files


def read(paths: Sequence[Path], settings: DataSettings, progress: Progress | None = None) -> Source:
    """Read files of the same columns, one after the other.

    Raises:
        SourceError: a file is missing, empty, corrupt or of a kind that cannot be read, or holds no usable row.
        SchemaError: the columns of two files differ, or a column is there twice.
    """
    sources = [_read_one(path, settings, progress) for path in paths]
    first = sources[0]
    for other in sources[1:]:
        if other.table.column_names != first.table.column_names or other.text != first.text:
            raise SchemaError(
                f"{other.name}: expected the columns of {first.name} ({', '.join(first.table.column_names)}), "
                f"found {', '.join(other.table.column_names)}; import them one at a time"
            )
    try:
        table = pa.concat_tables([s.table for s in sources], promote_options="permissive")
    except pa.ArrowException as error:
        raise SchemaError(f"{first.name} and others: columns of different types: {error}") from error
    return Source(
        tuple(s.name for s in sources),
        table,
        np.concatenate([np.full(len(s), i, np.int64) for i, s in enumerate(sources)]),
        np.concatenate([s.row_N for s in sources]),
        pa.concat_tables([s.rejects for s in sources]),
        first.text,
        hashlib.sha256("".join(s.digest for s in sources).encode()).hexdigest(),
        sum((s.notes for s in sources), ()),
        first.name if len(sources) == 1 else f"{first.name} and {len(sources) - 1} more",
    )


def _read_one(path: Path, settings: DataSettings, progress: Progress | None) -> Source:
    start, digest = _looked_at(path)
    text = start != b"PAR1" and suffix(path) not in (".parquet", ".pq")
    try:
        table, row_N, rejects = _text(path, settings, progress) if text else _parquet(path)
    except UNPACKING as error:
        raise SourceError(f"{path}: cannot be read to its end ({error}); copy or pack it again") from error
    names = [name for name in table.column_names if name.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        hint = "does the first line hold the names?" if number(twice[0]) is not None else "rename or remove one"
        raise SchemaError(f"{path}: column {twice[0]!r} is there more than once; {hint}")
    if not len(table):
        why = f": {rejects[0].reason} (row {rejects[0].row})" if rejects else ""
        raise SourceError(f"{path}: no usable row{why}")
    named = [i for i, name in enumerate(table.column_names) if name.strip() and name not in _INDEX]
    notes = [f"{path.name}: a column without a name (a saved row index) is left out"]
    return Source(
        (path.name,),
        table.select(named),
        np.zeros(len(table), np.int64),
        row_N,
        pa.Table.from_pylist([{"source": path.name, **vars(r)} for r in rejects], schema=QUARANTINE),
        text,
        digest,
        (*notes[: len(named) < len(table.column_names)], *_of_another_alphabet(path.name, rejects)),
        path.name,
    )


def _looked_at(path: Path) -> tuple[bytes, str]:
    """The first bytes and the SHA-256. Raises SourceError where the file cannot be read or is of another kind."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with opened(path) as (file, _):
            start = file.read(4)
    except UNPACKING as error:
        raise SourceError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not start:
        raise SourceError(f"{path}: the file is empty; expected Parquet, or text with a header and rows")
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise SourceError(f"{path}: {what}")
    return start, digest


def _of_another_alphabet(name: str, rejects: Sequence[Reject]) -> list[str]:
    count = sum("expected UTF-8" in reject.reason for reject in rejects)
    how = f"iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}"
    return [f"{name}: {count:,} lines are not UTF-8; if they are of Windows or Latin-1, say: {how}"] if count else []


def _parquet(path: Path) -> tuple[pa.Table, NDArray[np.int64], list[Reject]]:
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise SourceError(f"{path}: not a whole Parquet file ({error}); copy or write it again") from error
    return table, np.arange(1, len(table) + 1), []


def _text(
    path: Path, settings: DataSettings, progress: Progress | None
) -> tuple[pa.Table, NDArray[np.int64], list[Reject]]:
    total = path.stat().st_size
    chunks: list[pa.Table] = []
    rows: list[int] = []
    rejects: list[Reject] = []
    kept: list[list[str]] = []
    with opened(path) as (file, raw):
        lines = Lines(file, "\t" if suffix(path) == ".tsv" else "", settings.max_line_bytes)
        records = iter(lines)
        header = next(records, None)
        if header is None or isinstance(header, Reject):
            raise SourceError(f"{path}: cannot read the header: {header.reason if header else 'the file is blank'}")
        first = list(islice(records, FIRST_ROWS))
        whole = [one for one in first if isinstance(one, list)]
        header = _fitted([name.strip() for name in header], whole, lines.delimiter)
        for number, record in enumerate(chain(first, records), 1):
            if isinstance(record, Reject):
                rejects.append(record)
            elif len(record) != len(header):
                reason = (
                    f"line: expected {len(header)} fields, found {len(record)}{_REMEDY * (len(record) > len(header))}"
                )
                rejects.append(Reject(number, reason, lines.delimiter.join(record)[:SHOWN_BYTES]))
            else:
                kept.append(record)
                rows.append(number)
            if len(kept) == CHUNK_ROWS:
                chunks.append(_columns(header, kept))
                kept = []
                if progress:
                    progress(min(raw.tell(), total), total)
    chunks.append(_columns(header, kept))
    return pa.concat_tables(chunks), np.array(rows, np.int64), rejects


def _fitted(header: list[str], first: list[list[str]], delimiter: str) -> list[str]:
    """The header where all records have a field more: R does not name the row index, which comes before the others,
    and a delimiter may end each line but the header's."""
    if not first or "" in header or any(len(record) != len(header) + 1 for record in first):
        return header
    if not any(record[-1] for record in first):
        return [*header, ""]
    return ["", *header] if _of_r(first, delimiter) else header


def _of_r(first: list[list[str]], delimiter: str) -> bool:
    """Whether first fields can be R's names of rows: all differ, and no other field may have come in two, as 3,5 does
    between commas and a date with a clock between blanks."""
    if len({record[0] for record in first}) < max(len(first), 2):
        return False
    split = _SPLIT.get(delimiter)
    if split is None:
        return True
    pairs = range(len(first[0]) - 1)
    return not any(all(split.fullmatch(delimiter.join(record[i : i + 2])) for record in first) for i in pairs)


def _columns(header: list[str], records: list[list[str]]) -> pa.Table:
    """Text columns; an empty field is null."""
    fields = zip(*records, strict=True) if records else ([] for _ in header)
    arrays = [pa.array([value or None for value in column], pa.string()) for column in fields]
    return pa.Table.from_arrays(arrays, names=header)
