"""Memory of `tune.evaluate` and `tune.lockstep.simulate` beside their budgets: `measures()` asks a fresh process.

There the allocator gives large arrays back to the system as they are freed, so that nothing hides in what it keeps.
"""

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import json
import os
import subprocess
import sys

import numpy as np

from benchmarks import _lockstep
from benchmarks._ground import EACH, FEATURES, ITEMS, USERS, candidates, ground
from benchmarks._memory import peak_bytes
from benchmarks._pairs import Measure
from tune import evaluate, progressive
from tune.evaluate import Ground
from tune.lockstep import simulate as lockstep
from tune.progressive import Draws


def measures() -> list[Measure]:
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    words = [sys.executable, "-m", "benchmarks._peaks"]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    budgets = {"values_peak": evaluate.BUDGET_BYTES, "lockstep_peak": lockstep.BUDGET_BYTES}
    found = []
    for name, peak in json.loads(done.stdout).items():
        share = peak / budgets[name]
        found.append(Measure(name, peak / 2**20, budgets[name] / 2**20, "budget", share, (share, share), "MiB"))
    return found


def main() -> None:
    rng = np.random.default_rng(4)
    found: Ground = ground(rng, 64, USERS // 5, EACH, ITEMS, FEATURES)
    prior = candidates(rng, 256, 1, FEATURES)
    course, start = _lockstep.course(rng, 300, 1), _lockstep.prior(1)
    evaluate.values(progressive.take(prior, np.arange(1)), found, Draws())
    next(lockstep.simulate(_lockstep.settings(2), course, start))
    peaks = {
        "values_peak": peak_bytes(lambda: [None for _ in evaluate.choices(prior, found, Draws())]),
        "lockstep_peak": peak_bytes(lambda: next(lockstep.simulate(_lockstep.settings(4_096), course, start))),
    }
    print(json.dumps(peaks))


if __name__ == "__main__":
    main()
