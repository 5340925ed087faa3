"""Small data sets for the tests of the feature map."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.records import EVENTS, ITEMS, USERS, Dataset, Value, encode

WORDS = ["lamp", "red", "blue", "metal", "wood", "heart", "star", "bag", "box", "tea", "cup", "green", "vintage"]


def table(schema: pa.Schema, rows: int, **columns: Any) -> pa.Table:
    """A table of this schema; columns that are not given are null."""
    return pa.table({f.name: columns.get(f.name, [None] * rows) for f in schema}, schema=schema)


def events_of(
    contexts: Sequence[dict[str, Value]],
    actions: Sequence[str],
    rewards: Sequence[float],
    candidates: Sequence[list[str] | None],
    users: Sequence[str | None] | None = None,
) -> pa.Table:
    n = len(contexts)
    start = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    return table(
        EVENTS,
        n,
        event_id=[f"e{i}" for i in range(n)],
        timestamp=[start + dt.timedelta(seconds=i) for i in range(n)],
        client_id=["c"] * n,
        user_id=users or [None] * n,
        context=[encode(context) for context in contexts],
        candidates=list(candidates),
        item_id=list(actions),
        reward=list(rewards),
        reward_kind=["reward"] * n,
    )


def shop(rows: int = 600, items: int = 30, users: int = 40, k: int = 6, seed: int = 0) -> Dataset:
    """Items with every kind of column, users with attributes, contexts with recent items."""
    rng = np.random.default_rng(seed)
    ids = [f"i{i}" for i in range(items)]
    catalogue = table(
        ITEMS,
        items,
        item_id=ids,
        provider_id=[f"p{i % 3}" for i in range(items)],
        title=[" ".join(rng.choice(WORDS, 4)) for _ in ids],
        price=[None if i == 3 else float(rng.lognormal(1, 1)) for i in range(items)],
        category=[None if i == 4 else f"k{i % 5}" for i in range(items)],
        brand=[f"b{i % 7}" for i in range(items)],
        embedding=[None if i == 5 else rng.normal(size=8).astype(np.float32).tolist() for i in range(items)],
        attributes=[[("weight", f"{rng.normal():.3f}"), ("style", str(rng.choice(["a", "b"])))] for _ in ids],
    )
    people = table(
        USERS,
        users,
        user_id=[f"u{u}" for u in range(users)],
        client_id=["c"] * users,
        attributes=[[("age", str(20 + u)), ("region", '"north"' if u % 2 else '"south"')] for u in range(users)],
    )
    contexts, actions, rewards, candidates, names = [], [], [], [], []
    for i in range(rows):
        recent = [ids[j] for j in rng.integers(0, items, int(rng.integers(0, 8)))]
        contexts.append(
            {"device": str(rng.choice(["mobile", "desktop"])), "hour": int(rng.integers(24)),
             "spent": float(rng.lognormal(0, 2)), "member": bool(rng.random() < 0.3), "recent": recent}
        )  # fmt: skip
        candidates.append(None if i % 50 == 7 else [ids[j] for j in rng.choice(items, k - i % 2, replace=False)])
        actions.append((candidates[-1] or ids)[0])
        names.append(None if i % 11 == 0 else f"u{rng.integers(users)}")
        rewards.append(float(rng.random() < 0.1 + 0.5 * (actions[-1] in recent)))
    return Dataset("feedback", events_of(contexts, actions, rewards, candidates, names), catalogue, people)


def labelled(rows: int = 900, seed: int = 0) -> Dataset:
    """Three arms; the best one turns on `x` and on `shape`; uniform actions."""
    rng = np.random.default_rng(seed)
    labels = ["a", "b", "c"]
    contexts, actions, rewards = [], [], []
    for _ in range(rows):
        x, shape = float(rng.normal()), str(rng.choice(["round", "square", "flat"]))
        best = "c" if shape == "flat" else "a" if x > 0 else "b"
        contexts.append({"x": x, "shape": shape, "noise": int(rng.integers(100))})
        actions.append(str(rng.choice(labels)))
        rewards.append(float(actions[-1] == best))
    events = events_of(contexts, actions, rewards, [labels] * rows)
    return Dataset("table", events, table(ITEMS, 3, item_id=labels), table(USERS, 0))
