"""Numbers that a reward model sees, of its own choice: not the feature map that the models under test use.

Numeric values become quantile bins, other values the levels that are frequent, lists bags of their members.

Shapes: N rows, I items, X columns of a context, G numbers of an item, D of either block.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from actors.features.features import Floats
from cluster.records import Dataset

BINS, LEVELS, COLUMNS = 8, 16, 256


@dataclass
class Column:
    """The cells of one named column, sparse: rows_N with their JSON texts."""

    rows: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def contexts(dataset: Dataset, events: pa.Table) -> Floats:
    """Context, logged position and the user's attributes of each event as indicator columns, (N, X)."""
    return indicators(told(dataset, events), len(events))


def told(dataset: Dataset, events: pa.Table) -> dict[str, Column]:
    """Context, logged position and the user's attributes (`user.` before the name) of each event."""
    columns = _maps(events["context"], range(len(events)))
    placed = np.flatnonzero(events["position"].is_valid()).tolist()
    if placed and "position" not in columns:
        columns["position"] = Column(placed, [str(place) for place in events["position"].drop_null().to_pylist()])
    if len(dataset.users):
        place = {user: row for row, user in enumerate(dataset.users["user_id"].to_pylist())}
        known = [(row, place[u]) for row, u in enumerate(events["user_id"].to_pylist()) if u in place]
        attributes = dataset.users["attributes"].take(pa.array([user for _, user in known], pa.int64()))
        for name, column in _maps(attributes, [row for row, _ in known]).items():
            columns[f"user.{name}"] = column
    return columns


def items(table: pa.Table) -> Floats:
    """Provider, price, category, brand and attributes of each item as indicator columns, (I, G)."""
    columns = _maps(table["attributes"], range(len(table)))
    for name in ("provider_id", "price", "category", "brand"):
        rows = [row for row, value in enumerate(table[name].to_pylist()) if value is not None]
        texts = [json.dumps(table[name][row].as_py()) for row in rows]
        columns[f"item.{name}"] = Column(rows, texts)
    if table["embedding"].null_count == 0 and len(table):
        vectors = np.asarray(table["embedding"].to_pylist(), dtype=np.float64)
        return np.hstack([indicators(columns, len(table)), vectors])
    return indicators(columns, len(table))


def indicators(columns: dict[str, Column], rows: int) -> Floats:
    """Centred indicator columns, the most frequent `COLUMNS` of them, (rows, D)."""
    blocks = [block for name in sorted(columns) for block in _expand(columns[name], rows)]
    if not blocks or not rows:
        return np.zeros((rows, 0))
    table = np.stack(blocks, axis=1)
    share = table.mean(0)
    keep = np.flatnonzero((share > 0) & (share < 1))
    keep = np.sort(keep[np.argsort(-share[keep] * (1 - share[keep]), kind="stable")[:COLUMNS]])
    return np.asarray(table[:, keep] - share[keep])


def compress(table: Floats, rank: int) -> Floats:
    """The leading `rank` principal components, each of unit variance, (rows, <= rank)."""
    if not table.size:
        return np.zeros((len(table), 0))
    values, vectors = np.linalg.eigh(table.T @ table / len(table))
    keep = np.flatnonzero(values > 1e-9 * max(values[-1], 1e-30))[::-1][:rank]
    return np.asarray(table @ (vectors[:, keep] / np.sqrt(values[keep])))


def _maps(column: pa.ChunkedArray, rows: Iterable[int]) -> dict[str, Column]:
    columns: dict[str, Column] = {}
    for row, pairs in zip(rows, column.to_pylist(), strict=True):
        for key, text in pairs or []:
            if text is not None and text != "null":
                cells = columns.setdefault(key, Column())
                cells.rows.append(row)
                cells.texts.append(text)
    return columns


def _expand(column: Column, rows: int) -> list[Floats]:
    values = [value_of(text) for text in column.texts]
    at = np.asarray(column.rows, dtype=np.int64)
    numeric = bool(values) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if numeric and len(set(values)) > LEVELS:
        numbers = np.asarray(values, dtype=np.float64)
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)[1:-1]))
        bins = np.searchsorted(edges, numbers, side="right")
        return [_mark(at[bins == b], rows) for b in range(len(edges) + 1)]
    bags = [value if isinstance(value, list) else [value] for value in values]
    counts = Counter(str(member) for bag in bags for member in set(map(str, bag)))
    found: dict[str, list[int]] = {name: [] for name, _ in sorted(counts.items(), key=lambda c: (-c[1], c[0]))[:LEVELS]}
    for row, bag in zip(column.rows, bags, strict=True):
        for member in set(map(str, bag)) & found.keys():
            found[member].append(row)
    return [_mark(np.asarray(places, dtype=np.int64), rows) for places in found.values()]


def _mark(at: Any, rows: int) -> Floats:
    marked = np.zeros(rows)
    marked[at] = 1.0
    return marked


def value_of(text: str) -> Any:
    """A cell: JSON where it is, else the text itself (attributes may hold plain text)."""
    try:
        return json.loads(text)
    except ValueError:
        return text
