"""The data contracts: Arrow schemas of items, users and events, and the folder that holds them.

A context value is a number, a string, a boolean, null or a list of strings. Arrow has no map of mixed
values, so a context is a `map<string, string>` of JSON text: {"device": '"mobile"', "hour": "21"}. The
attributes of items and users are written in the same way.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import SchemaError, SourceError, StateError

Value: TypeAlias = bool | int | float | str | list[str] | None

ITEMS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("provider_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("description", pa.string()),
        pa.field("price", pa.float64()),
        pa.field("category", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("image", pa.binary()),
        pa.field("audio", pa.binary()),
        pa.field("video", pa.list_(pa.binary())),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
        pa.field("created_at", pa.timestamp("us", "UTC")),
        pa.field("expires_at", pa.timestamp("us", "UTC")),
    ]
)
USERS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("client_id", pa.string()),
        pa.field("description", pa.string()),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("attributes", pa.map_(pa.string(), pa.string())),
    ]
)
EVENTS = pa.schema(
    [
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("timestamp", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("client_id", pa.string(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("context", pa.map_(pa.string(), pa.string())),
        pa.field("candidates", pa.list_(pa.string())),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("position", pa.int32()),
        pa.field("propensity", pa.float64()),
        pa.field("reward", pa.float64()),
        pa.field("reward_kind", pa.string()),
        pa.field("version", pa.int64()),
    ]
)
TRUTH = pa.schema([pa.field("event_id", pa.string(), nullable=False), pa.field("item_id", pa.string(), nullable=False)])
"""The item that earns the reward 1 in an event (a table's label, the bought item). Only worlds read it."""
QUARANTINE = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("raw", pa.string()),
    ]
)
"""Rows left out of an import: file, row (the first after a header is 1), why, and what it held (cut short)."""


@dataclass(frozen=True)
class Dataset:
    """Events in time order with the items and users they name.

    `format` is `feedback`, `table`, `transactions` or `marketplace`; `truth` is there for `table` and
    `transactions`; `facts` holds what else the importer knows (its arguments, the marketplace's seed and
    size, a fingerprint of the source).
    """

    format: str
    events: pa.Table
    items: pa.Table
    users: pa.Table
    truth: pa.Table | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def encoder(self) -> str | None:
        """Fingerprint of the model that made the items' embeddings; None where nobody knows."""
        return self.facts.get("encoder")

    def save(self, folder: Path) -> None:
        """Write four Parquet files and `dataset.json`, the last last: a folder without it is no dataset.

        Raises StateError where the folder cannot be written or the disk is full.
        """
        try:
            self._write(folder)
        except OSError as error:
            raise StateError(f"{folder}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error

    def _write(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "dataset.json").unlink(missing_ok=True)
        for name in ("events", "items", "users", "truth"):
            table = getattr(self, name)
            if table is None:
                (folder / f"{name}.parquet").unlink(missing_ok=True)
            else:
                pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        about = json.dumps({"format": self.format, "facts": self.facts}, indent=1)
        (folder / "dataset.json").write_text(about)

    @classmethod
    def load(cls, folder: Path) -> "Dataset":
        """Raises SourceError where the folder is no finished import."""
        try:
            about = json.loads((folder / "dataset.json").read_text())
            tables = {n: pq.read_table(folder / f"{n}.parquet") for n in ("events", "items", "users")}
            truth = folder / "truth.parquet"
            tables["truth"] = pq.read_table(truth) if truth.exists() else None
        except (OSError, ValueError, pa.ArrowException) as error:
            raise SourceError(f"{folder}: no finished import here ({error}); run `medley import` again") from error
        return cls(about["format"], facts=about["facts"], **tables)


def tasks(events: pa.Table) -> pa.Array:
    """The task of each event, N strings: its user, else its session, else the event itself; each a client's own.

    The same id under two clients is two users, as in serving. A client's name has no bare `/`, so that
    `u:client/user` can be read in one way only.
    """
    client = pc.replace_substring(pc.replace_substring(events["client_id"], "%", "%25"), "/", "%2F")
    named = (
        pc.binary_join_element_wise(pc.binary_join_element_wise(prefix, client, ""), events[column], "/")
        for prefix, column in (("u:", "user_id"), ("s:", "session_id"), ("e:", "event_id"))
    )
    joined = pc.coalesce(*named)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def encode(context: Mapping[str, Value]) -> list[tuple[str, str]]:
    """A context as the key-value pairs of its Arrow map."""
    return [(key, json.dumps(value, ensure_ascii=False)) for key, value in context.items()]


def decode(pairs: list[tuple[str, str]] | None) -> dict[str, Value]:
    """The inverse of `encode`."""
    return {key: json.loads(text) for key, text in pairs or []}


def item_table(bodies: Mapping[str, str]) -> pa.Table:
    """ITEMS from the JSON bodies that the HTTP API takes and the journal keeps, by item_id."""
    return pa.Table.from_pylist([_item(item_id, json.loads(body)) for item_id, body in bodies.items()], ITEMS)


def _item(item_id: str, body: dict[str, Any]) -> dict[str, Any]:
    moments = {name: body.get(name) for name in ("created_at", "expires_at")}
    return {
        **body,
        "item_id": item_id,
        "attributes": encode(body.get("attributes") or {}),
        **{name: datetime.fromisoformat(text) if text else None for name, text in moments.items()},
    }


def conform(table: pa.Table, schema: pa.Schema, name: str) -> pa.Table:
    """The table in the schema's columns, order and types; absent columns that may be null become null.

    Raises:
        SchemaError: a required column is absent, or a column is of another type.
    """
    columns = []
    for column in schema:
        if column.name not in table.column_names:
            if not column.nullable:
                raise SchemaError(
                    f"{name}: column {column.name!r} is missing; "
                    f"expected {column.type}, found {', '.join(table.column_names) or 'none'}"
                )
            columns.append(pa.nulls(len(table), column.type))
            continue
        try:
            columns.append(table[column.name].cast(column.type))
        except pa.ArrowException as error:
            raise SchemaError(
                f"{name}: column {column.name!r} is {table[column.name].type}, expected {column.type}: {error}"
            ) from error
    return pa.table(columns, schema=schema)
