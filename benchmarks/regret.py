"""Online from nothing: errors of contextual bandits on five labelled tables, against Vowpal Wabbit's best.

    python -m benchmarks.regret [--quick] [--data FOLDER]

Each game is 6,000 rows of a table in a seeded order: a context comes, one of K arms is chosen, and only that arm's
reward is seen, 1 if it is the right class. Figures are errors in percent of those of uniform choices, means over five
seeds (order and noise), with CPU seconds of one game beside them.

Ours is one configuration for all tables, benchmarks/regret.yaml, played by the product itself (benchmarks/_ours.py).
Vowpal Wabbit plays a grid of explorers, learning rates and features, ours among them (benchmarks/_vowpal.py): all of
it on 2,000 rows of the first seed, the best four on every row of every seed, and the best of those, chosen per table in
hindsight, is what ours is compared with. That favours the peer.

gap_closed   (VW's best − ours)/(VW's best − floor) in [−1, 1], mean over the tables: 0 is VW, 1 the floor, which
    learns from every arm's reward (benchmarks/_floors.py). Where VW is not above the floor, 1 if ours is not above VW,
    else −1. Interval by seed (Student).
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
FINALISTS = 4
"""Settings of VW that play every seed."""
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
class Figures:
    """Errors by seed, and CPU seconds of one game."""

    name: str
    ours_S: list[float]
    ours_s: float
    peer_S: list[float]
    peer_s: float
    setting: Setting
    plain_S: list[float]
    floor_S: list[float]

    @property
    def gap_S(self) -> list[float]:
        """The share of the gap that ours closes, by seed."""
        return [gap(*each) for each in zip(self.ours_S, self.peer_S, self.floor_S, strict=True)]

    @property
    def closed(self) -> float:
        """The same of the means over the seeds."""
        return gap(float(np.mean(self.ours_S)), float(np.mean(self.peer_S)), float(np.mean(self.floor_S)))

    @property
    def ratio_S(self) -> list[float]:
        return [ours / max(peer, 1e-9) for ours, peer in zip(self.ours_S, self.peer_S, strict=True)]


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


def vowpal(games: Sequence[Game], settings: Settings, size: Size) -> tuple[Setting, list[float], float]:
    """VW's best setting, its errors by seed, and CPU seconds."""
    short = games[0].first(size.tried)
    texts = _vowpal.every_text(short, settings.features, _ours.GROWTH, 0)
    tried = {setting: _vowpal.play(short, texts[setting.features], setting, 0) for setting in size.grid}
    finalists = sorted(tried, key=lambda setting: tried[setting])[:FINALISTS]
    found: dict[Setting, list[tuple[float, float]]] = {setting: [] for setting in finalists}
    for seed, each in enumerate(games):
        texts = _vowpal.every_text(each, settings.features, _ours.GROWTH, seed)
        for setting in finalists:
            errors, seconds = timed(_vowpal.play, each, texts[setting.features], setting, seed)
            found[setting].append((each.share(errors), seconds))
    best = min(found, key=lambda setting: _mean(errors for errors, _ in found[setting]))
    return best, [errors for errors, _ in found[best]], _mean(seconds for _, seconds in found[best])


def figures(name: str, folder: Path, settings: Settings, size: Size) -> Figures:
    """A table played by everyone."""
    dataset = read(name, folder)
    games = [game(name, dataset, size.rows, seed) for seed in range(size.seeds)]
    ours_S, ours_s = mine(games, settings)
    setting, peer_S, peer_s = vowpal(games, settings, size)
    plain_S = [each.share(_linear_ts.lin_ts(each, seed)) for seed, each in enumerate(games)]
    floor_S = [_floors.frozen(each, seed) for seed, each in enumerate(games)]
    return Figures(name, ours_S, ours_s, peer_S, peer_s, setting, plain_S, floor_S)


def measures(found: Sequence[Figures], joint: Sequence[tuple[float, float]]) -> list[dict[str, Any]]:
    """The lines of the report; `joint` are regrets of joint and of independent draws, a pair for each world."""
    closed = _mean(each.closed for each in found)
    gap_S = np.mean([each.gap_S for each in found], axis=0)
    worst = max(found, key=lambda each: _mean(each.ours_S) / max(_mean(each.peer_S), 1e-9))
    ratio = [ours / apart for ours, apart in joint]
    rows = [
        {"name": "gap_closed", "ours": closed, "peer": 0.0, "peer_name": "vw_best", "difference": closed,
         "interval": around(gap_S.tolist(), closed), "unit": "share of the gap to the floor"},
        _against("worst_table", worst, _mean(worst.peer_S), "vw_best", worst.ratio_S),
    ]  # fmt: skip
    rows[-1]["table"] = worst.name
    for each in found:
        row = _against(f"errors_{each.name}", each, _mean(each.peer_S), "vw_best", each.ratio_S)
        rows.append(
            row
            | {"floor": _mean(each.floor_S), "gap_closed": each.closed, "setting": str(each.setting)}
            | {"ours_s": each.ours_s, "peer_s": each.peer_s, "lin_ts": _mean(each.plain_S)}
        )
    ours, plain = ([_mean(side) for side in zip(*sides, strict=True)] for sides in _sides(found))
    lin = {"name": "lin_ts", "ours": _mean(ours), "peer": _mean(plain), "peer_name": "lin_ts", "unit": UNIT}
    rows.append(lin | {"ratio": _mean(ours) / _mean(plain), "interval": around(np.divide(ours, plain).tolist())})
    rows.append(
        {"name": "joint_draws", "ours": _mean(a for a, _ in joint), "peer": _mean(b for _, b in joint),
         "peer_name": "independent_draws", "ratio": _mean(a for a, _ in joint) / _mean(b for _, b in joint),
         "interval": around(ratio), "unit": "regret"}
    )  # fmt: skip
    return rows


def _sides(found: Sequence[Figures]) -> tuple[list[list[float]], list[list[float]]]:
    return [each.ours_S for each in found], [each.plain_S for each in found]


def _against(name: str, each: Figures, peer: float, peer_name: str, ratio_S: Sequence[float]) -> dict[str, Any]:
    ours = _mean(each.ours_S)
    about = {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": ours / max(peer, 1e-9)}
    return about | {"interval": around(ratio_S, ours / max(peer, 1e-9)), "unit": UNIT}


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
    table = Table(
        "table", "ours", "s", "VW's best", "s", "VW's setting", "floor", "gap closed", "LinTS", title="errors"
    )
    for each in found:
        means = [_mean(side) for side in (each.ours_S, each.peer_S, each.floor_S, each.plain_S)]
        ours, peer, floor, plain = (f"{mean:.1f}" for mean in means)
        seconds = f"{each.ours_s:.1f}", f"{each.peer_s:.1f}"
        table.add_row(
            each.name, ours, seconds[0], peer, seconds[1], str(each.setting), floor, f"{each.closed:.2f}", plain
        )
    CONSOLE.print(table)
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
