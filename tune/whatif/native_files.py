"""Parquet files of events in the layout of EVENTS (cluster/records.py), asked as they lie: a log larger than memory
needs no import.

No event may come twice, as in an import; what came of one decision may, under one event_id, for several items or
kinds of reward (tune/metric.py).

A file whose name begins with `items` or `users` is that table. Without one of items, the catalogue is what events name.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import SourceError
from cluster.faults import OUTCOME
from cluster.importers.catalogue import in_order, items_of
from cluster.importers.source import find
from cluster.records import EVENTS, ITEMS, USERS, Dataset, conform
from tune.offpolicy.streaming import blocks
from tune.whatif.judged import SPLIT, Judged, Part

NEEDED: tuple[str, ...] = ("event_id", "timestamp", "client_id", "item_id", "reward")
NEEDED_ITEMS: tuple[str, ...] = ("item_id",)
NEEDED_USERS: tuple[str, ...] = ("user_id",)
_NAMING = ("item_id", "candidates")
_KEY_BYTES = 8 * 2**20
"""Of a block of them; Python's strings take several times as much."""


class NativeFiles:
    """Raises SourceError where no file can be read."""

    def __init__(self, paths: Sequence[Path]):
        files = find(paths)
        self.items = [path for path in files if path.name.lower().startswith("item")]
        self.users = [path for path in files if path.name.lower().startswith("user")]
        self.events = [path for path in files if path not in (*self.items, *self.users)]

    def fit(self) -> bool:
        """Whether they are of the layout; an importer reads any other."""
        files = (*self.events, *self.items, *self.users)
        try:
            return bool(self.events) and all(path.suffix == ".parquet" and self._fits(path) for path in files)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{files[0]}: cannot be read as Parquet ({error}); write it again") from error

    def _fits(self, path: Path) -> bool:
        found, schema, needed = pq.read_schema(path), EVENTS, NEEDED
        if path not in self.events:
            schema, needed = (ITEMS, NEEDED_ITEMS) if path in self.items else (USERS, NEEDED_USERS)
        known = all(field.name in schema.names and schema.field(field.name).type == field.type for field in found)
        return known and all(name in found.names for name in needed)

    def judged(self, part: Part, seed: int) -> Judged:
        """All events, streamed; their order is that of the files. Raises SourceError for one that comes twice."""
        self._refuse_repeated()
        users = _whole(self.users, USERS, "users")
        items = _whole(self.items, ITEMS, "items") if self.items else items_of(self._named())
        about = Dataset("feedback", EVENTS.empty_table(), items, users, None, {})
        return Judged(about, self._tables, lambda: self._columns(SPLIT), part, seed)

    def _refuse_repeated(self) -> None:
        """In 8 bytes an event: a first pass finds hashes that come again, a second one tells of what."""
        hashes = [np.fromiter(map(hash, keys), np.int64) for keys in self._keys()]
        hash_N = np.sort(np.concatenate([np.zeros(0, np.int64), *hashes]))
        again = set(hash_N[1:][np.diff(hash_N) == 0].tolist())
        seen: set[tuple[str | None, ...]] = set()
        first = 0
        for keys in self._keys() if again else ():
            for n, key in enumerate(keys):
                if hash(key) not in again:
                    continue
                if key in seen:
                    raise SourceError(
                        f"event {first + n}: event_id: expected once for each item and reward kind, found {key[1]!r} "
                        "again; give each file once, and each event an id of its own"
                    )
                seen.add(key)
            first += len(keys)

    def _keys(self) -> Iterator[list[tuple[str | None, ...]]]:
        for table in blocks(self.events, _KEY_BYTES, columns=OUTCOME):
            yield list(zip(*(table[name].to_pylist() for name in OUTCOME if name in table.column_names), strict=True))

    def _tables(self) -> Iterator[pa.Table]:
        return (conform(table, EVENTS, "events") for table in blocks(self.events))

    def _columns(self, names: Sequence[str]) -> pa.Table:
        return pa.concat_tables([conform(table, EVENTS, "events").select(names) for table in blocks(self.events)])

    def _named(self) -> pa.Array:
        """Ids that events name as action or candidate, in order."""
        ids = pa.array([], pa.string())
        for table in self._tables():
            item, lists = (table[name].combine_chunks() for name in _NAMING)
            ids = pa.concat_arrays([ids, item.unique(), pc.list_flatten(lists).unique()]).unique()
        return in_order(ids)


def _whole(paths: Sequence[Path], schema: pa.Schema, name: str) -> pa.Table:
    return pa.concat_tables([conform(pq.read_table(path), schema, name) for path in paths] or [schema.empty_table()])
