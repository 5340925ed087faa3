"""Implicit feedback: purchase lines with item text, price, time and customer.

One event per line. Its candidates are the bought item and negatives drawn uniformly from the items on sale that
day (sold in the 28 days up to it), none of the same invoice: ten in all by default, or `candidates: all` for the
whole catalogue, in random order. The logged action is drawn uniformly from them, so its propensity is 1/K; it earns
1 if it is the bought item, which `truth` holds. The context is `recent` (the customer's last ten distinct items
from earlier invoices, of the whole history), hour, weekday, and columns that say something of the invoice or of the
customer. A column that describes the item becomes an item attribute; one that changes from line to line of an
invoice is left out, since it would tell what was bought.

Lines with a quantity or price of nothing or less (cancellations, corrections) are no purchases and are left out.
Lines without a customer stay: their user is null and they have no `recent`.

    medley import --format transactions --data transactions.parquet --client Country

Shapes: N usable lines in time order, E events kept, K candidates.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.faults import Faults
from cluster.importers.assemble import DEFAULT_CLIENT, DEFAULT_KIND, facts, need_rows, newest
from cluster.importers.baskets import candidate_sets, earlier_items
from cluster.importers.catalogue import in_order, users_of
from cluster.importers.context import Coded, code, coded_texts, maps
from cluster.importers.imported import Imported, Options, Progress
from cluster.importers.lineitems import describing, items_table, of_items
from cluster.importers.purchases import DAY_US, ROLES, Lines, lines_of, typed_columns
from cluster.importers.roles import Roles, resolve
from cluster.importers.source import Source, find, read
from cluster.records import EVENTS, TRUTH, Dataset

WORLD = 0.2
"""Share of the kept events, the latest, that the world is held out from; `tune.split` holds out as much."""
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def read_transactions(
    paths: Sequence[Path], options: Options, settings: DataSettings, seed: int, progress: Progress | None = None
) -> Imported:
    """Import purchases; see the module.

    Raises:
        SourceError: a file is missing, empty or corrupt, or no line can be used.
        SchemaError: a required column is missing or misspelt, neither invoice nor customer is there, or only one item.
    """
    source = read(find(paths), settings, progress)
    roles = resolve(source, ROLES, options)
    if "session_id" not in roles and "user_id" not in roles:
        raise SchemaError(
            f"{source.name}: no column for the invoice nor the customer; "
            "say --map session_id=COLUMN or --map user_id=COLUMN"
        )
    faults = Faults(len(source))
    typed, dropped_N, dropped = typed_columns(source, roles, faults)
    quarantine = source.quarantine(faults)
    rows, late = newest(typed["timestamp"], faults.good_N & ~dropped_N, len(source))
    need_rows(rows, source, quarantine, dropped)
    lines = lines_of(source, typed, rows)
    if len(lines.item_ids) == 1:
        raise SchemaError(
            f"{source.name}: every line buys {lines.item_ids[0].as_py()!r}; expected two items or more; "
            "say which column is the item by --map item_id=COLUMN"
        )
    context, attributes, left_out = _contexts(source, roles, lines)
    kept = np.arange(max(0, len(rows) - settings.max_events), len(rows))
    rng = np.random.default_rng([seed, 0xBA5CE7])
    events, truth = _events(source, lines, typed, kept, context, settings.candidates, rng, progress)
    told = facts(
        source,
        options,
        roles,
        seed,
        quarantine,
        events=len(kept),
        lines_left_out=dropped,
        older_left_out=len(rows) - len(kept),
        without_customer=int((lines.user_N[kept] < 0).sum()),
        out_of_order=late,
        candidates=settings.candidates,
        columns_left_out=left_out,
    )
    of = describing(lines.item_N, kept[0] + round((1 - WORLD) * len(kept)))
    told_of = {name: coded.take(of) for name, coded in attributes.items()}
    items = items_table(source, roles, typed, lines.row_N[of], lines.item_ids, lines.item_N[of], told_of)
    return Imported(Dataset("transactions", events, items, users_of(events), truth, told), quarantine, roles.report())


def _contexts(source: Source, roles: Roles, lines: Lines) -> tuple[dict[str, Coded], dict[str, Coded], dict[str, str]]:
    """Columns of the invoice, columns of the item (both per line), and those left out with the reason."""
    context: dict[str, Coded] = {}
    attributes: dict[str, Coded] = {}
    left_out: dict[str, str] = {}
    for name in roles.context:
        unfit = Faults(len(source))
        coded = code(name, source.table[name], source.text, unfit)
        if coded is None:
            left_out[name] = f"a context cannot hold {source.table[name].type}"
            continue
        coded = coded.take(lines.row_N)
        named = lines.user_N >= 0
        of_users = of_items(coded.code_N[named], lines.user_N[named], lines.item_N[named])
        if of_users or of_items(coded.code_N, lines.invoice_N, lines.item_N):
            context[name] = coded
        elif of_items(coded.code_N, lines.item_N, lines.invoice_N):
            attributes[name] = coded
        else:
            left_out[name] = "changes within an invoice: it may tell which item was bought"
    return context, attributes, left_out


def _events(
    source: Source,
    lines: Lines,
    typed: dict[str, pa.Array],
    kept: NDArray[np.int64],
    context: dict[str, Coded],
    size: int | str,
    rng: np.random.Generator,
    progress: Progress | None,
) -> tuple[pa.Table, pa.Table]:
    n = len(kept)
    invoices = lines.invoice_ids.take(pa.array(lines.invoice_N[kept]))
    numbers_E = (source.row_N if len(source.files) == 1 else np.arange(1, len(source) + 1))[lines.row_N[kept]]
    event_id = pc.binary_join_element_wise(invoices, pa.array(numbers_E).cast(pa.string()), "/")
    listed, action, count_E = _choices(lines, kept, size, rng)
    bought = lines.item_ids.take(pa.array(lines.item_N[kept]))
    client = typed.get("client_id")
    columns = {
        "event_id": event_id,
        "timestamp": pa.array(lines.time_N[kept]).cast(EVENTS.field("timestamp").type),
        "client_id": pa.repeat(DEFAULT_CLIENT, n)
        if client is None
        else client.take(pa.array(lines.row_N[kept])).fill_null(DEFAULT_CLIENT),
        "user_id": lines.user_ids.take(pa.array(lines.user_N[kept], mask=lines.user_N[kept] < 0)),
        "session_id": invoices,
        "context": maps({k: c.take(kept) for k, c in context.items()} | _recent(lines, kept), n),
        "candidates": listed,
        "item_id": action,
        "propensity": pa.array(1.0 / count_E),
        "reward": pc.equal(action, bought).cast(pa.float64()),
        "reward_kind": pa.repeat(DEFAULT_KIND, n),
    }
    if progress:
        progress(n, n)
    events = pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in EVENTS], schema=EVENTS)
    return events, pa.table([event_id, bought], schema=TRUTH)


def _choices(
    lines: Lines, kept: NDArray[np.int64], size: int | str, rng: np.random.Generator
) -> tuple[pa.Array, pa.Array, NDArray[np.int64]]:
    """Candidates (null for the whole catalogue), the action drawn from them, and how many there were."""
    n = len(kept)
    if size == "all":
        catalogue = in_order(lines.item_ids)
        action = catalogue.take(pa.array(rng.integers(len(catalogue), size=n)))
        return pa.nulls(n, pa.list_(pa.string())), action, np.full(n, len(catalogue))
    sets = candidate_sets(kept, lines.day_N, lines.invoice_N, lines.item_N, int(size), rng)
    count_E = np.array([len(found) for found in sets])
    offsets = np.concatenate([[0], np.cumsum(count_E)]).astype(np.int32)
    flat = np.concatenate(sets)
    listed = pa.ListArray.from_arrays(pa.array(offsets), lines.item_ids.take(pa.array(flat)))
    return listed, lines.item_ids.take(pa.array(flat[offsets[:-1] + rng.integers(count_E)])), count_E


def _recent(lines: Lines, kept: NDArray[np.int64]) -> dict[str, Coded]:
    """`recent`, `hour` and `weekday` of the kept lines."""
    by_invoice = earlier_items(lines.user_N, lines.invoice_N, lines.item_N, lines.time_N)
    ids = lines.item_ids.to_pylist()
    told = {i: json.dumps([ids[item] for item in by_invoice[i]]) for i in set(lines.invoice_N[kept]) if i in by_invoice}
    hour_E = lines.time_N[kept] % DAY_US // 3_600_000_000
    weekday_E = (lines.day_N[kept] + 3) % 7  # 1 January 1970 was a Thursday
    return {
        "recent": coded_texts([told.get(i) for i in lines.invoice_N[kept]]),
        "hour": Coded(hour_E, pa.array([str(hour) for hour in range(24)])),
        "weekday": Coded(weekday_E, pa.array([json.dumps(name) for name in WEEKDAYS])),
    }
