"""A labelled table: one arm per class, reward 1 for the right one.

The logged action is drawn uniformly (seeded), so the log holds right and wrong ones with propensity 1/K; the
label goes to `truth` alone, which only worlds read. All other columns become context: numbers stay numbers,
categories text, missing values are absent. Rows past the limit on events are left out at random, since the
order of a table is no time and may be that of its classes.

    medley import --format table --data adult.parquet --exclude split

Shapes: N rows, E events, K classes.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.config import DataSettings
from cluster.errors import SchemaError
from cluster.faults import Faults, repeated
from cluster.importers.assemble import (
    DEFAULT_CLIENT,
    DEFAULT_KIND,
    catalogue_lists,
    facts,
    need_rows,
    newest,
    row_ids,
    row_seconds,
)
from cluster.importers.catalogue import in_order, items_of, users_of
from cluster.importers.columns import MISSING, NOTHING, texts, times
from cluster.importers.context import Coded, maps
from cluster.importers.feedback import contexts
from cluster.importers.imported import Imported, Options, Progress
from cluster.importers.numerals import number
from cluster.importers.roles import Role, Roles, resolve
from cluster.importers.source import Source, find, read
from cluster.importers.telling import leaks
from cluster.records import EVENTS, TRUTH, Dataset

MOST_CLASSES = 1_000
MANY_NUMBERS = 50
ROLES = (
    Role("label", ("class", "target", "y"), required=True),
    Role("event_id"),
    Role("timestamp"),
    Role("client_id"),
    Role("user_id"),
)


def read_table(
    paths: Sequence[Path], options: Options, settings: DataSettings, seed: int, progress: Progress | None = None
) -> Imported:
    """Import a labelled table; see the module.

    Raises:
        SourceError: a file is missing, empty or corrupt, or no row can be used.
        SchemaError: there is no label column, or it holds a single class or more than a thousand.
    """
    source = read(find(paths), settings, progress)
    roles = resolve(source, ROLES, options)
    rng = np.random.default_rng([seed, 0x7AB1E])
    faults = Faults(len(source))
    labels = texts("label", roles.column("label", source.table), NOTHING)
    faults.add(labels.is_null(), "label: expected a class, found none")
    named = _named(source, roles, faults)
    context, left_out = contexts(source, roles, faults)
    quarantine = source.quarantine(faults)
    rows = _kept(faults, settings.max_events, rng)
    need_rows(rows, source, quarantine)
    order, _ = newest(named["timestamp"].take(pa.array(rows)), np.ones(len(rows), bool), len(rows))
    rows = rows[order]
    classes = in_order(labels.take(pa.array(rows)))
    _check_classes(classes, source.name)
    truth = labels.take(pa.array(rows))
    events = _events(named, context, rows, classes, truth, rng)
    told = facts(
        source,
        options,
        roles,
        seed,
        quarantine,
        events=len(rows),
        left_out_at_random=int(faults.good_N.sum()) - len(rows),
        columns_left_out=left_out,
        classes=len(classes),
        notes=_amounts(classes)
        + leaks(
            context,
            np.asarray(pc.index_in(truth, value_set=classes)).astype(np.int64),
            rows,
            "label",
            "the label in other words",
        ),
    )
    dataset = Dataset(
        "table",
        events,
        items_of(classes, title=classes),
        users_of(events),
        pa.table([events["event_id"], truth], schema=TRUTH),
        told,
    )
    return Imported(dataset, quarantine, roles.report())


def _events(
    named: dict[str, pa.Array],
    context: dict[str, Coded],
    rows: NDArray[np.int64],
    classes: pa.Array,
    truth: pa.Array,
    rng: np.random.Generator,
) -> pa.Table:
    n, k = len(rows), len(classes)
    item_id = classes.take(pa.array(rng.integers(k, size=n)))
    columns = {name: column.take(pa.array(rows)) for name, column in named.items()} | {
        "context": maps({name: coded.take(rows) for name, coded in context.items()}, n),
        "candidates": catalogue_lists(n, classes),
        "item_id": item_id,
        "propensity": pa.repeat(1.0 / k, n),
        "reward": pc.equal(item_id, truth).cast(pa.float64()),
        "reward_kind": pa.repeat(DEFAULT_KIND, n),
    }
    return pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in EVENTS], schema=EVENTS)


def _named(source: Source, roles: Roles, faults: Faults) -> dict[str, pa.Array]:
    """The columns of events that a table may name, or what stands for them."""
    n, table = len(source), source.table
    ids, when = roles.column("event_id", table), roles.column("timestamp", table)
    client, user = roles.column("client_id", table), roles.column("user_id", table)
    named = {
        "event_id": row_ids(source) if ids is None else texts("event_id", ids),
        "timestamp": row_seconds(n) if when is None else times("timestamp", when, faults),
        "client_id": pa.repeat(DEFAULT_CLIENT, n)
        if client is None
        else texts("client_id", client, MISSING).fill_null(DEFAULT_CLIENT),
        "user_id": pa.nulls(n, pa.string()) if user is None else texts("user_id", user, MISSING),
    }
    for name in ("event_id", "timestamp"):
        faults.add(named[name].is_null(), f"{name}: expected a value, found none")
    again_N = repeated(pa.chunked_array([named["event_id"]]))
    faults.add(again_N, "event_id: expected once, found again", named["event_id"])
    return named


def _kept(faults: Faults, most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    rows = np.flatnonzero(faults.good_N)
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def _check_classes(classes: pa.Array, name: str) -> None:
    if len(classes) == 1:
        raise SchemaError(f"{name}: the label is {classes[0].as_py()!r} in every row; expected two classes or more")
    if len(classes) > MOST_CLASSES:
        raise SchemaError(
            f"{name}: the label has {len(classes)} values; expected at most {MOST_CLASSES} classes; "
            "say which column is the class by --map label=COLUMN"
        )


def _amounts(classes: pa.Array) -> list[str]:
    if len(classes) < MANY_NUMBERS or any(number(name) is None for name in classes.to_pylist()):
        return []
    return [f"the label holds {len(classes)} numbers, and each is read as a class; an amount wants bins first"]
