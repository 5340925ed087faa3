"""Drift detection on the drifting marketplace, against the two who never look: "always fire" and "never fire".

    python -m benchmarks.drift [--quick]

An ensemble of the predefined members is served to the built-in marketplace and learns as it does behind HTTP, so that
what is chosen and earned changes without any drift. In a third of the runs the tastes stay, in a third they change at
once half way through, in a third gradually from the first decision to the last. The detector reads the log and the
traffic in order, with its default settings.

The loss of a detector is the mean of its share of false alarms (runs without a drift, and the stretch before an abrupt
one) and of the share of the time with a drift that passes before its first alarm (1 where there is none). Who always
fires loses ½, all of it false alarms; who never fires loses ½, all of it missed. Fair: both are told nothing, and the
detector's settings are those that everybody gets.
"""

import argparse
import json
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.table import Table
from scipy import stats

from actors.bandits.version import Version
from cluster.config import Settings
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.progress import bar
from tune.baselines import Schedule
from tune.drift.detect import Found, detect
from tune.drift.stream import Stream
from tune.groundwork import Groundwork
from tune.service import Service
from tune.worlds.build import on

KINDS = ("none", "abrupt", "gradual")
LOG = 1 / 3
AT = 0.5
DUMMY = 0.5
"""The loss of either dummy."""


@dataclass(frozen=True)
class Run:
    """false: an alarm without a drift. delay: share of the time with a drift before the alarm, None without a drift.

    apart_days: between the change and when the detector says that it was.
    """

    kind: str
    false: bool
    delay: float | None
    apart_days: float | None


def run(kind: str, seed: int, events: int, users: int) -> Run:
    """Serve one marketplace, and ask the detector."""
    still = {"seasonal": 0.0, "fashion": 0.0}
    data = {"marketplace_events": events, "marketplace_users": users, "dials": still}
    world = {"drift": kind, "drift_at": AT}
    settings = Settings.model_validate({"seed": seed, "data": data, "world": world, "law": {"particles": 16}})
    dataset = read_marketplace([], Options(), settings.data, seed).dataset
    cut = round(LOG * events)
    past = replace(dataset, format="feedback", events=dataset.events.slice(0, cut))
    work = Groundwork.of(past, settings, world=0.0)
    version = Version(work.feature_map, work.ensemble(*work.predefined.members()), dataset.items)
    traffic = on(dataset, np.arange(cut, events), settings)
    second_N = traffic.events["timestamp"].cast(pa.int64()).to_numpy() / 1e6
    schedule = Schedule(np.arange(len(second_N)), second_N - second_N[0], settings.reward.window_s, 3_600.0)
    service = Service(version, 1, traffic, schedule, seed)
    service.serve(len(second_N))
    served = pa.concat_tables([past.events, service.journal()])
    found = detect(Stream.of(work.feature_map, served, settings.reward), settings.drift)
    return judged(kind, found, float(second_N[0]), float(second_N[-1]))


def judged(kind: str, found: Found, start_s: float, end_s: float) -> Run:
    """What an alarm, or none, is worth in traffic between two moments."""
    alarm_s = None if found.drift is None else found.drift.alarm_s
    if kind == "none":
        return Run(kind, alarm_s is not None, None, None)
    change_s = start_s + AT * (end_s - start_s) if kind == "abrupt" else start_s
    if alarm_s is None or found.drift is None or alarm_s < change_s:
        return Run(kind, alarm_s is not None, 1.0, None)
    apart = abs(found.drift.since_s - change_s) / 86_400 if kind == "abrupt" else None
    return Run(kind, False, (alarm_s - change_s) / (end_s - change_s), apart)


def losses(runs: list[Run]) -> dict[str, float]:
    """False alarms, delay, and the loss that they make."""
    false = float(np.mean([each.false for each in runs if each.kind != "gradual"]))
    delay = float(np.mean([each.delay for each in runs if each.delay is not None]))
    return {"false": false, "delay": delay, "loss": (false + delay) / 2}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds, a third of the traffic")
    quick = parser.parse_args().quick
    seeds, events, users = (2, 9_000, 600) if quick else (8, 24_000, 1_200)
    console, runs = Console(stderr=True), []
    with bar(console, "drift") as progress:
        for seed in range(seeds):
            runs += [run(kind, seed, events, users) for kind in KINDS]
            progress(seed + 1, seeds)
    shown = Table("runs", "false alarms", "alarms", "delay, share of the time with a drift", "change found, days off")
    for kind in KINDS:
        mine = [each for each in runs if each.kind == kind]
        delays = [each.delay for each in mine if each.delay is not None]
        apart = [each.apart_days for each in mine if each.apart_days is not None]
        shown.add_row(
            f"{kind} ({len(mine)})",
            str(sum(each.false for each in mine)),
            str(sum(delay < 1 for delay in delays)),
            f"{np.mean(delays):.3f}" if delays else "",
            f"{np.mean(apart):.2f}" if apart else "",
        )
    console.print(shown)
    by_seed = [losses(runs[3 * seed : 3 * seed + 3])["loss"] for seed in range(seeds)]
    ours, error = losses(runs)["loss"], float(np.std(by_seed, ddof=1) / np.sqrt(seeds))
    reach = float(stats.t.ppf(0.975, seeds - 1)) * error
    measure = {
        "name": "loss",
        "ours": round(ours, 4),
        "peer": DUMMY,
        "peer_name": "always_or_never_fire",
        "difference": round(ours - DUMMY, 4),
        "interval": [round(ours - DUMMY - reach, 4), round(ours - DUMMY + reach, 4)],
        "unit": "share",
    }
    print(json.dumps({"benchmark": "drift", "measures": [measure]}))


if __name__ == "__main__":
    main()
