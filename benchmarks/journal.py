"""The journal: acknowledgements per second, and how soon it takes events again after `kill -9`.

    python -m benchmarks.journal [--quick] [--folder FOLDER]

acks_64, sqlite_commit_each   acknowledgements/s with 64 writers, each of which waits for its decision to be durable,
    then for its reward, and goes on with the next: ours through the journal as the gateway uses it (64 tasks of one
    event loop, group commit), and 64 threads that share one SQLite connection and commit each event by itself. The
    same tables and indices, the same rows, WAL and `synchronous=FULL` on the same disk, in turn. The peer gets the
    least that it can do: one INSERT an event (a reward looks its decision up first), a number kept in Python instead
    of asked for, no counters, no lateness. `interval` is the least and the greatest ratio of the repeats.
recovery_s_million   seconds from the start of a new process to its first acknowledgement, after a writer of a million
    events (decisions and their rewards, with their outcomes) was killed by -9 under load. With it, as measures of
    their own: recovery_learner_s, until a new learner has its checkpoint and has learned every outcome that there
    was at the kill, where learner and writer are killed together; and rebuild_us_per_outcome, what an outcome costs
    a learner that begins with nothing. Starting Python and importing (import_s) is in the seconds.

The files lie in --folder (default: the folder for temporary files): take a disk, not a memory file system.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
from rich.progress import track

from benchmarks._journal_process import KINDS
from benchmarks._pairs import CONSOLE, Measure, rounded
from benchmarks._servers import settings_of
from benchmarks.serve import make
from cluster.journal.journal import DecisionRecord, Journal, Reader, RewardRecord, journal_url
from cluster.journal.store import Store
from serve.durable import Durable
from serve.observed.metrics import Metrics

WRITERS = 64
REQUEST = json.dumps({"user_id": "u1", "context": {"device": "mobile", "hour": 21, "recent": ["i7", "i9", "i12"]}})
ANSWER = json.dumps(
    {"slots": [{"item_id": "i2", "propensity": 0.42, "models": {f"linear-{n}": 0.1 for n in range(9)}}]}
)
EVIDENCE = bytes(range(256)) + bytes(144)
"""About as long as those of a decision between 100 items, with 10 models and 32 features."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short repeats, and 40,000 events in place of a million")
    parser.add_argument("--folder", type=Path, help="where the journals lie")
    arguments = parser.parse_args()
    repeats, seconds, events = (3, 1.0, 40_000) if arguments.quick else (7, 3.0, 1_000_000)
    with tempfile.TemporaryDirectory(prefix="medley-bench-", dir=arguments.folder) as folder:
        acks = acknowledgements(Path(folder), repeats, seconds)
        found = recovery(Path(folder), events)
    measures = [asdict(acks), *({"name": name, "ours": value, "unit": unit} for name, (value, unit) in found.items())]
    CONSOLE.print(f"acks_64: {acks.ours:,.0f}/s against {acks.peer:,.0f}/s, {acks.ratio:.1f} times", highlight=False)
    for name, (value, unit) in found.items():
        CONSOLE.print(f"{name}: {value:,.2f} {unit}", highlight=False)
    print(json.dumps({"benchmark": "journal", "measures": [rounded(measure) for measure in measures]}))


def decision(number: int) -> DecisionRecord:
    name = f"01J{number:023d}"
    return DecisionRecord(name, "bench", f"u{number % 1000}", None, 1, 1, 1, REQUEST, ANSWER, EVIDENCE)


def reward(number: int) -> RewardRecord:
    return RewardRecord("bench", f"01J{number:023d}", 0, "reward", 1.0, f"r/{number}")


def acknowledgements(folder: Path, repeats: int, seconds: float) -> Measure:
    rates = []
    for n in track(range(repeats), "acknowledgements", console=CONSOLE, transient=True):
        ours = asyncio.run(grouped(folder / f"ours-{n}.db", seconds))
        rates.append((ours, one_by_one(folder / f"peer-{n}.db", seconds)))
    ratios = [ours / peer for ours, peer in rates]
    middle, theirs = (statistics.median(side) for side in zip(*rates, strict=True))
    span = (min(ratios), max(ratios))
    return Measure("acks_64", middle, theirs, "sqlite_commit_each", statistics.median(ratios), span, "acks/s")


async def grouped(path: Path, seconds: float) -> float:
    """Ours: acknowledgements/s."""
    numbers, done = iter(range(10**9)), 0
    with Journal(str(path), KINDS) as journal:
        durable, start = Durable(journal, Metrics()), time.perf_counter()

        async def write() -> None:
            nonlocal done
            while time.perf_counter() < start + seconds:
                number = next(numbers)
                await durable(journal.deciding([decision(number)]))
                await durable(journal.rewarding([reward(number)]))
                done += 2

        await asyncio.gather(*[write() for _ in range(WRITERS)])
        return done / (time.perf_counter() - start)


def one_by_one(path: Path, seconds: float) -> float:
    """The peer: acknowledgements/s."""
    store, lock, numbers = Store(str(path)), threading.Lock(), iter(range(1, 10**9))
    connection, start = store.sql._connection, time.perf_counter()
    done = [0] * WRITERS

    def commit(action: Callable[[], object]) -> None:
        with lock:
            connection.execute("BEGIN IMMEDIATE")
            action()
            connection.execute("COMMIT")

    def write(place: int) -> None:
        while time.perf_counter() < start + seconds:
            number = next(numbers)
            d, r, now = decision(number), reward(number), time.time()
            row = (number, d.decision_id, d.client, d.user, None, 1, 1, 1, now, d.request, d.answer, d.evidence)
            commit(lambda row=row: connection.execute(_DECISION, row))  # type: ignore[misc]
            event = (number, r.client, r.reward_id, r.decision_id, r.slot, r.kind, r.value, None, now)
            commit(lambda event=event: _reward(connection, event))  # type: ignore[misc]
            done[place] += 2

    threads = [threading.Thread(target=write, args=(place,)) for place in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    store.close()
    return sum(done) / took


_DECISION = "INSERT INTO journal_decisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'live', NULL)"


def _reward(connection: Any, row: tuple[Any, ...]) -> None:
    connection.execute("SELECT seq, at, slots FROM journal_decisions WHERE decision_id = ?", (row[3],)).fetchone()
    connection.execute("INSERT INTO journal_rewards VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)", row)


def recovery(folder: Path, events: int) -> dict[str, tuple[float, str]]:
    home = folder / "home"
    with CONSOLE.status("a version with 10 models"):
        bodies, _ = make(home, 8000)
        (home / "bodies.json").write_text(json.dumps(bodies))
    reader = Reader(journal_url(settings_of(home, 8000, "default")))
    with started("fill", home, events) as writer, started("learn", home, events // 2) as learner:
        with CONSOLE.status(f"{events:,} events"):
            heard(writer)
        with CONSOLE.status("their outcomes, learned"):
            heard(learner)
        time.sleep(2.0)  # the load goes on
        for process in (writer, learner):
            os.kill(process.pid, signal.SIGKILL)
    last = reader.last_outcome()
    found = {}
    with CONSOLE.status("recovery"):
        found["recovery_s_million"] = (timed("first", home, 0), "s")
        found["recovery_learner_s"] = (timed("learn", home, last), "s")
        found["import_s"] = (imports(), "s")
    with CONSOLE.status("a learner that begins with nothing"):
        (home / "learner-0.db").unlink()
        some = min(last, 20_000)
        half = timed("learn", home, some // 2)
        (home / "learner-0.db").unlink()
        found["rebuild_us_per_outcome"] = (1e6 * (timed("learn", home, some) - half) / (some - some // 2), "us")
    found["journal_bytes_per_event"] = ((home / "journal.db").stat().st_size / sum(_events(reader)), "bytes")
    reader.close()
    return found


def _events(reader: Reader) -> list[int]:
    counts = reader.counts()
    return [counts["decisions"], counts["rewards_accepted"]]


@contextmanager
def started(word: str, home: Path, number: int) -> "Iterator[subprocess.Popen[str]]":
    words = [sys.executable, "-m", "benchmarks._journal_process", word, str(home), str(number)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def heard(process: "subprocess.Popen[str]") -> None:
    """Wait for a process to say what it has done."""
    assert process.stdout is not None
    if not process.stdout.readline():
        raise SystemExit(f"{process.args!r} ended without an answer; its errors are above")


def timed(word: str, home: Path, number: int) -> float:
    """Seconds from the start of a process until it has done what it should."""
    start = time.perf_counter()
    with started(word, home, number) as process:
        heard(process)
        return time.perf_counter() - start


def imports() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import benchmarks._journal_process"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
