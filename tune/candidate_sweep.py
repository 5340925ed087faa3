"""The sweep: every candidate valued on *select*, in batches, by Ray Tune or in this process.

Many candidates per trial and few trials: a trial costs half a second to start, a candidate milliseconds. What
trials share is placed once in the object store. A candidate's row depends on nothing but the candidate, so the
table is the same whatever the batches, their order or their machine.

Shapes: C candidates, U users.
"""

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.bandits.mixture import Mixture
from actors.features.features import Ints
from cluster.config import SweepSettings
from cluster.errors import JobError
from tune import evaluate
from tune.evaluate import Candidate, Ground
from tune.log import Bools
from tune.progressive import Draws, take

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Swept:
    """rows: valued candidates by name. left_out: names of those that time did not allow."""

    rows: tuple[Candidate, ...]
    left_out: tuple[str, ...]
    events_left_out: int = 0

    @property
    def note(self) -> str:
        """What was left out, in words; empty where nothing was."""
        parts = []
        if self.left_out:
            total = len(self.rows) + len(self.left_out)
            parts.append(f"{len(self.left_out)} of {total} candidates left out")
        if self.events_left_out:
            parts.append(f"{self.events_left_out:,} events left out of the sweep")
        return ", ".join(parts)

    def table(self) -> pa.Table:
        columns = {f.name: [getattr(row, f.name) for row in self.rows] for f in fields(Candidate)}
        return pa.table(columns)

    def save(self, path: Path) -> None:
        """Write the table as Parquet, aside and then renamed."""
        aside = path.with_suffix(".partial")
        pq.write_table(self.table(), aside, compression="zstd")
        aside.replace(path)


@dataclass(frozen=True)
class Work:
    """What every trial needs; picklable, placed once in the object store."""

    mixture: Mixture
    ground: Ground
    domain_UC: Bools
    draws: Draws

    def batch(self, candidates: Ints) -> list[Candidate]:
        return evaluate.assess(take(self.mixture, candidates), self.ground, self.domain_UC[:, candidates], self.draws)


def sweep(
    mixture: Mixture,
    ground: Ground,
    settings: SweepSettings,
    *,
    left_s: Callable[[], float] = lambda: float("inf"),
    folder: Path | None = None,
    seed: int = 0,
    scale: float = 1.0,
    progress: Progress = lambda done, total: None,
) -> Swept:
    """Value every candidate of the mixture.

    Args:
        left_s: seconds until the time budget is spent. Batches that have not ended then are left out; one
            batch is always valued.
        folder: where Ray Tune keeps its trials, for a running Ray; None values the batches in this process.
        scale: α, the factor on posterior draws.

    Raises:
        JobError: a trial failed; the message is its error.
    """
    if not mixture.names_C:
        return Swept((), ())
    small = ground.within(settings.ground_bytes)
    work = Work(mixture, small, evaluate.domains(mixture, small), Draws(settings.particles, scale, seed))
    batches = np.array_split(np.arange(len(mixture.names_C)), -(-len(mixture.names_C) // settings.batch))
    if folder is None:
        found = _here(work, batches, left_s, progress)
    else:
        found = _on_ray(work, batches, settings, folder, left_s, progress)
    valued = {row.candidate for row in found}
    rows = tuple(sorted(found, key=lambda row: row.candidate))
    left_out = tuple(sorted(name for name in mixture.names_C if name not in valued))
    return Swept(rows, left_out, len(ground.log) - len(small.log))


def _here(work: Work, batches: Sequence[Ints], left_s: Callable[[], float], progress: Progress) -> list[Candidate]:
    found: list[Candidate] = []
    for done, batch in enumerate(batches):
        if done and left_s() <= 0:
            break
        found += work.batch(batch)
        progress(done + 1, len(batches))
    return found


def _on_ray(
    work: Work,
    batches: Sequence[Ints],
    settings: SweepSettings,
    folder: Path,
    left_s: Callable[[], float],
    progress: Progress,
) -> list[Candidate]:
    from ray import tune as ray_tune  # after cluster.session has prepared it

    class Ended(ray_tune.Callback):
        """Shows trials as they end. Tune pickles its callbacks, and a progress bar holds locks: it stays here."""

        def __init__(self, progress: Progress) -> None:
            self.progress, self.ended = progress, 0

        def __getstate__(self) -> dict[str, Any]:
            return {"progress": _silent, "ended": self.ended}

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            self.ended += 1
            self.progress(self.ended, len(batches))

    budget_s = left_s()
    if budget_s <= 0:
        return work.batch(batches[0])
    tuner = ray_tune.Tuner(
        ray_tune.with_resources(
            ray_tune.with_parameters(_trial, work=work, batches=list(batches)), {"cpu": settings.trial_cpus}
        ),
        param_space={"batch": ray_tune.grid_search(list(range(len(batches))))},
        tune_config=ray_tune.TuneConfig(
            max_concurrent_trials=settings.concurrent,
            time_budget_s=None if np.isinf(budget_s) else budget_s,
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(
            name="sweep", storage_path=str(folder.absolute()), verbose=0, callbacks=[Ended(progress)]
        ),
    )
    with contextlib.redirect_stdout(io.StringIO()):  # Tune's tables; a job's last line of output is its answer
        results = tuner.fit()
    if results.errors:
        raise JobError(f"a trial of the sweep failed: {results.errors[0]}")
    texts = [(results[number].metrics or {}).get("rows") for number in range(len(results))]
    found = [Candidate(**row) for text in texts if text for row in json.loads(text)]
    return found or work.batch(batches[0])


def _silent(done: int, total: int) -> None:
    """No progress."""


def _trial(config: dict[str, Any], work: Work, batches: list[Ints]) -> None:
    from ray import tune as ray_tune

    rows = work.batch(batches[config["batch"]])
    ray_tune.report({"rows": json.dumps([asdict(row) for row in rows])})
