"""The last steps that all formats share: which rows stay, in which order, and what is told of the rest.

Shapes: N rows read, E events kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import SourceError
from cluster.importers.doubts import doubts
from cluster.importers.imported import Options
from cluster.importers.moments import STAMP
from cluster.importers.roles import Roles
from cluster.importers.source import Source

MOST_LISTED_ITEMS = 256
DEFAULT_CLIENT = "default"
DEFAULT_KIND = "reward"


def newest(stamp_N: pa.Array, usable_N: NDArray[np.bool_], most: int) -> tuple[NDArray[np.int64], int]:
    """Indices of the most recent usable rows in time order (equal times keep the file's), and how many rows
    stood after a later one."""
    rows = np.flatnonzero(usable_N)
    when = np.asarray(stamp_N.cast(pa.int64()).take(pa.array(rows)))
    late = int((when < np.maximum.accumulate(when)).sum()) if len(when) else 0
    return rows[np.argsort(when, kind="stable")][-most:], late


def need_rows(
    rows: NDArray[Any], source: Source, quarantine: pa.Table, left_out: Mapping[str, int] | None = None
) -> None:
    """Raises SourceError where there is no row; `left_out` tells how many were for which reason."""
    if len(rows):
        return
    why = "".join(f"; {count:,} are {what}" for what, count in (left_out or {}).items())
    why += f"; the first: row {quarantine['row'][0]}: {quarantine['reason'][0]}" if len(quarantine) else ""
    raise SourceError(f"{source.name}: none of {len(source)} rows can be used{why}")


def facts(
    source: Source, options: Options, roles: Roles, seed: int, quarantine: pa.Table, **more: Any
) -> dict[str, Any]:
    """What a manifest says of an import; `more` adds to it, empty values aside."""
    told: dict[str, Any] = {
        "source": list(source.files),
        "fingerprint": source.digest,
        "options": {"mapping": options.mapping, "exclude": list(options.exclude), "client": options.client},
        "seed": seed,
        "rows": len(source) + len(source.rejects),
        "rejected": len(quarantine),
        "notes": [*source.notes, *roles.notes, *doubts(source, roles), *more.pop("notes", [])],
    }
    return {**told, **{key: value for key, value in more.items() if value}}


def catalogue_lists(rows: int, item_ids: pa.Array) -> pa.Array:
    """Every item as the candidates of every row; null (which means the same) for a large catalogue."""
    k = len(item_ids)
    if k > MOST_LISTED_ITEMS:
        return pa.nulls(rows, pa.list_(pa.string()))
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * k)
    return pa.ListArray.from_arrays(offsets, item_ids.take(pa.array(np.tile(np.arange(k), rows))))


def row_ids(source: Source) -> pa.Array:
    """`row-7`, or `2/row-7` in the second of several files."""
    numbers = np.char.add("row-", source.row_N.astype(str))
    if len(source.files) > 1:
        numbers = np.char.add(np.char.add((source.file_N + 1).astype(str), "/"), numbers)
    return pa.array(numbers, pa.string())


def row_seconds(rows: int) -> pa.Array:
    """Row order as time: one second a row from 1970 on."""
    return pa.array(np.arange(rows) * 1_000_000, pa.int64()).cast(STAMP)
