"""Decisions on a whole catalogue of a thousand to a million items: what size costs, and what scoring a part loses.

Ten models (uniform, popularity, eight linear ones), 64 features with crosses of context and item, contexts with
recent items, `items: null`, one slot, journal on. Up to `serve.retrieve_above` items all are scored, beyond that
what is retrieved. Models are fitted on a marketplace of 1,000 items; the catalogues are of the same kind.

- p50_million: median milliseconds of a call over HTTP (our gateway under uvicorn, one connection) at the greatest
  size, against the same at a thousand. Through Ray Serve both take the ingress more, so their ratio is smaller.
- decide_million: the same of `Engine.decide` alone, CPU milliseconds.
- value_kept: mean predicted reward of the law on the retrieved part, against the law on all of 20,000 items, both above
  the mean item; `interval` is the range of five batches.

    python -m benchmarks.catalogue [--quick]

--quick goes to 30,000 items.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import numpy as np
import psutil

from actors.bandits import law
from actors.bandits.version import Version
from benchmarks._catalogues import synthetic_items
from benchmarks._load import http, load
from benchmarks._pairs import CONSOLE, Measure, finish
from benchmarks._servers import settings_of, uvicorn_server
from benchmarks._ten_models import version
from cluster.config import DataSettings, ServeSettings
from cluster.database import Database, url_of
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.keys import Keys
from cluster.records import decode
from cluster.registry import DEFAULT_NAME, Registry
from serve.app import prepare
from serve.decide import Engine
from serve.decisions import current
from serve.decisions.catalogue import Large
from serve.deploy import free_port, wait_ready
from serve.messages import DecisionRequest

FEATURES, FITTED, CALLS, RECENT, MIDDLE = 64, 1_000, 200, 3, 20_000
LARGE = Large(ServeSettings().retrieve_above, ServeSettings().retrieve)


@dataclass(frozen=True)
class Figures:
    """Of one size: median milliseconds of a call, by repeat, CPU milliseconds of a decision, the server's bytes."""

    items: int
    http_ms: list[float]
    decide_ms: float
    resident_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="up to 30,000 items, one short repeat")
    quick = parser.parse_args().quick
    sizes, repeats, seconds = ((1_000, 30_000), 1, 1.5) if quick else ((1_000, 10_000, 100_000, 1_000_000), 5, 4.0)
    base, contexts = fitted()
    figures = measured(base, contexts, sizes, repeats, seconds)
    with CONSOLE.status("what a part keeps"):
        value = value_kept(grown(base, 5_000 if quick else MIDDLE), contexts, 10 if quick else 40)
    finish("catalogue", [*compare(figures[0], figures[-1]), value])


def p50_million(quick: bool) -> Measure:
    """The greatest size against the least, as `main` has it."""
    sizes, repeats, seconds = ((1_000, 30_000), 1, 1.5) if quick else ((1_000, 1_000_000), 5, 4.0)
    return compare(*measured(*fitted(), sizes, repeats, seconds))[0]


def measured(
    base: Version, contexts: list[dict[str, Any]], sizes: tuple[int, ...], repeats: int, seconds: float
) -> list[Figures]:
    figures = []
    for items in sizes:
        with CONSOLE.status(f"{items:,} items"), tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
            figures.append(figures_of(Path(folder), grown(base, items), contexts, repeats, seconds))
        one = figures[-1]
        CONSOLE.print(
            f"{items:>9,} items: {statistics.median(one.http_ms):.2f} ms a call, {one.decide_ms:.2f} ms CPU inside, "
            f"{one.resident_bytes / 2**20:,.0f} MiB of the server"
        )
    return figures


def fitted() -> tuple[Version, list[dict[str, Any]]]:
    """Models of a marketplace, and contexts of its users without their recent items."""
    data = DataSettings(marketplace_users=500, marketplace_items=FITTED, marketplace_events=20_000)
    dataset = read_marketplace([], Options(), data, 0).dataset
    rows = dataset.events.slice(0, CALLS).to_pylist()
    contexts = [{"user_id": row["user_id"], "context": {**decode(row["context"]), "recent": []}} for row in rows]
    return version(dataset, FEATURES), contexts


def grown(base: Version, items: int) -> Version:
    table = synthetic_items(items, 0)
    return Version(base.feature_map.with_items(table), base.ensemble, table, base.facts)


def bodies_of(contexts: list[dict[str, Any]], items: int) -> list[dict[str, Any]]:
    """Requests whose recent items are drawn from the catalogue."""
    recent = np.random.default_rng(1).integers(0, items, (len(contexts), RECENT))
    return [
        {**body, "context": {**body["context"], "recent": [f"big-{n}" for n in own]}}
        for body, own in zip(contexts, recent.tolist(), strict=True)
    ]


def figures_of(home: Path, made: Version, contexts: list[dict[str, Any]], repeats: int, seconds: float) -> Figures:
    """Publish the version, load a server of it, and decide in this process."""
    items, port = len(made.items), free_port(8750)
    settings, bodies = settings_of(home, port, "default"), bodies_of(contexts, items)
    number = Registry(settings.registry_uri).publish(DEFAULT_NAME, made.save)
    prepare(settings)
    keys = Keys(Database(url_of(settings)))
    keys.create_client("bench")
    calls = [http("/v1/decisions", keys.create_key("bench"), {"requests": [body]}) for body in bodies]
    http_ms = []
    with server(home, port) as process:
        wait_ready(f"http://127.0.0.1:{port}", 600.0)
        asyncio.run(load("127.0.0.1", port, calls, 1, seconds / 2))  # warm
        for _ in range(repeats):
            found = asyncio.run(load("127.0.0.1", port, calls, 1, seconds))
            if found["failures"]:
                raise SystemExit(
                    f"{found['failures']} calls were not answered with 200; the figures would mean nothing"
                )
            http_ms.append(found["p50_ms"])
        resident = psutil.Process(process.pid).memory_info().rss
    return Figures(items, http_ms, decide_ms(number, made, bodies), resident)


@contextmanager
def server(home: Path, port: int) -> Iterator[Any]:
    process = multiprocessing.get_context("spawn").Process(target=uvicorn_server, args=(home, port))
    process.start()
    try:
        yield process
    finally:
        process.terminate()
        process.join()


def decide_ms(number: int, made: Version, bodies: list[dict[str, Any]]) -> float:
    """Median CPU milliseconds of `Engine.decide`."""
    engine = Engine()
    engine.install(current.load(number, made, LARGE))
    took = []
    for n, body in enumerate(bodies):
        request, start = DecisionRequest.model_validate(body), time.process_time()
        engine.decide("bench", request, f"D{n}")
        took.append(1e3 * (time.process_time() - start))
    return statistics.median(took)


def value_kept(made: Version, contexts: list[dict[str, Any]], decisions: int) -> Measure:
    """What the law on a part earns by the blended means, against the law on everything."""
    loaded = current.load(1, made, LARGE)
    retrieval, feature_map = loaded.catalogue.retrieval, made.feature_map
    assert retrieval is not None
    values = []
    for seed, body in enumerate(bodies_of(contexts, len(made.items))[:decisions]):
        context, user = body["context"], body["user_id"]
        rows = retrieval.rows(feature_map, loaded.published, context, user, None, seed, 1)
        names = [feature_map.item_ids[row] for row in rows]
        part = law.probabilities(loaded.published, feature_map.features(context, names, user), None, seed)
        features = feature_map.features(context, feature_map.item_ids, user)
        whole = law.probabilities(loaded.published, features, None, seed)
        mean = whole.mean_K.mean()
        values.append((part.pi_K @ part.mean_K - mean, whole.pi_K @ whole.mean_K - mean))
    batches = [np.mean(batch, axis=0) for batch in np.array_split(np.array(values), 5)]
    ours, peer = np.mean(values, axis=0).tolist()
    ratios = [float(one[0] / one[1]) for one in batches]
    unit = f"reward above the mean of {len(made.items):,} items"
    return Measure("value_kept", ours, peer, "scoring_everything", ours / peer, (min(ratios), max(ratios)), unit)


def compare(least: Figures, most: Figures) -> list[Measure]:
    """The greatest size against the least."""
    base = statistics.median(least.http_ms)
    ratios = [ms / base for ms in most.http_ms]
    middle = statistics.median(most.http_ms)
    one = Measure("p50_million", middle, base, "p50_thousand", middle / base, (min(ratios), max(ratios)), "ms")
    ratio = most.decide_ms / least.decide_ms
    two = Measure("decide_million", most.decide_ms, least.decide_ms, "decide_thousand", ratio, (ratio, ratio), "ms CPU")
    return [one, two]


if __name__ == "__main__":
    main()
