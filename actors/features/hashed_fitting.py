"""Which levels are hashed and what their buckets are called.

Shapes: Q item axes, W buckets, U users.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from actors.features.catalogue import item_table
from actors.features.columns import Table, attribute_table, context_table, level_of, number_of
from actors.features.fitted import Fitted
from actors.features.hashed import Hashed, item_levels, levels, on_axes, pad, places, tokens
from actors.features.keys import key
from actors.features.recent import RECENT
from cluster.records import Dataset


def fit_hashed(base: Fitted, names: Sequence[str], dataset: Dataset, events: pa.Table, width: int) -> Hashed | None:
    """Buckets for levels of these events, of their users and, in a joint map, of the items; None where all are known.

    Args:
        base: the map so far. names: those of its features; a level among them has no bucket.
        width: W.
    """
    contexts, of_users = context_table(events["context"]), user_levels(base, dataset.users, events)
    known = frozenset(name for name in names if "=" in name)
    aside = frozenset() if base.encoder else known
    own = {user: hashes for user, named in of_users.items() if (hashes := tokens(named, aside))}
    made = Hashed(
        columns=hashable(contexts, {*base.context.reader.number_names, RECENT}),
        item_columns=hashable(item_table(dataset.items), set(base.encoder.reader.number_names)) if base.encoder else (),
        known=tuple(sorted(aside)),
        known_items=tuple(sorted(known - aside)),
        labels=("",) * width,
        users=tuple(own),
        user_UT=pad([*own.values(), []]),
        item_IT=np.zeros((1, 0), np.uint64),
    )
    counts = _counts(made.columns, contexts, events, of_users)
    counts = {level: count for level, count in counts.items() if level not in aside}
    if base.joint is None:
        return replace(made, labels=labels(counts, [], 0, width)) if counts else None
    axes = int(base.joint.item_VQ.shape[1])
    counts = counts if axes else {}
    catalogue = {level for named in item_levels(dataset.items, made.item_columns) for level in named} - known
    made = replace(made, labels=labels(counts, sorted(catalogue), axes, width)).with_items(dataset.items)
    return made if counts or catalogue else None


def _counts(
    columns: Sequence[str], contexts: Table, events: pa.Table, of_users: Mapping[str, Sequence[str]]
) -> dict[str, int]:
    """How many of these events have each level, of context and user."""
    users = Counter(name for name in events["user_id"].to_pylist() if name)
    counts = Counter({f"user={name}": count for name, count in users.items()})
    for name, count in users.items():
        counts.update(dict.fromkeys(of_users.get(name, ()), count))
    for name in columns:
        index_B, values = contexts[name]
        for value, count in zip(values, np.bincount(index_B[index_B >= 0], minlength=len(values)), strict=True):
            counts.update(dict.fromkeys(levels(name, value), int(count)))
    return dict(counts)


def hashable(table: Table, without: set[str]) -> tuple[str, ...]:
    """Columns that name levels, at least two, not all of them numbers."""
    found = []
    for name in sorted(set(table) - without):
        index_B, values = table[name]
        present = [values[index] for index in np.unique(index_B[index_B >= 0])]
        parts = [part for value in present for part in (value if isinstance(value, list) else [value])]
        texts = {level_of(part) for part in parts} - {None}
        if len(texts) > 1 and any(math.isnan(number_of(text)) for text in texts):
            found.append(name)
    return tuple(found)


def user_levels(base: Fitted, users: pa.Table, events: pa.Table) -> dict[str, list[str]]:
    """`user.column=level` of every user in the table, in the columns that tell the users of these events apart."""
    ids = users["user_id"].to_pylist()
    table = attribute_table(users["attributes"])
    present = set(events["user_id"].to_pylist())
    shown_U = np.array([name in present for name in ids], np.bool_)
    shown = {name: (index_U[shown_U], values) for name, (index_U, values) in table.items()}
    found: dict[str, list[str]] = {name: [] for name in ids}
    for column in hashable(shown, set(base.context.users.reader.number_names)):
        index_U, values = table[column]
        for name, index in zip(ids, index_U.tolist(), strict=True):
            found[name] += levels(f"user.{column}", values[index]) if index >= 0 else []
    return {name: own for name, own in found.items() if own}


def labels(counts: Mapping[str, int], of_items: Sequence[str], axes: int, width: int) -> tuple[str, ...]:
    """Each bucket by the commonest level in it and the number of others, as `city=Rome +3`."""
    tokens_T = np.array([key(level) for level in counts], np.uint64)
    crossed_QT = on_axes(tokens_T[None], axes)[0] if axes else tokens_T[None]
    marks = [f"×item[{q}]" for q in range(axes)] or [""]
    named = [(-count, level + mark) for mark in marks for level, count in counts.items()]
    named += [(-1, level) for level in of_items]
    whole = np.concatenate([crossed_QT.ravel(), np.array([key(level) for level in of_items], np.uint64)])
    held: list[list[tuple[int, str]]] = [[] for _ in range(width)]
    for pair, bucket in zip(named, places(whole, width)[0].tolist(), strict=True):
        held[bucket].append(pair)
    return tuple(_label(w, pairs) for w, pairs in enumerate(held))


def _label(bucket: int, pairs: list[tuple[int, str]]) -> str:
    if not pairs:
        return f"hash[{bucket}]"
    more = f" +{len(pairs) - 1}" if len(pairs) > 1 else ""
    return min(pairs)[1] + more
