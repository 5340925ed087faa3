"""The search: Ray Tune runs trials over settings, loses none when a worker or this process is killed, and resumes.

Grid and random search draw their points up front, so that a table is the same for the same seed, however often it
was interrupted. Optuna and ASHA go by which trial ended when: they repeat no table, but lose no trial either.

Import after `cluster.session` has prepared Ray. Shapes: U users.
"""

import base64
import contextlib
import io
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import optuna
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from actors.features.features import Floats
from cluster.config import TuneSettings
from cluster.errors import MedleyError
from tune.sweeps.request import Kind
from tune.sweeps.space import Dimension, Point, Space, Values
from tune.sweeps.trials import Score, Trials

RUNGS, REDUCTION = 4, 3
"""ASHA looks after each quarter of the events, and lets the best third go on."""
FOLDER = "trials"
"""Ray Tune's folder within that of a sweep."""
STATES, WHOLE = "experiment_state-*.json", "whole_state.json"
"""Tune's states, the last by name the newest, and our copy of one that is whole."""
ASKED_EVERY_S = 0.5
"""Between two requests to end, the first of which may have come too early."""


@dataclass(frozen=True)
class Plan:
    """points: what grid and random search try; Optuna draws `trials` points from the space itself."""

    space: Space
    kind: Kind
    points: tuple[Point, ...]
    trials: int
    asha: bool
    seed: int

    @classmethod
    def of(cls, space: Space, kind: Kind, trials: int, asha: bool, seed: int) -> "Plan":
        match kind:
            case "grid":
                points = tuple(space.grid(trials))
            case "random":
                points = tuple(space.random(trials, seed))
            case _:
                points = ()
        return cls(space, kind, points, len(points) or trials, asha, seed)

    @property
    def repeats(self) -> bool:
        """Whether the same seed gives the same table."""
        return self.kind != "optuna" and not self.asha

    def point(self, config: dict[str, Any]) -> Point:
        """What a trial of this Ray Tune configuration tries."""
        if self.points:
            return self.points[int(config["number"])]
        return {path: dimension.at(config[path]) for path, dimension in self.space.dimensions.items()}

    def parameters(self) -> dict[str, Any]:
        """The search space as Ray Tune takes it; trials of equal features stand together and share a feature map."""
        if self.points:
            numbers = sorted(range(len(self.points)), key=lambda number: _features(self.points[number]))
            return {"number": ray_tune.grid_search(numbers)}
        return {path: _domain(dimension) for path, dimension in self.space.dimensions.items()}


@dataclass(frozen=True)
class Found:
    """What came of one trial. score: None where it failed, with the reason in `error`, or was not reached.

    stopped: ASHA ended it before its last event.
    """

    number: int
    point: Point
    score: Score | None
    error: str = ""
    stopped: bool = False


class Trial(ray_tune.Trainable):
    """One trial; the actor that ran it runs the next one with what both share."""

    def setup(self, config: dict[str, Any], trials: Trials, plan: Plan) -> None:  # type: ignore[override]
        self._trials, self._plan = trials, plan
        self._rungs = RUNGS if plan.asha else 1
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._scores = self._trials.score(self._plan.point(new_config), self._rungs)
        return True

    def step(self) -> dict[str, Any]:
        low = self._trials.settings.reward.low
        try:
            score = next(self._scores)
        except MedleyError as error:  # these settings cannot be scored, and would not be at another try
            return {"value": low, "error": str(error), "done": True}
        done = score.events == len(self._trials.rows)
        return {"value": score.value, "sums": _pack(score.sums_U), "counts": _pack(score.counts_U), "done": done}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial that is cut short begins again."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


class Ended(ray_tune.Callback):
    """Shows trials as they end, and keeps them. Tune pickles its callbacks with the search, to unpickle them when it
    resumes, and a progress bar holds locks: all of this is on the class."""

    progress: ClassVar[Callable[[int, int], None]] = staticmethod(lambda done, total: None)
    total: ClassVar[int] = 0
    trials: ClassVar[list[Any]] = []
    place: ClassVar[Path | None] = None

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        Ended.progress(sum(one.is_finished() for one in trials) + 1, Ended.total)
        if Ended.place is not None:
            keep_state(Ended.place)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        Ended.trials = list(trials)


def keep_state(place: Path) -> None:
    """Copy Tune's state where it is whole: Tune writes it in place, and a kill may cut it short."""
    state = max(place.glob(STATES), default=None)
    if state is not None and (text := _whole(state)):
        aside = place / f"{WHOLE}.partial"
        aside.write_text(text)
        aside.replace(place / WHOLE)


def resumable(place: Path) -> bool:
    """Whether Tune can go on here; a state that was cut short gives way to the last whole one, or is removed."""
    state = max(place.glob(STATES), default=None)
    if state is not None and not _whole(state):
        state.unlink()
        if (place / WHOLE).exists():
            state.write_text((place / WHOLE).read_text())
    return bool(ray_tune.Tuner.can_restore(str(place))) and any(place.glob(STATES))


def _whole(state: Path) -> str:
    """The text of a state, empty where it is no JSON."""
    try:
        text = state.read_text()
        json.loads(text)
    except (OSError, ValueError):
        return ""
    return text


def search(
    trials: Trials, plan: Plan, settings: TuneSettings, folder: Path, progress: Callable[[int, int], None]
) -> list[Found]:
    """Run all trials, or those that an earlier call with the same folder did not end; in order of their numbers.

    Trials that the time budget does not reach are not among them.
    """
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "2")  # seconds of trials that a killed driver repeats
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for name in ("ray.tune.tune", "ray.tune.analysis.experiment_analysis"):  # of trials that were not reached
        logging.getLogger(name).setLevel(logging.CRITICAL)
    Ended.progress, Ended.total, Ended.trials = staticmethod(progress), plan.trials, []
    trainable = ray_tune.with_resources(
        ray_tune.with_parameters(Trial, trials=trials, plan=plan),
        {"cpu": settings.trial_cpus, "gpu": settings.trial_gpus},
    )
    place = folder / FOLDER
    Ended.place = place
    if resumable(place):
        tuner = ray_tune.Tuner.restore(str(place), trainable, restart_errored=True)
    else:
        tuner = _begun(trainable, plan, settings, folder)
    # Tune's tables; a job's last line of output is its answer.
    with contextlib.redirect_stdout(io.StringIO()), _within(settings.budget_s):
        tuner.fit()
    found = [_found(plan, number, trial, len(trials.rows)) for number, trial in enumerate(Ended.trials)]
    return sorted((one for one in found if one is not None), key=lambda one: one.number)


@contextlib.contextmanager
def _within(budget_s: float | None) -> Iterator[None]:
    """After the budget, ask Tune to end as it does for SIGUSR1: trials that run then are left for the next start.

    Its own time budget would count them as ended.
    """
    over = threading.Event()
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until Tune has put its own in place

    def ask() -> None:
        wait_s = budget_s
        while not over.wait(wait_s):
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_s = ASKED_EVERY_S

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
        signal.signal(signal.SIGUSR1, before)


def _begun(trainable: Any, plan: Plan, settings: TuneSettings, folder: Path) -> Any:
    adaptive = OptunaSearch(metric="value", mode="max", seed=plan.seed) if plan.kind == "optuna" else None
    halving = ASHAScheduler(metric="value", mode="max", max_t=RUNGS, grace_period=1, reduction_factor=REDUCTION)
    return ray_tune.Tuner(
        trainable,
        param_space=plan.parameters(),
        tune_config=ray_tune.TuneConfig(
            search_alg=adaptive,
            num_samples=plan.trials if adaptive else 1,
            scheduler=halving if plan.asha else None,
            max_concurrent_trials=settings.concurrent,
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(
            name=FOLDER,
            storage_path=str(folder),
            failure_config=ray_tune.FailureConfig(max_failures=settings.max_failures),
            verbose=0,
            callbacks=[Ended()],
        ),
    )


def _found(plan: Plan, number: int, trial: Any, events: int) -> Found | None:
    """What came of a trial of Tune's; None where it did not end."""
    number, point = trial.config.get("number", number), plan.point(trial.config)
    if trial.status == "ERROR":
        return Found(number, point, None, str(trial.get_error()).strip().splitlines()[-1])
    metrics = trial.last_result
    if not metrics.get("done"):
        return None
    if "error" in metrics:
        return Found(number, point, None, metrics["error"])
    score = Score(_unpack(metrics["sums"]), _unpack(metrics["counts"]))
    return Found(number, point, score, stopped=score.events < events)


def _domain(dimension: Dimension) -> Any:
    """What `Dimension.at` takes, as Ray Tune draws it."""
    return (
        ray_tune.choice(range(len(dimension.values))) if isinstance(dimension, Values) else ray_tune.uniform(0.0, 1.0)
    )


def _features(point: Point) -> str:
    return json.dumps({path: value for path, value in point.items() if path.startswith("features.")})


def _pack(values_U: Floats) -> str:
    return base64.b64encode(values_U.astype("<f8").tobytes()).decode()


def _unpack(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f8")
