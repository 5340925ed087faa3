"""The items of an import, read in blocks: their pictures and sounds may be more than the memory holds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.content.contents import COLUMNS, Content, contents
from actors.content.published import Published
from cluster.errors import SourceError, StateError

BLOCK = 256
"""Items read at a time."""


@dataclass(frozen=True)
class Catalogue:
    """`items.parquet` of a finished import; `size_bytes` before compression."""

    path: Path
    items: int
    size_bytes: int

    @classmethod
    def open(cls, folder: Path) -> "Catalogue":
        """Raises SourceError where the folder is no finished import."""
        path = folder / "items.parquet"
        try:
            if not (folder / "dataset.json").exists():
                raise FileNotFoundError(folder / "dataset.json")
            about = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{folder}: no finished import here ({error}); run `medley import` again") from error
        groups = (about.row_group(i).total_byte_size for i in range(about.num_row_groups))
        return cls(path, about.num_rows, sum(groups))

    def blocks(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All items in order, BLOCK at a time. Raises SourceError where the file is damaged."""
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=BLOCK, columns=list(columns) if columns else None):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{self.path}: cannot be read ({error}); run `medley import` again") from error

    def sample(self, most: int, seed: int) -> Iterator[tuple[str, Content]]:
        """At most `most` items with their ids, equal for equal seeds, in order."""
        chosen = np.sort(np.random.default_rng(seed).permutation(self.items)[:most])
        start = 0
        for block in self.blocks(COLUMNS):
            rows = chosen[np.searchsorted(chosen, start) : np.searchsorted(chosen, start + len(block))] - start
            part = block.take(pa.array(rows))
            yield from zip(part["item_id"].to_pylist(), contents(part), strict=True)
            start += len(block)

    def write(self, published: Published) -> None:
        """Put vectors into the items' column `embedding`, null where there is none, whole or not at all; and into the
        facts which encoder made them.

        Raises:
            StateError: the folder cannot be written.
        """
        vectors = dict(zip(published.item_ids, published.vectors_IE, strict=True))
        aside = self.path.with_suffix(".writing")
        try:
            with pq.ParquetWriter(aside, pq.read_schema(self.path), compression="zstd") as file:
                for block in self.blocks():
                    column = pa.array([vectors.get(i) for i in block["item_id"].to_pylist()], pa.list_(pa.float32()))
                    at = block.column_names.index("embedding")
                    file.write_table(block.set_column(at, block.schema.field(at), column))
            self._say(None)  # a process that ends here leaves vectors that nobody knows the encoder of
            aside.rename(self.path)
            self._say(published.facts.get("fingerprint"))
        except OSError as error:
            raise StateError(f"{self.path}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error

    def _say(self, encoder: str | None) -> None:
        """The fingerprint of what made the items' embeddings, as `Dataset.encoder` has it."""
        path = self.path.with_name("dataset.json")
        about = json.loads(path.read_text())
        about["facts"] = {key: fact for key, fact in about["facts"].items() if key != "encoder"}
        about["facts"] |= {"encoder": encoder} if encoder else {}
        aside = path.with_suffix(".writing")
        aside.write_text(json.dumps(about, indent=1))
        aside.rename(path)
