"""The vector store: filtered search against FAISS's HNSW and hnswlib, changes per second, start-up with a million.

    python -m benchmarks.content [--quick] [--data FILE] [--folder FOLDER]

filtered_qps, faiss_hnsw_bitmap   queries/s, one a call, 10 neighbours of 50,000 entries x 64, where a filter by item
    keeps 1 % of them. Ours is `Store.search`: scope, filter, and answers by item id. The peers answer with row numbers.
qps_<data>_<kept>   the same for each data set and filter, against the fastest peer: FAISS HNSW (M 32, construction 200)
    with IDSelectorBitmap, and hnswlib with the same two numbers and its filter, a Python function. `kept` 100 is no
    filter. `batch_` is 500 queries a call.
worst_qps, best peer   the least ratio among those with one query a call and a filter of 50, 10 or 1 %.

Every peer is given the least `ef` of a grid with which its recall is 0.99 or more, and has its filter made before the
timed loop, as ours is. `recall` of each measure is ours, then the peer's, against exact answers; ours is not tuned,
it sets itself what it looks into. Where no `ef` up to 4,096 reaches 0.99, the peer runs with 4,096. Data: `products`,
500 groups around random centres, and `sphere`, uniform, the worst that an index can be given. One thread, the process's
CPU seconds, ours and the peers in turn; `interval` is the least and greatest ratio of the repeats.

adds_, updates_, deletes_per_s   durable changes per second of the clock, 100 a commit, and feedback_per_s: one reward a
    commit, each on the disk before the next. Two spaces are kept up to date, and the cells of the larger.
start_up_s_million   seconds from the start of a new process to its first answer from a store of a million entries x 64
    of 1,000 providers in 10 clusters, imports included (import_s). checkpoint_s_million: writing its snapshot, with all
    its cells fitted for the first time, and again without fitting.

--data takes a Parquet file with a column `embedding` (lists of equal length) in place of the two data sets.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import faiss
import hnswlib
import numpy as np
import pyarrow.parquet as pq
from rich.progress import track
from rich.table import Column, Table

from actors.content.vectors.entry import Change, Delete, Entry, Feedback, Filter, Put, Vectors
from actors.content.vectors.store import Store
from benchmarks._pairs import CONSOLE, Measure, rounded

WIDTH, K, QUERIES, PROVIDERS = 64, 10, 500, 100
GRID = (10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
KEPT = (100, 50, 10, 1)
GOAL = 0.99


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="12,000 entries of `products`, and 50,000 in place of a million"
    )
    parser.add_argument("--data", type=Path, help="Parquet file with a column `embedding`")
    parser.add_argument("--folder", type=Path, help="where stores lie; default: the folder for temporary files")
    arguments = parser.parse_args()
    count, repeats, million = (12_000, 3, 50_000) if arguments.quick else (50_000, 5, 1_000_000)
    faiss.omp_set_num_threads(1)
    sets = (
        {"data": of_file(arguments.data)} if arguments.data else {"products": products(count), "sphere": sphere(count)}
    )
    rows = []
    with tempfile.TemporaryDirectory(prefix="medley-bench-", dir=arguments.folder) as folder:
        for name, (vectors_NE, query_QE) in sets.items():
            rows += searches(Path(folder) / name, name, vectors_NE, query_QE, repeats)
        found = changes(Path(folder) / "changes", products(count)[0]) | start_up(Path(folder) / "million", million)
    table = Table(
        Column("search", no_wrap=True), "ours/s", "recall", "peer/s", "recall", "peer", "ratio", title="content"
    )
    for row in rows:
        m, (ours, peer) = row.measure, row.recall
        rate = f"{m.ours:,.0f}", f"{ours:.3f}", f"{m.peer:,.0f}", f"{peer:.3f}"
        table.add_row(m.name, *rate, m.peer_name, f"{m.ratio:.1f}")
    CONSOLE.print(table)
    for name, (value, unit) in found.items():
        CONSOLE.print(f"{name}: {value:,.2f} {unit}", highlight=False)
    measures = [asdict(row.measure) | {"recall": row.recall} for row in headlines(rows, next(iter(sets)))]
    measures += [{"name": name, "ours": value, "unit": unit} for name, (value, unit) in found.items()]
    print(json.dumps({"benchmark": "content", "measures": [rounded(measure) for measure in measures]}))


@dataclass(frozen=True)
class Row:
    measure: Measure
    recall: tuple[float, float]
    kept: int


def headlines(rows: Sequence[Row], first: str) -> list[Row]:
    """The two that have goals, then all."""
    one = next(row for row in rows if row.measure.name == f"hnsw_{first}_1")
    single = [row for row in rows if row.measure.name.startswith("qps_") and row.kept < 100]
    worst = min(single, key=lambda row: row.measure.ratio)
    named = [("filtered_qps", one.measure.peer_name, one)]
    named.append(("worst_qps", f"{worst.measure.peer_name} ({worst.measure.name})", worst))
    renamed = [
        Row(Measure(**{**asdict(row.measure), "name": name, "peer_name": peer}), row.recall, row.kept)
        for name, peer, row in named
    ]
    return [*renamed, *rows]


def products(count: int) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(0)
    centre_GE = unit(rng.normal(size=(500, WIDTH)))
    total = count + QUERIES
    found_NE = unit(centre_GE[rng.integers(0, 500, total)] + 0.0625 * rng.normal(size=(total, WIDTH)))
    return found_NE[:count], found_NE[count:]


def sphere(count: int) -> tuple[Vectors, Vectors]:
    found_NE = unit(np.random.default_rng(1).normal(size=(count + QUERIES, WIDTH)))
    return found_NE[:count], found_NE[count:]


def of_file(path: Path) -> tuple[Vectors, Vectors]:
    rows = pq.read_table(path, columns=["embedding"])["embedding"].drop_null().to_pylist()
    found_NE = unit(np.random.default_rng(0).permutation(np.array(rows, np.float32)))
    return found_NE[:-QUERIES], found_NE[-QUERIES:]


def unit(vectors_NE: Any) -> Vectors:
    found: Vectors = (vectors_NE / np.linalg.norm(vectors_NE, axis=1, keepdims=True)).astype(np.float32)
    return np.ascontiguousarray(found)


Search = Callable[[Vectors], Any]
"""Queries (Q, E) -> rows (Q, K) of the neighbours."""


class Ours:
    def __init__(self, folder: Path, vectors_NE: Vectors) -> None:
        self.store = Store(folder, vectors_NE.shape[1])
        for part in np.array_split(np.arange(len(vectors_NE)), max(1, len(vectors_NE) // 5_000)):
            self.store.commit([Put(entry(n, vectors_NE[n], PROVIDERS, 1)) for n in part.tolist()])
        self.store.checkpoint()

    def search(self, kept_N: Any, query_QE: Vectors, truth_QK: Any) -> Search:
        where = None if kept_N.all() else Filter([f"i{n}" for n in np.flatnonzero(kept_N)])
        return lambda part_QE: [found.item_ids for found in self.store.search(part_QE, K, "c0", where=where)]


class Faiss:
    name = "faiss_hnsw_bitmap"

    def __init__(self, vectors_NE: Vectors) -> None:
        self.index = faiss.IndexHNSWFlat(vectors_NE.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = 200
        self.index.add(vectors_NE)

    def search(self, kept_N: Any, query_QE: Vectors, truth_QK: Any) -> Search:
        chosen = {} if kept_N.all() else {"sel": faiss.IDSelectorBitmap(np.packbits(kept_N, bitorder="little"))}

        def with_ef(ef: int) -> Search:
            given = faiss.SearchParametersHNSW(efSearch=ef, **chosen)
            return lambda part_QE: self.index.search(part_QE, K, params=given)[1]

        return with_ef(least(with_ef, query_QE, truth_QK))


class Hnswlib:
    name = "hnswlib"

    def __init__(self, vectors_NE: Vectors) -> None:
        self.index = hnswlib.Index("ip", vectors_NE.shape[1])
        self.index.init_index(len(vectors_NE), M=32, ef_construction=200)
        self.index.add_items(vectors_NE, num_threads=1)

    def search(self, kept_N: Any, query_QE: Vectors, truth_QK: Any) -> Search:
        kept = kept_N.tolist()
        allowed = None if kept_N.all() else kept.__getitem__

        def with_ef(ef: int) -> Search:
            def search(part_QE: Vectors) -> Any:
                self.index.set_ef(ef)
                return self.index.knn_query(part_QE, K, num_threads=1, filter=allowed)[0]

            return search

        return with_ef(least(with_ef, query_QE, truth_QK))


def least(with_ef: Callable[[int], Search], query_QE: Vectors, truth_QK: Any) -> int:
    some = slice(0, 200)
    return next((ef for ef in GRID if recall(with_ef(ef)(query_QE[some]), truth_QK[some]) >= GOAL), GRID[-1])


def recall(found: Any, truth_QK: Any) -> float:
    rows = [[int(n[1:]) if isinstance(n, str) else int(n) for n in row] for row in found]
    return statistics.mean(len({*a} & {*b}) / len(b) for a, b in zip(rows, truth_QK.tolist(), strict=True))


def searches(folder: Path, name: str, vectors_NE: Vectors, query_QE: Vectors, repeats: int) -> list[Row]:
    with CONSOLE.status(f"{name}: {len(vectors_NE):,} entries, ours"):
        ours = Ours(folder, vectors_NE)
    peers: list[Any] = []
    for peer in (Faiss, Hnswlib):
        with CONSOLE.status(f"{name}: {peer.name} is built"):
            peers.append(peer(vectors_NE))
    rows: list[Row] = []
    for kept in track(KEPT, f"{name}: searches", console=CONSOLE, transient=True):
        kept_N = np.random.default_rng(kept).random(len(vectors_NE)) < kept / 100
        truth_QK = np.flatnonzero(kept_N)[np.argsort(-(query_QE @ vectors_NE[kept_N].T), 1)[:, :K]]
        sides = [side.search(kept_N, query_QE, truth_QK) for side in (ours, *peers)]
        recalls = [recall(side(query_QE), truth_QK) for side in sides]
        for form, size in (("qps", 1), ("batch", len(query_QE))):
            rates = [[rate(side, query_QE, size) for side in sides] for _ in range(repeats)]
            best = 1 + int(np.argmax([statistics.median(r[1 + n] for r in rates) for n in range(len(peers))]))
            rows.append(row(f"{form}_{name}_{kept}", kept, peers[best - 1].name, rates, best, recalls))
            if form == "qps":
                rows.append(row(f"hnsw_{name}_{kept}", kept, Faiss.name, rates, 1, recalls))
    ours.store.close()
    return rows


def row(name: str, kept: int, peer: str, rates: list[list[float]], place: int, recalls: list[float]) -> Row:
    ratios = [found[0] / found[place] for found in rates]
    ours, theirs = (statistics.median(found[n] for found in rates) for n in (0, place))
    measure = Measure(name, ours, theirs, peer, statistics.median(ratios), (min(ratios), max(ratios)), "queries/s")
    return Row(measure, (recalls[0], recalls[place]), kept)


def rate(search: Search, query_QE: Vectors, size: int) -> float:
    """Queries/s, in a third of a second or one pass over the queries, whichever is longer for one a call."""
    done, start = 0, time.process_time()
    while True:
        for first in range(0, len(query_QE), size):
            search(query_QE[first : first + size])
            done += min(size, len(query_QE) - first)
            took = time.process_time() - start
            if took > 0.3 and done >= 20:
                return done / took


def entry(number: int, vector_E: Vectors, providers: int, clusters: int) -> Entry:
    provider = number % providers
    weights = {f"cluster/c{provider % clusters}": 0.5, f"provider/p{provider}": 0.3, "pooled": 0.2}
    return Entry(f"i{number}", f"p{provider}", f"c{provider % clusters}", vector_E, weights)


def changes(folder: Path, vectors_NE: Vectors) -> dict[str, tuple[float, str]]:
    """Changes per second to a store that has half of these entries, cells and all."""
    half = len(vectors_NE) // 2
    made = [entry(n, vector_E, PROVIDERS, 1) for n, vector_E in enumerate(vectors_NE)]
    with CONSOLE.status("changes"), Store(folder, vectors_NE.shape[1]) as store:
        for first in range(0, half, 5_000):
            store.commit([Put(e) for e in made[first : min(first + 5_000, half)]])
        store.checkpoint()
        some = min(half, 5_000)
        new: list[Change] = [Put(e) for e in made[half : half + some]]
        moved: list[Change] = [Put(entry(n, made[-1 - n].embedding_E, PROVIDERS, 1)) for n in range(some)]
        gone: list[Change] = [Delete(made[n].item_id) for n in range(some)]
        rewards: list[Change] = [Feedback(made[half + n], "click", 1.0) for n in range(200)]
        plan = {"adds_per_s": (new, 100), "updates_per_s": (moved, 100), "feedback_per_s": (rewards, 1)}
        plan |= {"feedback_100_per_s": (rewards * 10, 100), "deletes_per_s": (gone, 100)}
        found = {}
        for name, (todo, size) in plan.items():
            start = time.perf_counter()
            for first in range(0, len(todo), size):
                store.commit(todo[first : first + size])
            found[name] = (len(todo) / (time.perf_counter() - start), "changes/s")
    return found


def start_up(folder: Path, count: int) -> dict[str, tuple[float, str]]:
    found = {}
    with Store(folder, WIDTH) as store:
        rng = np.random.default_rng(2)
        centre_GE = unit(rng.normal(size=(5_000, WIDTH)))
        for first in track(range(0, count, 10_000), f"{count:,} entries", console=CONSOLE, transient=True):
            near_NE = unit(centre_GE[rng.integers(0, 5_000, 10_000)] + 0.0625 * rng.normal(size=(10_000, WIDTH)))
            store.commit([Put(entry(first + n, vector_E, 1_000, 10)) for n, vector_E in enumerate(near_NE)])
        for name in ("checkpoint_fitting_s_million", "checkpoint_s_million"):
            with CONSOLE.status(name):
                start = time.perf_counter()
                store.checkpoint()
                found[name] = (time.perf_counter() - start, "s")
        query_QE = near_NE[:4]
        expected = [answer.item_ids for answer in store.search(query_QE, K, "c1", "p1")]
    np.save(folder.with_suffix(".npy"), query_QE)
    bytes_ = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for name, module in (
        ("import_s", "actors.content.vectors.store"),
        ("start_up_s_million", "benchmarks._content_process"),
    ):
        words = [sys.executable, "-m", module, str(folder), str(WIDTH), str(K), *expected[0]]
        start = time.perf_counter()
        done = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ)
        found[name] = (time.perf_counter() - start, "s")
    facts = json.loads(done.stdout)
    found["open_s_million"] = (facts["open_s"], "s")
    found["memory_million"] = (facts["memory"] / 2**20, "MiB")
    found["disk_bytes_per_entry"] = (bytes_ / count, "bytes")
    return found


if __name__ == "__main__":
    main()
