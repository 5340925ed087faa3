"""Bandits that learn online, in lock step: against one candidate a Ray Tune trial, a plain loop, and MABWiser.

Every candidate is an exploration scale, a noise and a half-life on the same features; an event's rewards are known
for all items. All sides get the same course, and the same choices are asserted where the algorithm is the same.
"""

import contextlib
import hashlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from mabwiser.mab import MAB, LearningPolicy
from numpy.typing import NDArray

from actors.bandits.ensemble import Prior
from actors.features.features import FeatureBatch
from benchmarks import _one_at_a_time
from benchmarks._pairs import Measure, Pair
from tune.lockstep import simulate as lockstep
from tune.lockstep.beliefs import Setting
from tune.lockstep.course import Course

ITEMS, FEATURES, EVENTS, COUNT = 10, 32, 1_000, 256


def course(rng: np.random.Generator, events: int, arms: int) -> Course:
    """Clicks by a planted θ, which is each item's own where there are several arms."""
    width = ITEMS if arms == 1 else 1
    phi = rng.normal(size=(events, width, FEATURES))
    arm = np.tile(np.arange(ITEMS), (events, 1)) if arms > 1 else np.zeros((events, ITEMS), np.int64)
    phi = np.broadcast_to(phi, (events, ITEMS, FEATURES))
    theta = rng.normal(size=(arms, FEATURES)) / np.sqrt(FEATURES)
    mean = np.einsum("nkd,nkd->nk", phi, theta[arm])
    keys = np.tile(rng.integers(0, 2**63, ITEMS).astype(np.uint64), (events, 1))
    batch = FeatureBatch(phi, arm, arm, keys, np.ones((events, ITEMS), bool), np.zeros((events, 1)))
    return Course(batch, (rng.random((events, ITEMS)) < 1 / (1 + np.exp(1 - 2 * mean))).astype(float))


def prior(arms: int) -> Prior:
    return Prior("linear", np.tile(np.eye(FEATURES), (arms, 1, 1)), np.zeros((arms, FEATURES)), 0.25, "features")


def settings(count: int) -> list[Setting]:
    return [
        Setting(exploration_scale=scale, noise=(0.1, 0.25)[c % 2], half_life=(None, 2_000.0)[c // 2 % 2])
        for c, scale in enumerate(np.linspace(0, 2, count).tolist())
    ]


def pairs() -> list[Pair]:
    """Candidate-events a CPU second of one thread."""
    rng = np.random.default_rng(2)
    found = []
    for arms, name in ((1, "lockstep_joint"), (ITEMS, "lockstep_arms")):
        there, start, tried = course(rng, 100, arms), prior(arms), settings(COUNT)

        def together(count: int, there: Course = there, start: Prior = start, tried: list[Setting] = tried) -> None:
            for _ in range(0, count, COUNT * len(there)):
                list(lockstep.simulate(tried, there, start))

        def loop(count: int, there: Course = there, start: Prior = start, tried: list[Setting] = tried) -> None:
            for place in range(-(-count // len(there))):
                _one_at_a_time.play(tried[place], there, start)

        sizes = (2 * COUNT * len(there), 10 * len(there))
        found.append(Pair(name, "plain_loop", "candidate-events/s", together, loop, sizes))
    features, rewards = there.batch.phi_BKD[:, 0], there.reward_NK

    def mabwiser(count: int) -> None:
        for _ in range(-(-count // len(there))):
            mab = MAB(list(range(ITEMS)), LearningPolicy.LinTS(alpha=0.5, l2_lambda=1.0))
            mab.fit(np.arange(ITEMS), np.zeros(ITEMS), np.zeros((ITEMS, FEATURES)))
            for n in range(len(there)):
                chosen = mab.predict(features[n : n + 1])
                mab.partial_fit([chosen], [rewards[n, chosen]], features[n : n + 1])

    return [*found, Pair("lockstep_lints", "mabwiser_lints", "candidate-events/s", together, mabwiser, (sizes[0], 200))]


def swept(count: int, single: int, repeats: int, folder: Path) -> Measure:
    """Candidates a second: all of them in one Ray Tune trial in lock step, and one in a trial, one at a time."""
    there, start, tried = course(np.random.default_rng(3), EVENTS, 1), prior(1), settings(count)
    few = [tried[c] for c in np.linspace(0, count - 1, single).astype(int)]
    ours, theirs = [], []
    for repeat in range(repeats):
        seconds, mine = _tuned(_together, [tried], there, start, folder / f"together-{repeat}")
        ours.append(count / seconds)
        seconds, each = _tuned(_alone, [[setting] for setting in few], there, start, folder / f"alone-{repeat}")
        theirs.append(single / seconds)
        for setting, digest in zip(few, each, strict=True):
            assert digest == mine[tried.index(setting)], f"{setting} chose otherwise in lock step"
    ratios = [one / two for one, two in zip(ours, theirs, strict=True)]
    rate, peer, ratio = (float(np.median(values)) for values in (ours, theirs, ratios))
    span = (min(ratios), max(ratios))
    return Measure("lockstep_per_s", rate, peer, "tune_trial_each", ratio, span, "candidates/s")


def _tuned(
    trainable: Any, batches: list[list[Setting]], there: Course, start: Prior, folder: Path
) -> tuple[float, list[str]]:
    """Wall seconds of a Ray Tune grid over the batches, and a digest of every candidate's choices."""
    from ray import tune as ray_tune  # after cluster.session has prepared it

    begun = time.perf_counter()
    tuner = ray_tune.Tuner(
        ray_tune.with_parameters(trainable, batches=batches, there=there, start=start),
        param_space={"batch": ray_tune.grid_search(list(range(len(batches))))},
        tune_config=ray_tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
        run_config=ray_tune.RunConfig(storage_path=str(folder.absolute()), verbose=0),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        results = tuner.fit()
    seconds = time.perf_counter() - begun
    texts = (results[number].metrics["choices"] for number in range(len(batches)))
    return seconds, [digest for text in texts for digest in text.split()]


def _together(config: dict[str, Any], batches: list[list[Setting]], there: Course, start: Prior) -> None:
    parts = lockstep.simulate(batches[config["batch"]], there, start)
    _report(np.concatenate([part.item_CN for part in parts]))


def _alone(config: dict[str, Any], batches: list[list[Setting]], there: Course, start: Prior) -> None:
    _report(np.stack([_one_at_a_time.play(setting, there, start)[0] for setting in batches[config["batch"]]]))


def _report(item_CN: NDArray[np.integer[Any]]) -> None:
    from ray import tune as ray_tune

    digests = (hashlib.sha256(row_N.astype(np.int64).tobytes()).hexdigest() for row_N in item_CN)
    ray_tune.report({"choices": " ".join(digests)})
