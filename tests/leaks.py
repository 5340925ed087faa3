"""What a training reads, and data sets in which what it must not read is another: what then differs is a leak."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from actors.features.features import Ints
from actors.generator.serialise import Serialiser
from actors.generator.tasks import Logged, Tasks, build
from actors.generator.train import Reading, read
from cluster.config import Settings
from cluster.records import Dataset, decode, encode
from tests.compose_cases import changed
from tune.groundwork import Groundwork

Facts = dict[str, Any]
SHUFFLED = ("item_id", "candidates", "propensity")


def altered(dataset: Dataset, rows: Ints, seed: int, contexts: Ints | None = None) -> Dataset:
    """The data set with other items and rewards in these rows, and other contexts (in these of them alone, if given).

    Who acts and when stays: it is what splits the data.
    """
    rng, events = np.random.default_rng(seed), dataset.events
    columns: Facts = {}
    mixed = np.arange(len(events))
    mixed[rows] = rng.permutation(rows)
    for name in SHUFFLED:
        columns[name] = events[name].take(pa.array(mixed)).combine_chunks()
    reward, context = events["reward"].to_pylist(), events["context"].to_pylist()
    for row in rows:
        reward[row] = 1.0 - reward[row] if rng.random() < 0.5 else reward[row]
    for row in rows if contexts is None else contexts:
        context[row] = encode(decode(context[row]) | {"hour": int(rng.integers(100, 900)), "weather": "storm"})
    return changed(dataset, **columns, reward=reward, context=context)


def reading(dataset: Dataset, settings: Settings) -> Facts:
    """All that the generator's training on *fit* and *stop* reads, and the feature map's statistics, by name."""
    work = Groundwork.of(dataset, settings)
    found: Reading = read(dataset, work.feature_map, work.split.fit, work.split.stop, settings)
    return {
        "features": work.feature_map.fingerprint,
        "serialiser": found.serialiser,
        "phi": found.logged.phi_ND,
        "reward": found.logged.reward_N,
        **{f"fit {name}": value for name, value in vars(found.fit).items()},
        **{f"stop {name}": value for name, value in vars(found.stop).items()},
    }


def situations(tasks: Tasks) -> Facts:
    """What stands for a user before anything is known of what the user does."""
    return {"texts": tasks.texts, "context_UX": tasks.context_UX}


def told(dataset: Dataset, rows: Ints, work: Groundwork, serialiser: Serialiser) -> Tasks:
    logged = Logged.of(dataset, rows, work.feature_map, 0.0, 1.0)
    return build(dataset, logged, serialiser, limit=64, most=10_000, seed=0)


def differing(one: Facts, other: Facts) -> set[str]:
    """Names of what is not bit for bit the same."""
    assert one.keys() == other.keys()
    return {name for name, value in one.items() if not _same(value, other[name])}


def leaks(read: Callable[[Dataset], Facts], dataset: Dataset, other: Dataset) -> set[str]:
    """Names of what `read` finds otherwise where only what it must not look at is another."""
    return differing(read(dataset), read(other))


def _same(one: Any, other: Any) -> bool:
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else bool(one == other)
