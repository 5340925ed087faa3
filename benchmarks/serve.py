"""A decision over HTTP: our serving against Ray Serve's default, against a no-op on the same ingress, and uvicorn.

    python -m benchmarks.serve [--quick]

The work: one POST /v1/decisions of a marketplace user, from its JSON to the answer, with the API key checked, 10
models (uniform, popularity, eight linear ones) over the whole catalogue of 100 items at about 32 features, exact
propensities, the reasons, and the decision in the journal with `synchronous=FULL` before the answer leaves. The
learner follows. Servers run one after the other on the same machine, loaded by one client process over raw sockets.

rps_16, default_serve         requests/s over 16 connections: ours behind HAProxy as `serve.deploy` starts it, and the
    same application and handler on Ray Serve's default proxy.
rps_16_of_noop, noop_same_ingress   the same requests/s against a deployment on the same HAProxy that parses the same
    messages and answers an empty decision: what the ingress alone can do.
p50_ms_1, default_serve       median latency of one connection, ms (ratio: ours over the peer's, less is better).
batch64, default_serve        decisions/s over 4 connections with 64 requests in each call, against the decisions/s that
    the default proxy gives one by one over 16 connections (what a caller without batches gets).
p50_million, p50_thousand     median latency of one connection over the whole catalogue of a million items, against a
    thousand (with --quick 30,000), under uvicorn: see benchmarks.catalogue.
rps_16_of_uvicorn, fastapi_uvicorn   the same gateway in one uvicorn process without Ray Serve: what Serve's
    scaling, healing and rolling deploys cost.

`interval` is the least and the greatest ratio of the repeats, each against the peer's median.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
from benchmarks._pairs import CONSOLE, Measure, finish
from benchmarks._servers import settings_of
from benchmarks._ten_models import version
from benchmarks.catalogue import p50_million
from cluster.config import DataSettings
from cluster.database import Database, url_of
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.keys import Keys
from cluster.records import decode
from cluster.registry import DEFAULT_NAME, Registry
from serve.app import prepare
from serve.deploy import free_port

ITEMS, FEATURES, BODIES, BATCH = 100, 32, 200, 64
LOADS = {"one": (1, 1), "sixteen": (16, 1), "batch": (4, BATCH)}
"""Connections, and requests in a call."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repeat")
    quick = parser.parse_args().quick
    repeats, seconds = (1, 1.5) if quick else (5, 4.0)
    with tempfile.TemporaryDirectory(prefix="medley-bench-", ignore_cleanup_errors=True) as folder:
        home, port = Path(folder), free_port(8000)
        with CONSOLE.status("a version with 10 models"):
            bodies, key = make(home, port)
        found = run(home, port, bodies, key, repeats, seconds)
    failures = sum(one["failures"] for runs in found.values() for one in runs)
    if failures:
        raise SystemExit(f"{failures} requests were not answered with 200; the figures would mean nothing")
    finish("serve", [*measures(found), p50_million(quick)])


def make(home: Path, port: int) -> tuple[list[dict[str, Any]], str]:
    """Publish the version; returns requests of marketplace users and a client's key."""
    settings = settings_of(home, port, "haproxy")
    data = DataSettings(marketplace_users=500, marketplace_items=ITEMS, marketplace_events=4_000)
    dataset = read_marketplace([], Options(), data, 0).dataset
    made = version(dataset, FEATURES)
    Registry(settings.registry_uri).publish(DEFAULT_NAME, made.save)
    prepare(settings)
    keys = Keys(Database(url_of(settings)))
    keys.create_client("bench")
    rows = dataset.events.slice(0, BODIES).to_pylist()
    return [{"user_id": row["user_id"], "context": decode(row["context"])} for row in rows], keys.create_key("bench")


def run(
    home: Path, port: int, bodies: list[dict[str, Any]], key: str, repeats: int, seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """Load each server; "server/load" -> the client's figures, one per repeat."""
    found: dict[str, list[dict[str, Any]]] = {}
    with child("benchmarks._servers", str(home), str(port)) as servers, child("benchmarks._load") as client:

        def measure(server: str, load: str, path: str) -> None:
            connections, size = LOADS[load]
            calls = [{"requests": [bodies[(n + i) % BODIES] for i in range(size)]} for n in range(BODIES // size or 1)]
            task = {"host": "127.0.0.1", "port": port, "path": path, "key": key, "bodies": calls}
            with CONSOLE.status(f"{server}: {connections} connections, {size} in a call"):
                ask(client, task | {"connections": connections, "seconds": seconds / 2})  # warm
                for _ in range(repeats):
                    one = ask(client, task | {"connections": connections, "seconds": seconds})
                    one["per_s"] = one["requests"] * size / one["seconds"]
                    found.setdefault(f"{server}/{load}", []).append(one)

        for server in ("haproxy", "default", "uvicorn"):
            with CONSOLE.status(f"starting {server}"):
                ask(servers, server)
            for load in LOADS:
                if server != "default" or load != "batch":
                    measure(server, load, "/v1/decisions")
            if server == "haproxy":
                measure("noop", "sixteen", "/noop/v1/decisions")
                measure("noop", "one", "/noop/v1/decisions")
    return found


def measures(found: dict[str, list[dict[str, Any]]]) -> list[Measure]:
    def compare(name: str, ours: str, peer: str, peer_name: str, field: str, unit: str) -> Measure:
        mine = [one[field] for one in found[ours]]
        theirs = statistics.median(one[field] for one in found[peer])
        ratios = [value / theirs for value in mine]
        middle = statistics.median(mine)
        return Measure(name, middle, theirs, peer_name, middle / theirs, (min(ratios), max(ratios)), unit)

    rate, latency = ("per_s", "decisions/s"), ("p50_ms", "ms")
    return [
        compare("rps_16", "haproxy/sixteen", "default/sixteen", "default_serve", *rate),
        compare("rps_16_of_noop", "haproxy/sixteen", "noop/sixteen", "noop_same_ingress", *rate),
        compare("p50_ms_1", "haproxy/one", "default/one", "default_serve", *latency),
        compare("batch64", "haproxy/batch", "default/sixteen", "default_serve", *rate),
        compare("rps_16_of_uvicorn", "haproxy/sixteen", "uvicorn/sixteen", "fastapi_uvicorn", *rate),
        compare("p50_ms_1_of_noop", "haproxy/one", "noop/one", "noop_same_ingress", *latency),
    ]


@contextmanager
def child(module: str, *arguments: str) -> "Iterator[subprocess.Popen[str]]":
    """A process that answers a line with a line; closing its input ends it."""
    words = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)


def ask(process: "subprocess.Popen[str]", task: object) -> dict[str, Any]:
    """Send a line; the answer is the first line that is JSON (Ray prints others)."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write((task if isinstance(task, str) else json.dumps(task)) + "\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{"):
            return dict(json.loads(line))
    raise SystemExit(f"{process.args!r} ended without an answer; its errors are above")


if __name__ == "__main__":
    main()
