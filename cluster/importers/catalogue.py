"""Tables of items and users beside the events, or made from the ids that the events name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.faults import Faults, row_faults
from cluster.importers.columns import MISSING, NOTHING, numbers, plain_array, texts, times
from cluster.importers.context import Coded, code, from_column, maps
from cluster.importers.doubts import doubts
from cluster.importers.imported import Options
from cluster.importers.moments import STAMP
from cluster.importers.names import plain
from cluster.importers.roles import Role, Roles, resolve
from cluster.importers.source import Source, read
from cluster.records import ITEMS, USERS

Ints = NDArray[np.int64]

_ABSENT = {"item_id": NOTHING, "user_id": MISSING, "client_id": MISSING}
"""As the events read them."""
TOLD = ("title", "description", "price", "category", "brand", "provider_id")
"""Columns of ITEMS that the events may tell."""
ITEM_ROLES = (
    Role("item_id", ("item", "stockcode", "product_id", "article_id", "sku", "asin", "id", "class_id"), required=True),
    Role("provider_id", ("provider", "seller_id", "seller", "vendor_id", "vendor")),
    Role("title", ("name", "product_name", "item_name")),
    Role("description", ("text", "summary")),
    Role("price", ("median_price", "unit_price")),
    Role("category", ("category_id", "department")),
    Role("brand", ("brand_id", "manufacturer")),
    Role("image", ("picture", "iconic_jpeg")),
    Role("audio", ("sound",)),
    Role("video"),
    Role("embedding", ("vector",)),
    Role("attributes"),
    Role("created_at", ("created", "added_at")),
    Role("expires_at", ("expires", "available_until", "valid_until")),
)
USER_ROLES = (
    Role("user_id", ("user", "customer_id", "member_id", "visitor_id", "id"), required=True),
    Role("client_id", ("client", "tenant")),
    Role("description"),
    Role("embedding", ("vector",)),
    Role("attributes"),
)


@dataclass(frozen=True)
class Described:
    """A file of items or users: its usable rows in ITEMS' or USERS' columns, the quarantine, and words on the rest."""

    table: pa.Table
    quarantine: pa.Table
    notes: tuple[str, ...]


def read_items(paths: Sequence[Path], settings: DataSettings, exclude: Sequence[str] = ()) -> Described:
    """Items of files. Columns without a role become attributes."""
    source = read(paths, settings)
    inside = tuple(name for name in exclude if name in source.table.column_names)
    return _typed(source, resolve(source, ITEM_ROLES, Options(exclude=inside), log=False), ITEMS, "item_id")


def read_users(paths: Sequence[Path], settings: DataSettings) -> Described:
    """The same of users."""
    source = read(paths, settings)
    return _typed(source, resolve(source, USER_ROLES, Options(), log=False), USERS, "user_id")


def _typed(source: Source, roles: Roles, schema: pa.Schema, key: str) -> Described:
    faults = Faults(len(source))
    columns = []
    for field in schema:
        values = roles.column(field.name, source.table)
        if field.name == "attributes":
            columns.append(_attributes(source, roles, values, faults))
        elif values is None:
            columns.append(pa.nulls(len(source), field.type))
        else:
            columns.append(_cast(field, values, faults))
    table = pa.Table.from_arrays(columns, schema=schema)
    row_faults(table, key, faults)
    notes = [*source.notes, *roles.notes, *(f"{source.name}: {note}" for note in doubts(source, roles))]
    return Described(table.filter(pa.array(faults.good_N)), source.quarantine(faults), tuple(notes))


def _cast(field: pa.Field, values: pa.ChunkedArray, faults: Faults) -> pa.Array:
    if field.type == pa.string():
        return texts(field.name, values, _ABSENT.get(field.name, frozenset()))
    if field.type == pa.float64():
        return numbers(field.name, values, faults)
    if field.type == STAMP:
        return times(field.name, values, faults)
    try:
        return plain_array(values).cast(field.type)
    except pa.ArrowException as error:
        raise SchemaError(f"{field.name}: expected {field.type}, found {values.type}: {error}") from error


def _attributes(source: Source, roles: Roles, whole: pa.ChunkedArray | None, faults: Faults) -> pa.Array:
    columns: dict[str, Coded] = {} if whole is None else from_column(whole, faults)
    for name in roles.context:
        coded = code(name, source.table[name], source.text, faults)
        if coded is not None:
            columns[name] = coded
    return maps(columns, len(source))


def described_items(
    source: Source, item_ids: pa.Array, item_N: pa.ChunkedArray, rows: Ints, told: Mapping[str, Coded]
) -> pa.Table:
    """ITEMS from ids and what the events tell of items, each by the first of `rows` that took the item and tells it.

    Args:
        item_N: item taken in the N rows of the source.
        told: columns, or keys of a context, that describe items; those without a place in ITEMS become attributes.
    """

    def first(coded: Coded) -> pa.Array:
        there = pa.array(rows[coded.code_N[rows] >= 0])
        return there.take(pc.index_in(item_ids, value_set=item_N.take(there).combine_chunks()))

    columns: dict[str, pa.Array] = {}
    attributes = dict(told)
    for role in ITEM_ROLES:
        usual = set(map(plain, (role.name, *role.usual)))
        found = next((n for n in attributes if plain(n) in usual and n in source.table.column_names), None)
        if role.name in TOLD and found is not None:
            taken = source.table[found].take(first(attributes.pop(found)))
            values = _cast(ITEMS.field(role.name), taken, Faults(len(taken)))
            columns[role.name] = (
                pc.if_else(pc.greater_equal(values, 0.0), values, None) if role.name == "price" else values
            )
    coded = {n: Coded(_taken(c.code_N, first(c)), c.json) for n, c in attributes.items()}
    return items_of(item_ids, **columns, **({"attributes": maps(coded, len(item_ids))} if coded else {}))


def _taken(code_N: Ints, row_I: pa.Array) -> Ints:
    """Codes of rows, -1 where there is no row."""
    found: Ints = np.append(code_N, -1)[np.asarray(row_I.fill_null(len(code_N)))]
    return found


def items_of(item_ids: pa.Array, **columns: pa.Array) -> pa.Table:
    """ITEMS from ids and what else is known."""
    arrays = [columns.get(f.name, pa.nulls(len(item_ids), f.type)) for f in ITEMS]
    return pa.Table.from_arrays([item_ids, *arrays[1:]], schema=ITEMS)


def users_of(events: pa.Table) -> pa.Table:
    """USERS from events in time order; a user's client is that of the last event."""
    named = events.select(["user_id", "client_id"]).filter(events["user_id"].is_valid())
    last = named.group_by("user_id", use_threads=False).aggregate([("client_id", "last")])
    n = len(last)
    rest = [pa.nulls(n, USERS.field(name).type) for name in ("description", "embedding", "attributes")]
    users = pa.Table.from_arrays([last["user_id"], last["client_id_last"], *rest], schema=USERS)
    return users.take(pc.sort_indices(users["user_id"])) if n else users


def ids_of(events: pa.Table, usable_N: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> pa.Array:
    """Item ids that usable events name as action or candidate; numbers in the order of numbers."""
    mine = events.filter(pa.array(usable_N))
    named = pa.concat_arrays(
        [mine["item_id"].combine_chunks().unique(), pc.list_flatten(mine["candidates"].combine_chunks()).unique()]
    )
    return in_order(named)


def in_order(ids: pa.Array) -> pa.Array:
    """Distinct ids, sorted; numbers in the order of numbers."""
    found = ids.unique().drop_null().to_pylist()
    return pa.array(sorted(found, key=lambda v: (0, int(v), v) if v.isdecimal() else (1, 0, v)), pa.string())
