"""Two timings of the same work, taken in turn, and the line that a benchmark ends with.

Seconds are the process's own CPU seconds: both sides compute on one thread and wait for nothing, and what else runs
on the machine then counts less.
"""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

CONSOLE = Console(stderr=True)


@dataclass(frozen=True)
class Measure:
    """Rates are medians over the repeats; ratio is the median of the pairs' ratios, interval their least and most."""

    name: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    interval: tuple[float, float]
    unit: str


@dataclass(frozen=True)
class Pair:
    """`ours(n)` and `peer(n)` do n pieces of the same work and return nothing; a repeat does `sizes` of them."""

    name: str
    peer_name: str
    unit: str
    ours: Callable[[int], None]
    peer: Callable[[int], None]
    sizes: tuple[int, int]


def measure(pairs: Sequence[Pair], repeats: int) -> list[Measure]:
    """Run each pair in turn, ours then peer, `repeats` times after one warm-up of each."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=CONSOLE) as progress:
        found = []
        for pair in pairs:
            task = progress.add_task(f"{pair.name} against {pair.peer_name}", total=None)
            found.append(_measure(pair, repeats))
            progress.update(task, total=1, completed=1)
    return found


def _measure(pair: Pair, repeats: int) -> Measure:
    mine, theirs = pair.sizes
    pair.ours(max(1, mine // 10))
    pair.peer(max(1, theirs // 10))
    rates = [(_rate(pair.ours, mine), _rate(pair.peer, theirs)) for _ in range(repeats)]
    ratios = [ours / peer for ours, peer in rates]
    return Measure(
        pair.name,
        statistics.median(ours for ours, _ in rates),
        statistics.median(peer for _, peer in rates),
        pair.peer_name,
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        pair.unit,
    )


def _rate(work: Callable[[int], None], count: int) -> float:
    start = time.process_time()
    work(count)
    return count / (time.process_time() - start)


def finish(benchmark: str, measures: Sequence[Measure]) -> None:
    """A table for people on stderr, and the JSON line, last, on stdout."""
    table = Table("measure", "ours", "peer", "ratio", "least to most", title=benchmark)
    for m in measures:
        span = f"{m.interval[0]:.1f} to {m.interval[1]:.1f}"
        table.add_row(f"{m.name} ({m.peer_name})", f"{m.ours:,.0f}", f"{m.peer:,.0f}", f"{m.ratio:.1f}", span)
    CONSOLE.print(table)
    print(json.dumps({"benchmark": benchmark, "measures": [rounded(asdict(m)) for m in measures]}))


def rounded(value: object) -> object:
    """Four significant digits."""
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: rounded(part) for key, part in value.items()}
        case tuple() | list():
            return [rounded(part) for part in value]
    return value
