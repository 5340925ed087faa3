"""The Open Bandit layout (Saito et al., arXiv:2008.07146): its published CSV with `item_context.csv` beside, or
the Parquet with `items*.parquet`.

The context is user_feature_* and, as a list of item ids, the items to which the user has a non-zero affinity
(`user-item_affinity_*`; nearly all are zero). Candidates are all items. The position of the three on the page is
kept: a propensity is that of the item at its position. `policy` and `campaign` describe the log, not the
situation, and are left out; hashes and codes that repeat an item feature too.

    medley import --format open-bandit --data random_men.parquet --data items_men.parquet

Shapes: N rows, K items.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.config import DataSettings
from cluster.errors import SchemaError, SourceError
from cluster.faults import Faults
from cluster.importers.catalogue import Described, read_items
from cluster.importers.columns import numbers, plain_array
from cluster.importers.context import Coded, coded_texts
from cluster.importers.feedback import Beside, feedback
from cluster.importers.imported import Imported, Options, Progress
from cluster.importers.roles import Role, resolve
from cluster.importers.source import Source, find, read
from cluster.records import QUARANTINE

ROLES = (
    Role("event_id"),
    Role("timestamp", required=True),
    Role("client_id"),
    Role("user_id"),
    Role("session_id"),
    Role("item_id", required=True),
    Role("position"),
    Role("propensity", ("propensity_score", "pscore"), required=True),
    Role("reward", ("click",), required=True),
)
OF_THE_LOG = ("policy", "campaign")
REPEATED = re.compile(r"item_feature_\d+_(code|.*hash)")
_AFFINITY = re.compile(r"user[-_]item_affinity(?:_(\d+))?")


def read_open_bandit(
    paths: Sequence[Path], options: Options, settings: DataSettings, seed: int, progress: Progress | None = None
) -> Imported:
    """Import Open Bandit data; see the module.

    Raises:
        SourceError: a file is missing, empty or corrupt, or no row can be used.
        SchemaError: a required column is missing or misspelt.
    """
    files = find(paths)
    beside = [path for path in files if path.name.lower().startswith("item")]
    logs = [path for path in files if path not in beside]
    if not logs:
        raise SourceError(f"{files[0]}: only items; name the file of the log as well")
    beside = beside or _neighbours(logs[0])
    source = read(logs, settings, progress)
    source, context = _without_affinity(source)
    left_out = [name for name in OF_THE_LOG if name in source.table.column_names and name not in options.exclude]
    asked = replace(options, exclude=(*options.exclude, *left_out))
    roles = resolve(source, ROLES, asked)
    items = _items(beside, settings)
    notes = items.notes if items else ("no table of items given or beside the log: candidates are the items it names",)
    told = dict.fromkeys(left_out, "describes the log, not the situation")
    table, rejects = (items.table, items.quarantine) if items else (None, QUARANTINE.empty_table())
    return feedback(source, roles, options, settings, seed, Beside(table, None, rejects, context, True, told, notes))


def _neighbours(log: Path) -> list[Path]:
    """`item_context.csv` in the folder of a published log."""
    path = log.parent / "item_context.csv"
    return [path] if path.exists() else []


def _items(paths: Sequence[Path], settings: DataSettings) -> Described | None:
    if not paths:
        return None
    names = read(paths, settings).table.column_names
    return read_items(paths, settings, [name for name in names if REPEATED.fullmatch(name)])


def _without_affinity(source: Source) -> tuple[Source, dict[str, Coded]]:
    """The source without its affinity columns, and them as lists of item ids (none where all are zero)."""
    found = {name: match for name in source.table.column_names if (match := _AFFINITY.fullmatch(name))}
    if not found:
        return source, {}
    names = sorted(found, key=lambda name: int(found[name][1] or 0))
    affinity_NK = _matrix(source, names)
    ids = [found[name][1] for name in names] if len(names) > 1 else [str(k) for k in range(affinity_NK.shape[1])]
    texts: list[str | None] = [None] * len(source)
    for n in np.flatnonzero(affinity_NK.any(axis=1)):
        texts[n] = json.dumps([ids[k] for k in np.flatnonzero(affinity_NK[n])])
    return replace(source, table=source.table.drop_columns(names)), {"affinity": coded_texts(texts)}


def _matrix(source: Source, names: Sequence[str]) -> NDArray[np.float64]:
    """[N, K] from one column of lists or K columns of numbers; what is missing or no number counts as zero."""
    first = plain_array(source.table[names[0]])
    if pa.types.is_fixed_size_list(first.type):
        flat = np.asarray(first.flatten(), np.float64).reshape(-1, first.type.list_size)
        if len(flat) != len(source):
            raise SchemaError(f"{source.name}: {names[0]} has rows without a list; expected one in every row")
        return np.asarray(np.nan_to_num(flat), np.float64)
    unused = Faults(len(source))
    columns = [numbers(name, source.table[name], unused).fill_null(0.0) for name in names]
    return np.asarray(np.nan_to_num(np.stack([np.asarray(column) for column in columns], axis=1)), np.float64)
