"""Logged feedback: an action, what it earned, and perhaps with which probability it was taken.

The native and the Open Bandit layout differ in names only; both end here. Shapes: N rows, E events kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from cluster.config import DataSettings
from cluster.faults import Faults, event_faults
from cluster.importers import columns as typed
from cluster.importers.apart import apart, codes_of
from cluster.importers.assemble import DEFAULT_CLIENT, DEFAULT_KIND, catalogue_lists, facts, need_rows, newest, row_ids
from cluster.importers.catalogue import described_items, ids_of, users_of
from cluster.importers.context import Coded, code, from_column, maps
from cluster.importers.imported import Imported, Options
from cluster.importers.roles import Roles
from cluster.importers.source import Source
from cluster.importers.telling import leaks
from cluster.records import EVENTS, QUARANTINE, Dataset


@dataclass(frozen=True)
class Beside:
    """What comes with the events: tables, rows set aside in reading them, further context and words."""

    items: pa.Table | None = None
    users: pa.Table | None = None
    quarantine: pa.Table = field(default_factory=QUARANTINE.empty_table)
    context: Mapping[str, Coded] = field(default_factory=dict)
    all_items: bool = False
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def feedback(
    source: Source, roles: Roles, options: Options, settings: DataSettings, seed: int, beside: Beside
) -> Imported:
    """Events, items and users of the usable rows.

    Args:
        source: N rows.
        roles: the part of each column.
        options, settings, seed: as given to the importer.
        beside: `items` given makes an action or candidate outside it a fault; without it, columns that describe the
            item make it. `all_items` lists the whole catalogue as candidates, as the mapping `candidates=all()` does.
    """
    faults = Faults(len(source))
    table = _typed_events(source, roles, faults)
    context, left_out = contexts(source, roles, faults)
    event_faults(table, beside.items, faults)
    quarantine = pa.concat_tables([source.quarantine(faults), beside.quarantine])
    rows, late = newest(table["timestamp"].combine_chunks(), faults.good_N, settings.max_events)
    need_rows(rows, source, quarantine)
    context, of_item, decided = apart(context, roles, table, rows)
    if beside.items is not None:
        items = beside.items
        left_out |= dict.fromkeys(of_item, "says the same of an item in every row: it belongs in the file of items")
    else:
        items = described_items(source, ids_of(table, faults.good_N), table["item_id"], rows, of_item)
    events = table.take(pa.array(rows))
    every = beside.all_items or ("candidates" in roles and roles.expressions["candidates"].kind == "all")
    if every:
        listed = catalogue_lists(len(rows), items["item_id"].combine_chunks())
        events = put(events, "candidates", listed)
    everything = {**context, **beside.context}
    events = put(events, "context", maps({name: c.take(rows) for name, c in everything.items()}, len(rows)))
    told = facts(
        source,
        options,
        roles,
        seed,
        quarantine,
        events=len(rows),
        older_left_out=int(faults.good_N.sum()) - len(rows),
        out_of_order=late,
        columns_left_out={**left_out, **beside.left_out},
        notes=[
            *beside.notes,
            *decided,
            *leaks(context, codes_of(table["reward"], rows), rows, "reward", "known only after the decision"),
        ],
    )
    users = beside.users if beside.users is not None else users_of(events)
    shown = replace(roles, context=tuple(name for name in roles.context if name not in of_item)).report()
    shown |= {"of the item": ", ".join(of_item)} if of_item and beside.items is None else {}
    return Imported(Dataset("feedback", events.cast(EVENTS), items, users, None, told), quarantine, shown)


def contexts(source: Source, roles: Roles, faults: Faults) -> tuple[dict[str, Coded], dict[str, str]]:
    """Coded context columns by name, and the columns left out with the reason."""
    whole = roles.column("context", source.table)
    found: dict[str, Coded] = {} if whole is None else from_column(whole, faults)
    left_out: dict[str, str] = {}
    for name in roles.context:
        column = source.table[name]
        coded = code(name, column, source.text, faults)
        if coded is None:
            left_out[name] = f"a context cannot hold {column.type}"
        else:
            found[name] = coded
    return found, left_out


def put(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _typed_events(source: Source, roles: Roles, faults: Faults) -> pa.Table:
    """EVENTS' columns with nulls where a value does not fit, context still to come."""

    def values(name: str, change: Any, *more: Any) -> pa.Array:
        column = roles.column(name, source.table)
        return None if column is None else change(name, column, *more)

    n = len(source)
    client = values("client_id", typed.texts, typed.MISSING)
    kind = values("reward_kind", typed.texts)
    arrays = {
        "event_id": values("event_id", typed.texts, typed.NOTHING),
        "timestamp": values("timestamp", typed.times, faults),
        "client_id": _default(client, n, DEFAULT_CLIENT),
        "user_id": values("user_id", typed.texts, typed.MISSING),
        "session_id": values("session_id", typed.texts, typed.MISSING),
        "candidates": values("candidates", typed.lists, faults),
        "item_id": values("item_id", typed.texts, typed.NOTHING),
        "position": values("position", typed.integers, faults, pa.int32()),
        "propensity": values("propensity", typed.numbers, faults),
        "reward": values("reward", typed.numbers, faults),
        "reward_kind": _default(kind, n, DEFAULT_KIND),
        "version": values("version", typed.integers, faults, pa.int64()),
    }
    if arrays["event_id"] is None:
        arrays["event_id"] = row_ids(source)
    schema = pa.schema([field.with_nullable(True) for field in EVENTS])
    return pa.table(
        [pa.nulls(n, f.type) if arrays.get(f.name) is None else arrays[f.name] for f in schema], schema=schema
    )


def _default(column: pa.Array | None, rows: int, value: str) -> pa.Array:
    return pa.repeat(pa.scalar(value), rows) if column is None else column.fill_null(value)
