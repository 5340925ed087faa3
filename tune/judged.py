"""The part of a log that policies are asked about, block by block: a finished import, or files read for the purpose.

A finished import is streamed from its Parquet file, so that it may be larger than memory; files of any other format go
through their importer, which keeps the most recent `data.max_events` rows.

Shapes: N events.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.bandits.version import Version
from actors.features.features import Ints
from cluster.errors import EvidenceError, SourceError
from cluster.records import EVENTS, Dataset
from tune.split import parts

Part: TypeAlias = Literal["all", "confirm", "world"]
SPLIT = ["event_id", "timestamp", "client_id", "user_id", "session_id"]
"""Columns that decide who may be looked at for what."""
BLOCK = 65_536
"""Events read at a time."""


@dataclass(frozen=True)
class Judged:
    """about: the data set without its events. tables: the events of the whole log, in time order, a table at a time,
    with these columns or all."""

    about: Dataset
    tables: Callable[[list[str] | None], Iterator[pa.Table]]
    part: Part
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, part: Part, seed: int) -> "Judged":
        """A data set that is in memory. Raises EvidenceError where the part has no event."""
        events = dataset.events

        def tables(columns: list[str] | None) -> Iterator[pa.Table]:
            yield events if columns is None else events.select(columns)

        return cls(replace(dataset, events=EVENTS.empty_table()), tables, part, seed)

    @classmethod
    def folder(cls, folder: Path, part: Part, seed: int) -> "Judged":
        """A finished import, streamed. Raises SourceError where the folder is none."""
        try:
            about = json.loads((folder / "dataset.json").read_text())
            items, users = (pq.read_table(folder / f"{name}.parquet") for name in ("items", "users"))
            file = pq.ParquetFile(folder / "events.parquet")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{folder}: no finished import here ({error}); run `medley import` again") from error

        def tables(columns: list[str] | None) -> Iterator[pa.Table]:
            for batch in file.iter_batches(BLOCK, columns=columns):
                yield pa.Table.from_batches([batch])

        return cls(
            Dataset(about["format"], EVENTS.empty_table(), items, users, None, about["facts"]), tables, part, seed
        )

    def events(self) -> Iterator[pa.Table]:
        """What is judged of each table."""
        rows, start = self.rows, 0
        for table in self.tables(None):
            if rows is None:
                yield table
                continue
            first, last = np.searchsorted(rows, [start, start + len(table)])
            if last > first:
                yield table.take(pa.array(rows[first:last] - start))
            start += len(table)

    @cached_property
    def rows(self) -> Ints | None:
        """Numbers of the events that are judged, ascending; None for all."""
        if self.part == "all":
            return None
        rows = np.sort(getattr(parts(self._split, self.seed), self.part))
        if not len(rows):
            raise EvidenceError(f"--part {self.part}: no event of the log is in it; use more data, or --part all")
        return rows

    @cached_property
    def _split(self) -> Dataset:
        """The whole log in the columns that decide who may be looked at for what."""
        return replace(self.about, events=pa.concat_tables(self.tables(SPLIT)))

    def overlap(self, version: Version) -> str:
        """In words, how much of what is judged a version was fitted on, as far as its own facts tell."""
        fingerprint = self.about.facts.get("fingerprint")
        if fingerprint is None or version.facts.get("data") != fingerprint:
            return ""
        found = parts(self._split, int(version.facts.get("seed", self.seed)))
        fitted = np.concatenate([found.fit, found.stop, found.select, found.confirm])
        rows = np.arange(len(self._split.events)) if self.rows is None else self.rows
        share = float(np.isin(rows, fitted).mean())
        return f"fitted on {share:.0%} of these rows, which flatters it; --part world has none of them" if share else ""
