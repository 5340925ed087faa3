"""PPO for the blend: decisions a second and what is gained, against Stable-Baselines3.

    python -m benchmarks.ppo [--quick]

The decisions are those in which similarity misleads (benchmarks._ppo_world): 10 items, 5 members, a policy of 64 x 64
that starts as the plain blend. Everybody trains the same network from the same start by PPO with the same settings:
batches of 4,096 decisions, 4 epochs, minibatches of 512, Adam at 0.0003, clipping 0.2, gamma 0. Ours is
`tune.blending.training`: RLlib sampled by the batch, a gradient that is written out, and beside PPO's own loss the
error of what the blend foretells, which peers do not have; without its bounds, since they would stop it and not them.
Peers differentiate the same module by autograd. One thread, one process, in turn; seconds are the process's CPU
seconds, so that other programs on the machine do not count.

decisions_per_s, sb3_32   sampled and learned, against Stable-Baselines3's PPO with 32 environments. `interval` is the
    least and greatest ratio of the repeats.
decisions_per_s_stock, rllib_32   the same against RLlib's own runner over 32 environments, connectors and learner.
decisions_per_s_tensors, tensors   the same against a loop of tensors alone: the limit.
gain, sb3_32   (r − r_start)/(r_oracle − r_start) after as many decisions as the peer had; r is the exact expected
    reward on other decisions, r_oracle that of the best items. Means over seeds and their ratio; `interval` is
    Student's 95 % of the mean logarithm of the seeds' ratios. Seeds have decisions, networks and draws of their own.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
import numpy as np
import torch
from rich.progress import track
from rich.table import Table
from scipy import stats

from benchmarks._pairs import CONSOLE, Measure, rounded
from benchmarks._ppo_world import form, misled
from cluster import config, session
from tune.blend_env import Answers
from tune.blending.policy import BlendPolicy

ITEMS, DECISIONS, JUDGED = 10, 20_000, 5_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 batches timed, 6 learned from, 2 seeds")
    quick = parser.parse_args().quick
    timed, batches, seeds = (3, 6, 2) if quick else (10, 30, 5)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
        os.environ["MEDLEY_HOME"] = folder
        with session.opened(config.load(None)):
            tasks = [Task.of(Path(folder) / f"seed{seed}", seed) for seed in range(seeds)]
            measures = [*speeds(tasks[0], timed), gain(tasks, batches)]
    table = Table("measure", "ours", "peer", "ratio", "interval", title="ppo")
    for m in measures:
        span = f"{m.interval[0]:.2f} to {m.interval[1]:.2f}"
        table.add_row(f"{m.name} ({m.peer_name})", f"{m.ours:,.4g}", f"{m.peer:,.4g}", f"{m.ratio:.2f}", span)
    CONSOLE.print(table)
    print(json.dumps({"benchmark": "ppo", "measures": [rounded(asdict(m)) for m in measures]}))


@dataclass(frozen=True)
class Task:
    """Where everybody starts, and other decisions on which they are judged: seen_BO with expected rewards_BK."""

    folder: Path
    seed: int
    start: BlendPolicy
    judged: Answers

    @classmethod
    def of(cls, folder: Path, seed: int) -> "Task":
        decisions, others = misled(DECISIONS, ITEMS, 2 * seed), misled(JUDGED, ITEMS, 2 * seed + 1)
        start = BlendPolicy(form(ITEMS, seed))
        start.standardise(decisions.observed_BKN.reshape(-1, start.form.inputs))
        Answers(start.see(decisions), decisions.reward_BK).save(folder)
        start.save(folder)
        return cls(folder, seed, start, Answers(start.see(others), others.reward_BK))

    def peers(self) -> dict[str, Iterator[BlendPolicy]]:
        """Ours and its peers, each a trainer that has not begun."""
        from benchmarks import _ppo_peers as trainers  # RLlib is imported once Ray is there

        found = {"ours": trainers.ours, "sb3_32": trainers.stable, "rllib_32": trainers.stock}
        made = (found | {"tensors": trainers.tensors}).items()
        return {name: train(self.start, self.folder, self.seed) for name, train in made}

    def gained(self, policy: BlendPolicy) -> float:
        """(r − r_start)/(r_oracle − r_start)."""
        start, best = self._value(self.start), float(self.judged.reward_BK.max(axis=1).mean())
        return (self._value(policy) - start) / (best - start)

    @torch.no_grad()
    def _value(self, policy: BlendPolicy) -> float:
        pi_BK = policy(torch.from_numpy(self.judged.seen_BO))[0].exp().numpy()
        return float((pi_BK * self.judged.reward_BK).sum(axis=1).mean())


def speeds(task: Task, batches: int) -> list[Measure]:
    """Decisions a second of CPU, everybody a batch in turn, after one batch of warming up."""
    from tune.blending.training import BATCH

    peers = task.peers()
    rates: dict[str, list[float]] = {name: [] for name in peers}
    for batch in track(range(batches + 1), "speed", console=CONSOLE):
        for name, trainer in peers.items():
            started = time.process_time()
            next(trainer)
            if batch:
                rates[name].append(BATCH / (time.process_time() - started))
    _close(peers)
    return [_speed(name, rates["ours"], rates[name]) for name in peers if name != "ours"]


def _speed(peer: str, ours: list[float], theirs: list[float]) -> Measure:
    name = {"sb3_32": "decisions_per_s", "rllib_32": "decisions_per_s_stock"}.get(peer, "decisions_per_s_tensors")
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    rates = statistics.median(ours), statistics.median(theirs)
    return Measure(name, *rates, peer, statistics.median(ratios), (min(ratios), max(ratios)), "decisions/s")


def gain(tasks: list[Task], batches: int) -> Measure:
    """What is gained with as many decisions each."""
    found = []
    for task in track(tasks, "gain", console=CONSOLE):
        peers = {name: trainer for name, trainer in task.peers().items() if name in ("ours", "sb3_32")}
        for _ in range(batches):
            policies = {name: next(trainer) for name, trainer in peers.items()}
        found.append([task.gained(policies[name]) for name in ("ours", "sb3_32")])
        _close(peers)
    gained_J2 = np.array(found)
    logs_J = np.log(gained_J2[:, 0] / gained_J2[:, 1])
    reach = float(stats.t.isf(0.025, len(logs_J) - 1) * logs_J.std(ddof=1) / np.sqrt(len(logs_J)))
    low, high = np.exp(logs_J.mean() - reach), np.exp(logs_J.mean() + reach)
    ours, theirs = gained_J2.mean(axis=0).tolist()
    return Measure("gain", ours, theirs, "sb3_32", ours / theirs, (float(low), float(high)), "share of oracle's")


def _close(peers: dict[str, Any]) -> None:
    for trainer in peers.values():
        trainer.close()


if __name__ == "__main__":
    main()
