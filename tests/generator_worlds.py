"""Small worlds for the generator's tests: users of planted kinds, seen through a plain feature map."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from actors.features.features import FeatureBatch
from cluster.records import EVENTS, ITEMS, USERS, Dataset, decode, encode

KINDS = 4
ITEM_IDS = tuple(f"i{k}" for k in range(6))
COLOURS = ("red", "green", "blue", "black")


class OneHots:
    """φ = intercept and one-hot of the item; context features = intercept, one-hot of the colour, the age."""

    arms = 1
    dimension = 1 + len(ITEM_IDS)
    fingerprint = "f" * 64

    def batch(self, events: pa.Table) -> FeatureBatch:
        items = [row[0] for row in events["candidates"].to_pylist()]
        phi = np.zeros((len(items), 1, self.dimension))
        phi[:, 0, 0] = 1.0
        phi[np.arange(len(items)), 0, [1 + ITEM_IDS.index(i) for i in items]] = 1.0
        told = [decode(pairs) for pairs in events["context"].to_pylist()]
        context = np.zeros((len(items), 6))
        context[:, 0] = 1.0
        for b, values in enumerate(told):
            context[b, 1 + COLOURS.index(str(values["colour"]))] = 1.0
            context[b, 5] = float(values["age"]) / 50 - 1  # type: ignore[arg-type]
        nothing = np.zeros((len(items), 1), np.int64)
        return FeatureBatch(phi, nothing, nothing, nothing.astype(np.uint64), nothing == 0, context)


def planted(users: int, rows: int, seed: int, informative: bool = True) -> tuple[Dataset, list[int]]:
    """Users of four kinds, each liking its own items; with `informative` their colour tells the kind.

    Returns the dataset, and the kind of each user `u0`, `u1`, ...
    """
    rng = np.random.default_rng(seed)
    taste = np.array([[0.9, 0.8, 0.1, 0.1, 0.1, 0.5][-k:] + [0.9, 0.8, 0.1, 0.1, 0.1, 0.5][:-k] for k in range(4)])
    kinds = rng.integers(KINDS, size=users)
    events, start = [], datetime(2026, 1, 1, tzinfo=UTC)
    for n in range(users * rows):
        u = int(rng.integers(users))
        colour = COLOURS[kinds[u] if informative else u % 4]
        item = int(rng.integers(len(ITEM_IDS)))
        reward = float(rng.random() < taste[kinds[u], item])
        context = {"colour": colour, "age": 20 + u % 60, "recent": [ITEM_IDS[n % 6]]}
        events.append(
            (
                f"e{n}",
                start + timedelta(seconds=n),
                "c",
                f"u{u}",
                None,
                encode(context),
                None,
                ITEM_IDS[item],
                0,
                1 / 6,
                reward,
                "reward",
                None,
            )
        )
    columns = [pa.array(list(c), f.type) for c, f in zip(zip(*events, strict=True), EVENTS, strict=True)]
    items = ITEMS.empty_table().to_pydict()
    items |= {n: [None] * len(ITEM_IDS) for n in items}
    items |= {"item_id": list(ITEM_IDS), "title": [f"Lamp number {k}" for k in range(len(ITEM_IDS))]}
    table = pa.Table.from_pydict(items, schema=ITEMS)
    return Dataset("feedback", pa.table(columns, schema=EVENTS), table, USERS.empty_table()), list(kinds)


def halves(dataset: Dataset, share: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Event rows of the first users and of the rest."""
    users = np.array([int(u[1:]) for u in dataset.events["user_id"].to_pylist()])
    first = users < share * (users.max() + 1)
    return np.flatnonzero(first), np.flatnonzero(~first)
