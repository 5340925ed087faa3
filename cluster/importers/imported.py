"""What an import takes and gives."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import SchemaError, StateError
from cluster.records import Dataset

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (done, total) as an import goes on."""


@dataclass(frozen=True)
class Options:
    """How the columns of a file are to be read.

    mapping: our name -> a column, or an expression: `run(a,b)`, `row()`, `all()`, `'text'`.
    exclude: columns to leave out.
    client: the column that names the tenant.
    """

    mapping: dict[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    client: str | None = None

    @classmethod
    def parse(cls, maps: Iterable[str] = (), exclude: Iterable[str] = (), client: str | None = None) -> "Options":
        """From command-line words such as `reward=Y`. Raises SchemaError where a word has no `=`."""
        mapping: dict[str, str] = {}
        for text in maps:
            ours, equals, theirs = (part.strip() for part in text.partition("="))
            if not (ours and equals and theirs):
                raise SchemaError(f"--map {text}: expected ours=theirs, such as --map reward=Y")
            mapping[ours] = theirs
        return cls(mapping, tuple(exclude), client)


@dataclass(frozen=True)
class Imported:
    """A data set, the rows that were left out of it (QUARANTINE), and the role that each column took."""

    dataset: Dataset
    quarantine: pa.Table
    roles: dict[str, str]

    def save(self, folder: Path) -> None:
        """`quarantine.parquet` beside the data set, written before it."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(self.quarantine, folder / "quarantine.parquet", compression="zstd")
        except OSError as error:
            raise StateError(f"{folder}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error
        self.dataset.save(folder)

    def rejects(self, most: int = 10) -> list[tuple[str, int]]:
        """The commonest reasons, without the values found, and the number of rows of each."""
        reasons = (reason.partition(", found ")[0] for reason in self.quarantine["reason"].to_pylist())
        return Counter(reasons).most_common(most)

    def remarks(self) -> list[str]:
        """What was left out, sorted or looks odd, in words."""
        facts = self.dataset.facts
        lines = [f"{count:,} lines left out: {what}" for what, count in facts.get("lines_left_out", {}).items()]
        columns = [f"column {name!r} left out: {why}" for name, why in facts.get("columns_left_out", {}).items()]
        counts = {
            "out_of_order": "rows stood after a later one and were sorted",
            "older_left_out": "older events left out (max_events)",
            "left_out_at_random": "rows left out at random (max_events)",
            "without_customer": "events without a customer kept, with no user",
        }
        told = [f"{facts[key]:,} {words}" for key, words in counts.items() if facts.get(key)]
        return [*facts.get("notes", []), *lines, *columns, *told]
