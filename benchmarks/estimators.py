"""Off-policy estimates against the truth: how often 95 % intervals hold it, and how far off the values are.

    python -m benchmarks.estimators [--quick] [--data FOLDER] [--plot FILE]

coverage_*, nominal   On 1,000 simulated logs with known truth (100 to 3,000 users, events of a user hang together, one
    reward in 20 or in 5, policies near to and far from the one that logged, a reward model that is wrong on purpose):
    the share whose interval holds the truth, by estimator and kind of interval. Its binomial 95 % interval is beside.
    Goal: 0.94 to 0.99; Bernstein intervals and confidence sequences promise more than 0.95 at one look and keep it.
flagged               The share of these logs whose estimate says that the log cannot carry it.
error_*, ips          Root mean squared error over the truth, by estimator and number of users; the peer is ips.
*_to_*, on_policy     Open Bandit, campaign "men" (with --data or MEDLEY_DATA): what one policy's log says of the other
    policy, beside the mean reward that the other policy itself earned. Clicks are few: both intervals are wide, and
    `difference` says whether they agree. The Thompson-sampling policy is its share of each item at each position,
    averaged over its log. Events have no user there, so each is its own.
"""

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import argparse
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.features.feature_map import FeatureMap
from benchmarks import _estimators_plot
from benchmarks._simulated_logs import World, features
from cluster.config import Settings
from cluster.imports import Request
from cluster.imports import read as read_data
from cluster.progress import bar
from cluster.records import Dataset
from tune.estimators import METHODS
from tune.log import Log, read
from tune.offpolicy.cross_fit import cross_fit
from tune.offpolicy.estimate import Estimate, Kind, estimate
from tune.offpolicy.totals import Totals

CONSOLE = Console(stderr=True)
RATES, DISTANCES, USERS = (0.05, 0.2), (0.7, 1.4), (100, 300, 1_000, 3_000)
KINDS: tuple[Kind, ...] = ("bootstrap", "sequence", "bernstein")
BOUNDED = ("clipped_ips", "switch_dr", "dros")


@dataclass(frozen=True)
class Trial:
    """One estimate of one log."""

    users: int
    truth: float
    found: Estimate

    @property
    def covered(self) -> bool:
        return self.found.low <= self.truth <= self.found.high


def study(logs: int, users: tuple[int, ...], resamples: int = 500, seed: int = 0) -> Iterator[list[Trial]]:
    """Every estimator and kind of interval on each of the logs; sizes, rates and distances take turns."""
    for number in range(logs):
        rng = np.random.default_rng([seed, number])
        size = users[number % len(users)]
        turn = number // len(users)
        world = World.draw(rng, RATES[turn % 2], DISTANCES[turn // 2 % 2])
        log, kind_N = world.log(rng, size)
        batch = features(kind_N)
        q_NK = cross_fit(log, batch, batch.arm_BK.shape[1], seed=number).q_NK
        totals = Totals(METHODS)
        totals.add(log.user_N, log, world.policy_TK[kind_N], q_NK)
        yield [Trial(size, world.truth, found) for found in estimates(totals, resamples, number)]


def estimates(totals: Totals, resamples: int, seed: int) -> Iterator[Estimate]:
    for method in METHODS:
        for kind in KINDS:
            if (kind == "bernstein" and method not in BOUNDED) or (method == "cressie_read" and kind != "bootstrap"):
                continue
            yield estimate(totals, method, interval=kind, resamples=resamples, seed=seed)


def coverage(trials: list[Trial]) -> list[dict[str, object]]:
    measures = []
    for method, kind in dict.fromkeys((t.found.method, t.found.interval) for t in trials):
        mine = [t for t in trials if (t.found.method, t.found.interval) == (method, kind)]
        share = float(np.mean([t.covered for t in mine]))
        reach = 1.96 * np.sqrt(max(share * (1 - share), 1 / len(mine)) / len(mine))
        measures.append(
            {
                "name": f"coverage_{method}_{kind}",
                "ours": share,
                "peer": 0.95,
                "peer_name": "nominal",
                "difference": share - 0.95,
                "interval": [share - 0.95 - reach, share - 0.95 + reach],
                "unit": f"share of {len(mine)} logs",
                "least": min(float(np.mean([t.covered for t in mine if t.users == size])) for size in _sizes(mine)),
                "flagged": float(np.mean([not t.found.supported for t in mine])),
                "width": float(np.median([t.found.high - t.found.low for t in mine])),
            }
        )
    return measures


def errors(trials: list[Trial]) -> list[dict[str, object]]:
    """Relative root mean squared error by estimator and users."""
    found = {
        (method, size): float(
            np.sqrt(
                np.mean(
                    [
                        (t.found.value / t.truth - 1) ** 2
                        for t in trials
                        if t.found.method == method
                        and t.users == size
                        and t.found.interval in ("bootstrap", "likelihood")
                    ]
                )
            )
        )
        for method in METHODS
        for size in _sizes(trials)
    }
    return [
        {
            "name": f"error_{method}_{size}",
            "ours": error,
            "peer": found["ips", size],
            "peer_name": "ips",
            "ratio": error / found["ips", size],
            "unit": "relative error",
        }
        for (method, size), error in found.items()
    ]


def _sizes(trials: list[Trial]) -> list[int]:
    return sorted({t.users for t in trials})


def open_bandit(folder: Path, resamples: int) -> list[dict[str, object]]:
    """Each policy's value from the other's log, beside what it earned itself."""
    home = folder / "open_bandit"
    data = {name: _import(home, name) for name in ("random", "bts")}
    measures = []
    for one, other in (("random", "bts"), ("bts", "random")):
        dataset = data[one]
        kind = Settings().reward
        found = FeatureMap.fit(dataset, np.arange(len(dataset.events)), Settings().features, 0)
        log, batch = read(dataset.events, found.item_ids, kind), found.batch(dataset.events)
        totals = Totals(METHODS)
        policy_NK = _policy(other, data["bts"], dataset, log)
        totals.add(log.user_N, log, policy_NK, cross_fit(log, batch, found.arms).q_NK)
        mean, low, high = _on_policy(read(data[other].events, found.item_ids, kind), resamples)
        for method in METHODS:
            estimated = estimate(totals, method, resamples=resamples)
            reach = np.hypot((high - low) / 2, (estimated.high - estimated.low) / 2)
            measures.append(
                {
                    "name": f"{one}_to_{other}_{method}",
                    "ours": estimated.value,
                    "peer": mean,
                    "peer_name": "on_policy",
                    "difference": estimated.value - mean,
                    "interval": [estimated.value - mean - reach, estimated.value - mean + reach],
                    "bounds": [estimated.low, estimated.high],
                    "peer_bounds": [low, high],
                    "effective_events": estimated.effective_events,
                    "unit": "clicks per event",
                    "note": estimated.note,
                }
            )
    return measures


def _import(home: Path, name: str) -> Dataset:
    paths = (home / f"{name}_men.parquet", home / "items_men.parquet")
    return read_data(Request("open-bandit", paths), Settings()).dataset


def _policy(name: str, bts: Dataset, dataset: Dataset, log: Log) -> np.ndarray:
    if name == "random":
        return log.mask_NK / log.mask_NK.sum(1, keepdims=True)
    items = {item: k for k, item in enumerate(dataset.events["candidates"][0].as_py())}
    share_PK = np.zeros((4, len(items)))
    np.add.at(share_PK, (bts.events["position"].to_numpy(), [items[i] for i in bts.events["item_id"].to_pylist()]), 1.0)
    share_PK /= np.maximum(share_PK.sum(1, keepdims=True), 1)
    return share_PK[dataset.events["position"].to_numpy()]


def _on_policy(log: Log, resamples: int) -> tuple[float, float, float]:
    totals = Totals(["ips"])
    one_hot_NK = np.eye(log.mask_NK.shape[1])[log.action_N]
    certain = Log(log.action_N, log.reward_N, np.ones(len(log)), log.user_N, log.mask_NK)
    totals.add(log.user_N, certain, one_hot_NK)
    found = estimate(totals, "ips", resamples=resamples)
    return found.value, found.low, found.high


def show(measures: list[dict[str, object]]) -> None:
    table = Table("measure", "ours", "peer", "difference or ratio", "interval", "note", title="estimators")
    for m in measures:
        compared = m.get("difference", m.get("ratio"))
        low, high = m.get("interval", ("", ""))
        cells = [f"{v:.4g}" if isinstance(v, float) else str(v) for v in (m["ours"], m["peer"], compared, low, high)]
        note = m.get("note") or (f"least {m['least']:.3f}, flagged {m['flagged']:.3f}" if "least" in m else "")
        between = f"{cells[3]} to {cells[4]}" if cells[3] else ""
        table.add_row(f"{m['name']} ({m['peer_name']})", *cells[:3], between, str(note))
    CONSOLE.print(table)


def _rounded(value: object) -> object:
    """Four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.estimators", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="80 logs of at most 300 users, under a minute")
    parser.add_argument("--data", type=Path, default=os.environ.get("MEDLEY_DATA"), help="folder with open_bandit")
    parser.add_argument("--plot", type=Path, help="write coverage and error as a picture (png, svg, pdf)")
    options = parser.parse_args()
    logs, users = (80, USERS[:2]) if options.quick else (1_000, USERS)
    trials: list[Trial] = []
    with bar(CONSOLE, f"{logs} simulated logs") as progress:
        for number, found in enumerate(study(logs, users), 1):
            trials += found
            progress(number, logs)
    measures = [*coverage(trials), *errors(trials)]
    if options.plot:
        _estimators_plot.save(measures, options.plot)
    if options.data:
        measures += open_bandit(Path(options.data), 200 if options.quick else 1_000)
    else:
        CONSOLE.print("no Open Bandit: name the folder with --data or MEDLEY_DATA")
    show(measures)
    print(
        json.dumps({"benchmark": "estimators", "measures": [{k: _rounded(v) for k, v in m.items()} for m in measures]})
    )


if __name__ == "__main__":
    main()
