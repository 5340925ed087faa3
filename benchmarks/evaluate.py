"""Valuing many candidate bandits on one log or in a simulation, against one Ray Tune trial each and MABWiser.

    python -m benchmarks.evaluate [--quick]

candidates_per_s, tune_trial_each   Each candidate is a linear policy of 64 features, valued doubly robustly with its
    interval by user on 10,000 logged events with 10 items (500 users of 20 events). Both sides run the same function
    on the same local Ray with one CPU, and the log lies once in the object store on both. The peer is how Ray Tune
    is used by default: a grid with one candidate a trial. Ours is `tune.candidate_sweep`: a grid of batches. Wall
    seconds from the call to the table, so that both pay for Tune's start. The benchmark fails unless a candidate's
    row is the same on both sides.
learning_per_s, tune_trial_each   The same with candidates that learn from each user's earlier events.
lockstep_per_s, tune_trial_each   Bandits that learn online along 1,000 events with 10 items and 32 joint features,
    every item's reward known: all in one trial by `tune.lockstep`, against a trial each in which one plays alone. The
    choices must be the same.
lockstep_joint and lockstep_arms, plain_loop   The same without Ray, on joint features and with parameters per item:
    candidate-events a CPU second of one thread, against the loop that updates one posterior at a time and factors
    only what changed.
lockstep_lints, mabwiser_lints   With parameters per item, against MABWiser's LinTS, `predict` and `partial_fit` event
    by event.
values_peak and lockstep_peak, budget   Greatest growth of memory in MiB, a table of values left out, beside the budget.
simulation, mabwiser_simulator   Policies that learn, with parameters per arm, along the sequences of 20 users: 40
    events of 16 features with 5 arms each, and each user is a task of its own. For every policy, user and event:
    predict from the user's earlier events, score against the log, learn. Ours is `tune.evaluate.values`, which also
    corrects for the logging policy; the peer is `mabwiser.simulator.Simulator` with four LinGreedy policies, in
    order, online (batch size 1), quick mode, one user after the other. Policy-events a CPU second, one thread.
simulation_bare, mabwiser_loop   The same against the least that MABWiser can do: `predict` and `partial_fit` in a
    loop, without the Simulator's statistics and without any score.
"""

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from mabwiser.simulator import Simulator

from benchmarks import _lockstep, _peaks
from benchmarks._ground import EACH, FEATURES, ITEMS, USERS, candidates, ground
from benchmarks._pairs import Measure, Pair, finish, measure
from cluster import session
from cluster.config import Settings, SweepSettings
from tune import candidate_sweep, evaluate, progressive
from tune.evaluate import Candidate
from tune.progressive import Draws

SIMULATED_USERS, SIMULATED_EACH, ARMS, CONTEXT, POLICIES = 20, 40, 5, 16, 64
HOLD_OUT, SIMULATED, AT_ONCE = 0.9, 36, 4
"""Share and number of a user's events that MABWiser simulates (it wants some to start from), policies at once."""


def swept(name: str, history: int, count: int, single: int, repeats: int, folder: Path) -> Measure:
    """Candidates a second of `count` in batches, and of `single` with a trial each."""
    rng = np.random.default_rng(0)
    found = ground(rng, history, USERS, EACH, ITEMS, FEATURES)
    everyone = candidates(rng, count, 1, FEATURES)
    few = progressive.take(everyone, np.arange(single))
    batches = SweepSettings(batch=-(-count // 4))
    ours, theirs = [], []
    for repeat in range(repeats):
        place = folder / f"{name}-{repeat}"
        seconds, table = wall(candidate_sweep.sweep, everyone, found, batches, folder=place / "batches")
        ours.append(count / seconds)
        seconds, rows = wall(candidate_sweep.sweep, few, found, SweepSettings(batch=1), folder=place / "each")
        theirs.append(single / seconds)
        same(table.rows[:single], rows.rows)
    ratios = [mine / peer for mine, peer in zip(ours, theirs, strict=True)]
    medians = (float(np.median(values)) for values in (ours, theirs, ratios))
    rate, peer, ratio = medians
    return Measure(name, rate, peer, "tune_trial_each", ratio, (min(ratios), max(ratios)), "candidates/s")


def wall(work: Callable[..., Any], *arguments: Any, **named: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work(*arguments, **named)
    return time.perf_counter() - start, found


def same(ours: tuple[Candidate, ...], theirs: tuple[Candidate, ...]) -> None:
    """Raises AssertionError unless every row has the same candidate, baseline and counts, and scores to 1e-6."""
    for mine, peer in zip(ours, theirs, strict=True):
        scores = np.array([[row.value, row.baseline_value, row.difference, row.low, row.high] for row in (mine, peer)])
        assert (mine.candidate, mine.users, mine.baseline) == (peer.candidate, peer.users, peer.baseline)
        assert np.allclose(*scores, rtol=0, atol=1e-6), f"{mine} differs from {peer}"


def simulation() -> list[Pair]:
    rng = np.random.default_rng(1)
    whole = ground(rng, 64, SIMULATED_USERS, SIMULATED_EACH, ARMS, CONTEXT)
    arm = np.tile(np.arange(ARMS), (len(whole.log), 1))
    shared = np.broadcast_to(whole.batch.phi_BKD[:, :1], whole.batch.phi_BKD.shape)
    found = replace(whole, batch=replace(whole.batch, phi_BKD=shared, arm_BK=arm))
    prior = candidates(rng, POLICIES, ARMS, CONTEXT)

    def ours(count: int) -> None:
        for _ in range(0, count, POLICIES * len(found.log)):
            evaluate.values(prior, found, Draws())

    def sequence(user: int) -> tuple[Any, Any, Any]:
        rows = slice(user * SIMULATED_EACH, (user + 1) * SIMULATED_EACH)
        return found.log.action_N[rows], found.log.reward_N[rows], found.batch.phi_BKD[rows, 0]

    def policy(number: int) -> MAB:
        return MAB(list(range(ARMS)), LearningPolicy.LinGreedy(0.0, l2_lambda=1.0 + number))

    def simulator(count: int) -> None:
        for task in range(-(-count // (SIMULATED * AT_ONCE))):
            policies = [(str(number), policy(number)) for number in range(AT_ONCE)]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                how = {"test_size": HOLD_OUT, "is_ordered": True, "batch_size": 1, "is_quick": True}
                Simulator(policies, *sequence(task % SIMULATED_USERS), **how).run()

    def loop(count: int) -> None:
        for task in range(-(-count // (SIMULATED * AT_ONCE))):
            action_N, reward_N, phi_ND = sequence(task % SIMULATED_USERS)
            for number in range(AT_ONCE):
                mab, first = policy(number), SIMULATED_EACH - SIMULATED
                mab.fit(action_N[:first], reward_N[:first], phi_ND[:first])
                for n in range(first, SIMULATED_EACH):
                    mab.predict(phi_ND[n : n + 1])
                    mab.partial_fit(action_N[n : n + 1], reward_N[n : n + 1], phi_ND[n : n + 1])

    whole_pass = POLICIES * len(found.log)
    unit, size = "policy-events/s", SIMULATED * AT_ONCE
    return [
        Pair("simulation", "mabwiser_simulator", unit, ours, simulator, (4 * whole_pass, size)),
        Pair("simulation_bare", "mabwiser_loop", unit, ours, loop, (4 * whole_pass, 4 * size)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer candidates, one repeat, under a minute")
    quick = parser.parse_args().quick
    logging.disable(logging.INFO)
    measures = [*_peaks.measures(), *measure([*simulation(), *_lockstep.pairs()], 3 if quick else 9)]
    with tempfile.TemporaryDirectory() as home:
        settings = Settings.model_validate({"home": Path(home), "cluster": {"cpus": 1}})
        with session.opened(settings):
            sizes = (4_096, 6, 1) if quick else (4_096, 16, 3)
            measures.append(swept("candidates_per_s", 0, *sizes, Path(home)))
            if not quick:
                measures.append(swept("learning_per_s", 64, 256, 16, 3, Path(home)))
            measures.append(_lockstep.swept(256, 6 if quick else 16, 1 if quick else 3, Path(home)))
    finish("evaluate", measures)


if __name__ == "__main__":
    main()
