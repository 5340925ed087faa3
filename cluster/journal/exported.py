"""The journal's final outcomes as Parquet files, for training elsewhere: by client and day, each outcome once.

    FOLDER/_export.json                                    what is exported, and the last outcome that is in
    FOLDER/client=shop/day=2026-01-31/part-1-9000.parquet  outcomes 1 to 9000 of this client and day

Each run goes on where the last one ended. A part is written aside, made durable and renamed; the watermark follows
when all parts of a block are there. A run that is killed between the two leaves parts beyond the watermark, which the
next run writes anew: read those up to the watermark, or after a run has ended, and every outcome is there once.
"""

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.disk import flush
from cluster.errors import StateError
from cluster.journal.events import BLOCK, Choice, blocks
from cluster.journal.journal import Reader

_LONGEST = 200  # bytes of a client's name in a folder's name, which may have 255


@dataclass(frozen=True)
class Mark:
    """How far an export is: outcomes up to `watermark` are in, `events` of them were meant."""

    journal: str
    choice: dict[str, str | None]
    watermark: int = 0
    events: int = 0


def export(
    reader: Reader,
    folder: Path,
    choice: Choice,
    progress: Callable[[int, int], None] | None = None,
    block: int = BLOCK,
) -> Mark:
    """Bring an export up to the journal's last outcome.

    Args:
        progress: called with (outcomes done, outcomes to do).
        block: outcomes in memory at a time.

    Raises:
        StateError: the folder cannot be written, another run writes it, or it holds another export.
        JournalError: the journal cannot be read.
    """
    new = Mark(reader.identity(), choice.facts())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            mark = _found(folder, new)
            _save(folder, mark)
            for path in _parts(folder):
                if _first(path) > mark.watermark:
                    path.unlink()  # a run was killed before the watermark said that this part is in
            start, last = mark.watermark, reader.last_outcome()
            for seq, table in blocks(reader, start, last, block):
                meant = choice.of(table)
                _write(folder, meant, mark.watermark + 1, seq)
                mark = replace(mark, watermark=seq, events=mark.events + meant.num_rows)
                _save(folder, mark)
                if progress is not None:
                    progress(seq - start, last - start)
    except OSError as error:
        raise StateError(f"{folder}: cannot be written ({error}); free the disk or choose another folder") from error
    return mark


def _write(folder: Path, table: pa.Table, first: int, last: int) -> None:
    """A part for each client and day of a block."""
    keys = table.select(["client_id"]).append_column("day", pc.strftime(table["timestamp"], "%Y-%m-%d"))
    for pair in keys.group_by(["client_id", "day"]).aggregate([]).sort_by("client_id").to_pylist():
        rows = pc.and_(pc.equal(keys["client_id"], pair["client_id"]), pc.equal(keys["day"], pair["day"]))
        place = folder / f"client={_folder_name(pair['client_id'])}" / f"day={pair['day']}"
        place.mkdir(parents=True, exist_ok=True)
        aside = folder / ".part"
        pq.write_table(table.filter(rows), aside, compression="zstd")
        flush(aside)
        aside.rename(place / f"part-{first}-{last}.parquet")
        flush(place)
        flush(place.parent)  # where the day is new


def _folder_name(client: str) -> str:
    """A client's name as a folder's, in the usual encoding of URIs; the column client_id has it in full."""
    name = quote(client, safe="")
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}~{sha256(client.encode()).hexdigest()[:16]}"


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob("client=*/day=*/part-*.parquet"))


def _first(part: Path) -> int:
    return int(part.name.split("-")[1])


def _found(folder: Path, new: Mark) -> Mark:
    """The mark of the folder, `new` where there is none yet."""
    try:
        mark = Mark(**json.loads((folder / "_export.json").read_text()))
    except FileNotFoundError:
        return new
    except (ValueError, TypeError) as error:
        raise StateError(f"{folder}/_export.json: not readable ({error}); choose another folder") from error
    if (mark.journal, mark.choice) != (new.journal, new.choice):
        which = "another journal" if mark.journal != new.journal else f"{mark.choice}, asked for {new.choice}"
        raise StateError(f"{folder}: holds an export of {which}; choose another folder")
    return mark


def _save(folder: Path, mark: Mark) -> None:
    aside = folder / "._export.json"
    aside.write_text(json.dumps(asdict(mark), indent=1))
    flush(aside)
    aside.rename(folder / "_export.json")
    flush(folder)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{folder}: another run exports to it; wait for its end") from None
        yield
