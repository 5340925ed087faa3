"""Purchase lines: which columns they have, which lines are purchases, whose and when.

Shapes: N usable lines in time order.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.faults import Faults
from cluster.importers.columns import MISSING, NOTHING, numbers, texts, times
from cluster.importers.roles import Role, Roles
from cluster.importers.source import Source

ROLES = (
    Role("session_id", ("invoice_no", "invoice", "invoice_id", "order_id", "order", "basket_id", "transaction_id")),
    Role(
        "item_id",
        ("stockcode", "product_id", "article_id", "sku", "asin", "upc", "ean", "item", "product"),
        required=True,
    ),
    Role("title", ("description", "product_name", "item_name", "name")),
    Role("quantity", ("qty", "units", "number_of_items")),
    Role(
        "timestamp",
        ("invoice_date", "order_date", "purchase_date", "event_time", "datetime", "date", "time", "purchased_at"),
        required=True,
    ),
    Role("price", ("unit_price", "item_price", "amount")),
    Role("user_id", ("customer_id", "customer", "user", "member_id", "household_id", "client_number", "visitor_id")),
    Role("client_id", ("tenant",)),
    Role("category", ("department", "category_name", "product_category")),
    Role("brand", ("manufacturer",)),
    Role("provider_id", ("seller_id", "seller", "vendor_id", "vendor")),
)
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Lines:
    """N usable purchase lines in time order; `row_N` is their place in the source."""

    row_N: NDArray[np.int64]
    time_N: NDArray[np.int64]
    item_ids: pa.Array
    item_N: NDArray[np.int64]
    invoice_ids: pa.Array
    invoice_N: NDArray[np.int64]
    user_ids: pa.Array
    user_N: NDArray[np.int64]

    @property
    def day_N(self) -> NDArray[np.int64]:
        return self.time_N // DAY_US


def typed_columns(
    source: Source, roles: Roles, faults: Faults
) -> tuple[dict[str, pa.Array], NDArray[np.bool_], dict[str, int]]:
    """Columns by role, the lines that are no purchase, and how many of each kind."""
    values = {role.name: roles.column(role.name, source.table) for role in ROLES}
    absent = {"item_id": NOTHING}
    typed = {
        name: texts(name, column, absent.get(name, MISSING))
        for name, column in values.items()
        if column is not None and name[-3:] == "_id"
    }
    typed["timestamp"] = times("timestamp", values["timestamp"], faults)
    for name in ("item_id", "timestamp"):
        faults.add(typed[name].is_null(), f"{name}: expected a value, found none")
    dropped_N = np.zeros(len(source), bool)
    dropped: dict[str, int] = {}
    for name, what in (("quantity", "cancelled"), ("price", "without a price")):
        if values[name] is None:
            continue
        amount = typed[name] = numbers(name, values[name], faults)
        faults.add(pc.invert(pc.fill_null(pc.is_finite(amount), True)), f"{name}: expected a finite number", amount)
        none_N = np.asarray(pc.fill_null(pc.less_equal(amount, 0.0), False)) & ~dropped_N & faults.good_N
        dropped_N |= none_N
        dropped |= {what: int(none_N.sum())} if none_N.any() else {}
    return typed, dropped_N, dropped


def lines_of(source: Source, typed: dict[str, pa.Array], rows: NDArray[np.int64]) -> Lines:
    """The usable lines, given in time order; without an invoice, a customer and a moment are one."""
    take = pa.array(rows)
    time_N = np.asarray(typed["timestamp"].take(take).cast(pa.int64()))
    items = typed["item_id"].take(take).dictionary_encode()
    users = typed.get("user_id", pa.nulls(len(source), pa.string())).take(take).dictionary_encode()
    user_N = np.asarray(users.indices.fill_null(-1)).astype(np.int64)
    session = typed["session_id"].take(take) if "session_id" in typed else pa.nulls(len(rows), pa.string())
    moment = pc.binary_join_element_wise(
        users.dictionary.take(users.indices), pa.array(time_N).cast(pa.string()), "@", null_handling="replace"
    )
    invoices = pc.coalesce(session, moment).dictionary_encode()
    return Lines(
        rows,
        time_N,
        items.dictionary,
        np.asarray(items.indices).astype(np.int64),
        invoices.dictionary,
        np.asarray(invoices.indices).astype(np.int64),
        users.dictionary,
        user_N,
    )
