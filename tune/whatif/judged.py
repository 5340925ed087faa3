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
from tune.offpolicy.streaming import blocks
from tune.split import parts

Part: TypeAlias = Literal["all", "confirm", "world"]
SPLIT = ["event_id", "timestamp", "client_id", "user_id", "session_id"]
"""Columns that decide who may be looked at for what."""


@dataclass(frozen=True)
class Judged:
    """about: the data set without its events. tables: the events of the whole log, in time order, a table at a time.
    split: the columns of all of them that decide who may be looked at for what."""

    about: Dataset
    tables: Callable[[], Iterator[pa.Table]]
    split: Callable[[], pa.Table]
    part: Part
    seed: int

    @classmethod
    def of(cls, dataset: Dataset, part: Part, seed: int) -> "Judged":
        """A data set that is in memory."""
        events = dataset.events
        about = replace(dataset, events=EVENTS.empty_table())
        return cls(about, lambda: iter([events]), lambda: events.select(SPLIT), part, seed)

    @classmethod
    def folder(cls, folder: Path, part: Part, seed: int) -> "Judged":
        """A finished import, streamed. Raises SourceError where the folder is none."""
        path = folder / "events.parquet"
        try:
            about = json.loads((folder / "dataset.json").read_text())
            items, users = (pq.read_table(folder / f"{name}.parquet") for name in ("items", "users"))
            pq.read_schema(path)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{folder}: no finished import here ({error}); run `medley import` again") from error
        dataset = Dataset(about["format"], EVENTS.empty_table(), items, users, None, about["facts"])
        return cls(dataset, lambda: blocks([path]), lambda: pq.read_table(path, columns=SPLIT), part, seed)

    def events(self) -> Iterator[pa.Table]:
        """What is judged of each table."""
        rows, start = self.rows, 0
        for table in self.tables():
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
        return replace(self.about, events=self.split())

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
