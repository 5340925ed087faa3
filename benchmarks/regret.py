"""Online from nothing: errors of contextual bandits on five labelled tables, against Vowpal Wabbit's best.

    python -m benchmarks.regret [--quick] [--data FOLDER]

Each game is 6,000 rows of a table in a seeded order: a context comes, one of K arms is chosen, and only that arm's
reward is seen, 1 if it is the right class. Figures are errors in percent of those of uniform choices, means over five
seeds (order and noise), with CPU seconds of one game beside them.

Ours is one configuration for all tables, benchmarks/regret.yaml, played by the product itself (benchmarks/_ours.py).
Vowpal Wabbit plays a grid of explorers, learning rates and features, ours among them (benchmarks/_vowpal.py): all of
it on 2,000 rows of the first seed, the best few on every row of every seed, and the best of those, chosen per table in
hindsight, is what ours is compared with. That favours the peer.

gap_closed   (VW's best − ours)/(VW's best − floor) in [−1, 1], mean over the tables: 0 is VW, 1 the floor, which
    learns from every arm's reward (benchmarks/_floors.py). Where VW is not above the floor, 1 if ours is not above VW,
    else −1. Interval by seed (Student).
gap_closed_own   the same against VW's best without our features.
worst_table   the greatest of the tables' ratios ours/VW's best.
lin_ts       LinTS on the plain columns, mean over the tables; what ours does better is features and priors.
joint_draws  regret among 100 items in ten groups of near duplicates, joint draws against independent ones per item.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import numpy as np
from rich.table import Table
from scipy import stats

from benchmarks import _floors, _linear_ts, _ours, _vowpal
from benchmarks._games import TABLES, Game, ends, game, read
from benchmarks._pairs import CONSOLE, rounded
from benchmarks._vowpal import GRID, Setting
from cluster import config
from cluster.config import Settings
from cluster.progress import bar

P = ParamSpec("P")
CONFIGURATION = Path(__file__).with_suffix(".yaml")
FINALISTS = 3
"""Settings of VW that play every seed: so many with our features, and as many without."""
ROUNDS = 1_000
"""Of the near duplicates."""
UNIT = "errors, % of uniform's"


@dataclass(frozen=True)
class Size:
    """tried: rows of the first seed on which all of VW's grid plays. worlds: of near duplicates."""

    tables: tuple[str, ...]
    rows: int
    seeds: int
    grid: tuple[Setting, ...]
    tried: int
    worlds: int


FULL = Size(TABLES, _floors.ROWS, _floors.SEEDS, GRID, 2_000, 10)
QUICK = Size(("mushroom", "pendigits"), 1_500, 2, tuple(s for s in GRID if s.rate == 2.0), 500, 3)


@dataclass(frozen=True)
class Peer:
    """A setting of VW, its errors by seed, and CPU seconds of one game."""

    setting: Setting
    errors_S: list[float]
    seconds: float


@dataclass(frozen=True)
class Figures:
    """Errors by seed, and CPU seconds of one game. own: VW's best without our features."""

    name: str
    ours_S: list[float]
    ours_s: float
    peer: Peer
    own: Peer
    plain_S: list[float]
    floor_S: list[float]

    def gap_S(self, peer: Peer) -> list[float]:
        """The share of the gap that ours closes, by seed."""
        return [gap(*each) for each in zip(self.ours_S, peer.errors_S, self.floor_S, strict=True)]

    def closed(self, peer: Peer) -> float:
        """The same of the means over the seeds."""
        return gap(_mean(self.ours_S), _mean(peer.errors_S), _mean(self.floor_S))


def gap(ours: float, peer: float, floor: float) -> float:
    if peer <= floor:
        return 1.0 if ours <= peer else -1.0
    return float(np.clip((peer - ours) / (peer - floor), -1, 1))


def timed(work: Callable[P, int], *arguments: P.args, **named: P.kwargs) -> tuple[int, float]:
    start = time.process_time()
    return work(*arguments, **named), time.process_time() - start


def mine(games: Sequence[Game], settings: Settings) -> tuple[list[float], float]:
    """Ours on every seed, and CPU seconds."""
    found = []
    for seed, each in enumerate(games):
        stops = list(ends(len(each), _ours.FIRST, _ours.GROWTH))
        found.append(timed(_ours.Player(each, settings, seed).play, stops))
    return [each.share(errors) for each, (errors, _) in zip(games, found, strict=True)], _mean(s for _, s in found)


def vowpal(games: Sequence[Game], settings: Settings, size: Size) -> tuple[Peer, Peer]:
    """VW's best setting, and its best without our features."""
    short = games[0].first(size.tried)
    texts = _vowpal.every_text(short, settings.features, _ours.GROWTH, 0)
    tried = {setting: _vowpal.play(short, texts[setting.features], setting, 0) for setting in size.grid}
    ranked = sorted(tried, key=lambda setting: tried[setting])
    finalists = [s for own in (True, False) for s in [r for r in ranked if r.own == own][:FINALISTS]]
    found: dict[Setting, list[tuple[float, float]]] = {setting: [] for setting in finalists}
    for seed, each in enumerate(games):
        texts = _vowpal.every_text(each, settings.features, _ours.GROWTH, seed)
        for setting in finalists:
            errors, seconds = timed(_vowpal.play, each, texts[setting.features], setting, seed)
            found[setting].append((each.share(errors), seconds))
    peers = [Peer(s, [errors for errors, _ in runs], _mean(t for _, t in runs)) for s, runs in found.items()]
    best, own = (
        min(among, key=lambda peer: _mean(peer.errors_S)) for among in (peers, [p for p in peers if p.setting.own])
    )
    return best, own


def figures(name: str, folder: Path, settings: Settings, size: Size) -> Figures:
    """A table played by everyone."""
    dataset = read(name, folder)
    games = [game(name, dataset, size.rows, seed) for seed in range(size.seeds)]
    ours_S, ours_s = mine(games, settings)
    peer, own = vowpal(games, settings, size)
    plain_S = [each.share(_linear_ts.lin_ts(each, seed)) for seed, each in enumerate(games)]
    floor_S = [_floors.frozen(each, seed) for seed, each in enumerate(games)]
    return Figures(name, ours_S, ours_s, peer, own, plain_S, floor_S)


def measures(found: Sequence[Figures], joint: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """The lines of the report; `joint` are regrets of joint and of independent draws, a pair for each world."""
    worst = max(found, key=lambda each: _mean(each.ours_S) / max(_mean(each.peer.errors_S), 1e-9))
    rows = [
        _closed("gap_closed", "vw_best", found, [each.peer for each in found]),
        _closed("gap_closed_own", "vw_best_own_features", found, [each.own for each in found]),
        _against("worst_table", "vw_best", worst, worst.peer) | {"table": worst.name},
    ]
    for each in found:
        rows.append(
            _against(f"errors_{each.name}", "vw_best", each, each.peer)
            | {"floor": _mean(each.floor_S), "gap_closed": each.closed(each.peer), "setting": str(each.peer.setting)}
            | {"own": _mean(each.own.errors_S), "own_setting": str(each.own.setting), "lin_ts": _mean(each.plain_S)}
            | {"ours_s": each.ours_s, "peer_s": each.peer.seconds}
        )
    ours, plain = (
        [_mean(side) for side in sides] for sides in zip(*((f.ours_S, f.plain_S) for f in found), strict=True)
    )
    rows.append(_ratio("lin_ts", "lin_ts", ours, plain) | {"unit": UNIT})
    together, apart = zip(*joint, strict=True)
    return [*rows, _ratio("joint_draws", "independent_draws", together, apart) | {"unit": "regret"}]


def _closed(name: str, peer_name: str, found: Sequence[Figures], peers: Sequence[Peer]) -> dict[str, Any]:
    closed = _mean(each.closed(peer) for each, peer in zip(found, peers, strict=True))
    gap_S = np.mean([each.gap_S(peer) for each, peer in zip(found, peers, strict=True)], axis=0).tolist()
    about = {"name": name, "ours": closed, "peer": 0.0, "peer_name": peer_name, "difference": closed}
    return about | {"interval": around(gap_S, closed), "unit": "share of the gap to the floor"}


def _against(name: str, peer_name: str, each: Figures, peer: Peer) -> dict[str, Any]:
    return _ratio(name, peer_name, each.ours_S, peer.errors_S) | {"unit": UNIT}


def _ratio(name: str, peer_name: str, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """The ratio of the means, with the interval of the pairs' own ratios around it."""
    mine, peer = _mean(ours), _mean(theirs)
    ratio, pairs = mine / max(peer, 1e-9), [a / max(b, 1e-9) for a, b in zip(ours, theirs, strict=True)]
    about = {"name": name, "ours": mine, "peer": peer, "peer_name": peer_name}
    return about | {"ratio": ratio, "interval": around(pairs, ratio)}


def around(values: Sequence[float], center: float | None = None) -> list[float]:
    """A 95 % interval of the mean of a few independent values, Student's, around their mean or another estimate."""
    middle = _mean(values) if center is None else center
    if len(values) < 2:
        return [middle, middle]
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return [middle - half, middle + half]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def show(found: Sequence[Figures], rows: Sequence[dict[str, Any]]) -> None:
    """Tables for people, on stderr."""
    heads = ("table", "ours", "s", "VW's best", "s", "VW's own", "floor", "gap", "LinTS")
    table = Table(*heads, title="errors, % of uniform's")
    for each in found:
        sides = (each.ours_S, each.peer.errors_S, each.own.errors_S, each.floor_S, each.plain_S)
        ours, peer, own, floor, plain = (f"{_mean(side):.1f}" for side in sides)
        closed, seconds = f"{each.closed(each.peer):.2f}", f"{each.peer.seconds:.1f}"
        table.add_row(each.name, ours, f"{each.ours_s:.1f}", peer, seconds, own, floor, closed, plain)
    CONSOLE.print(table)
    for each in found:
        CONSOLE.print(f"VW's best on {each.name}: {each.peer.setting}", highlight=False)
    for row in rows:
        low, high = row["interval"]
        compared = row.get("ratio", row.get("difference"))
        CONSOLE.print(f"{row['name']}: {compared:.3f} [{low:.3f}, {high:.3f}]", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regret", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two tables, 1,500 rows, two seeds, a smaller grid")
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDLEY_DATA"), help="folder of the tables")
    options = parser.parse_args()
    if options.data is None:
        parser.error("the tables are no part of the repository: give --data or set MEDLEY_DATA")
    size, settings, found = QUICK if options.quick else FULL, config.load(CONFIGURATION), []
    with bar(CONSOLE, "tables") as tell:
        for name in size.tables:
            found.append(figures(name, options.data, settings, size))
            tell(len(found), len(size.tables) + 1)
        worlds = range(size.worlds)
        joint = [(_linear_ts.duplicates(True, ROUNDS, s), _linear_ts.duplicates(False, ROUNDS, s)) for s in worlds]
    rows = measures(found, joint)
    show(found, rows)
    print(json.dumps({"benchmark": "regret", "measures": rounded(rows)}))


if __name__ == "__main__":
    main()
