"""A sweep from its space to its table, its plot and the best settings, in a folder of its own under home/sweeps.

The folder belongs to one question: the same command again goes on where it was cut short, and another question is
refused. `sweep.json` is the question, `trials/` what Ray Tune keeps, the rest the answer.
"""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from actors.bandits.mixture import Mixture
from cluster import place
from cluster.config import Settings, changed
from cluster.config_text import as_values
from cluster.errors import ConfigError, StateError
from cluster.records import Dataset
from tune import metric
from tune.specialise import Content
from tune.stages import Stages
from tune.sweeps import coordinates
from tune.sweeps.generated import member
from tune.sweeps.request import Request, check_name
from tune.sweeps.search import RUNGS, Plan, search
from tune.sweeps.space import EXPLORING, Point
from tune.sweeps.swept import Row, Swept
from tune.sweeps.trials import Trials, features_key, situations, way

SHOWN = 10
"""Trials told of; the others are in the table."""
ELSEWHERE = ("home", "database_url", "registry", "cluster", "serve", "budgets", "gate", "tune")
"""Settings that do not change what a trial scores."""


@dataclass(frozen=True)
class Sweeper:
    """Checked and ready: who asks what of which data."""

    settings: Settings
    trials: Trials
    plan: Plan

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings, request: Request, content: Content | None = None) -> "Sweeper":
        """content: as in `Groundwork.of`.

        Raises ConfigError for a space or search that cannot be, EvidenceError for too few events."""
        dataset = metric.apply(dataset, settings)
        by = request.by or way(dataset)
        content = content or Content()
        request = replace(request, by=by, related=content.embedded(dataset.items))
        space = request.space(settings)
        plan = Plan.of(space, request.kind, request.most(settings), request.asha, settings.seed)
        rows = situations(dataset, settings, space.generates)
        return cls(settings, Trials(dataset, settings, by, rows, content=content), plan)

    def question(self) -> dict[str, Any]:
        """All that decides the table."""
        plan, trials = self.plan, self.trials
        settings = {key: value for key, value in as_values(self.settings).items() if key not in ELSEWHERE}
        return {
            "space": plan.space.facts(),
            "search": plan.kind,
            "asha": plan.asha,
            "trials": plan.trials,
            "by": trials.by,
            "events": len(trials.rows),
            "data": trials.dataset.facts.get("fingerprint"),
            "settings": settings,
            **trials.content.facts(),
        }

    @contextlib.contextmanager
    def taken(self, name: str | None) -> Iterator[Path]:
        """home/sweeps/<name>, by default a name of the question's own, for this process alone.

        Raises ConfigError where it holds the answer to another question or the name is none of a folder there,
        StateError where another process is at it.
        """
        digest = hashlib.sha256(json.dumps(self.question(), sort_keys=True).encode()).hexdigest()
        own = f"{self.trials.dataset.format}-{digest[:12]}"
        folder = self.settings.folder("sweeps") / (own if name is None else check_name(name))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it, however the process ends
            except BlockingIOError as error:
                raise StateError(
                    f"{folder}: another sweep is at work there; wait for it, or give another --name"
                ) from error
            _keep(folder / "sweep.json", self.question(), folder)
            yield folder

    def go(self, folder: Path, stages: Stages) -> dict[str, Any]:
        """Run what is left of the sweep in its folder; returns its figures."""
        self._warn(stages)
        trials = replace(self.trials, members=self._members(stages))
        with stages.stage("as configured"):
            # A copy: what it keeps need not travel to the workers.
            base = list(replace(trials).score({}, RUNGS if self.plan.asha else 1))
        with stages.stage("trials", self.settings.tune.budget_s) as stage:
            found = search(trials, self.plan, self.settings.tune, folder, stage.progress)
            left_out = self.plan.trials - len(found)
            stage.left_out = f"{left_out} trials not reached; the same command goes on with them" * bool(left_out)
        swept = Swept.of(self.plan.space, self._configured(), base, found)
        swept.save(folder / "trials.parquet")
        coordinates.save(swept, folder / "trials.png", f"{folder.name}: {len(swept.rows)} trials")
        place.write_private(folder / "best.yaml", self._best(swept.best, folder.name))
        return self._figures(swept, left_out, folder)

    def _members(self, stages: Stages) -> dict[str, Mixture]:
        """The generated member of each choice of features, by its key; none where no trial needs one."""
        space, trials = self.plan.space, self.trials
        if not space.generates:
            return {}
        most = space.most("sweep.top_k", self.settings.sweep.top_k)
        varied = [{p: v for p, v in point.items() if p.startswith("features.")} for point in ({}, *self.plan.points)]
        tried = [changed(self.settings, point) for point in varied]
        needed = {features_key(settings): settings for settings in tried}
        found = {}
        with stages.stage("generated members") as stage:
            for key, settings in needed.items():
                found[key] = member(trials.dataset, settings, most)
                stage.progress(len(found), len(needed))
        return found

    def _configured(self) -> Point:
        """What the settings as they are say of what varies."""
        return {path: reduce(getattr, path.split("."), self.settings) for path in self.plan.space.dimensions}

    def _warn(self, stages: Stages) -> None:
        exploring = [path for path in self.plan.space.dimensions if path in EXPLORING]
        if self.trials.by == "replay" and exploring:
            stages.warn(
                f"a replay cannot judge {', '.join(exploring)}: it learns from the log's choices whatever is tried, so "
                "that exploring can only cost; say --by world"
            )
        if not self.plan.repeats:
            stages.warn(
                "this search goes by which trial ends first: the same seed may give another table (no trial is lost)"
            )

    def _best(self, best: Row, name: str) -> str:
        """The settings of that trial that differ from the defaults, as `config.load` reads them."""
        settings = changed(self.settings, best.point)
        values = settings.model_dump(mode="json", exclude_defaults=True)
        which = "no trial did better than these settings" if best.trial is None else f"trial {best.trial}"
        return f"# sweep {name}: {which}\n{yaml.safe_dump(values)}"

    def _figures(self, swept: Swept, left_out: int, folder: Path) -> dict[str, Any]:
        states = {state: swept.count(state) for state in ("done", "stopped", "failed")}
        return {
            "name": folder.name,
            "by": self.trials.by,
            "trials": self.plan.trials,
            **states,
            "left_out": left_out,
            "repeats": self.plan.repeats,
            "configured": _told(swept.configured),
            "best": _told(swept.best),
            "better": (swept.best.difference_low or 0.0) > 0,
            "rows": [_told(row) for row in swept.rows[:SHOWN]],
            "folder": str(folder),
            "config": str(folder / "best.yaml"),
        }


def _told(row: Row) -> dict[str, Any]:
    return {**row.figures, "settings": row.point}


def _keep(path: Path, question: dict[str, Any], folder: Path) -> None:
    """Write the question, or compare it with the one that is there."""
    asked = json.loads(json.dumps(question))
    if not path.exists():
        aside = path.with_suffix(".partial")
        aside.write_text(json.dumps(asked, indent=1))
        aside.replace(path)
        return
    before = json.loads(path.read_text())
    differing = [key for key in asked if asked[key] != before.get(key)]
    if differing:
        key = differing[0]
        raise ConfigError(
            f"sweep {folder.name!r} was begun with other {' and other '.join(differing)} "
            f"({key}: {_brief(before.get(key), asked[key])}); give another --name, or remove {folder}"
        )


def _brief(before: Any, asked: Any) -> str:
    """The first difference in words."""
    if isinstance(before, dict) and isinstance(asked, dict):
        name = next(name for name in sorted({*before, *asked}) if before.get(name) != asked.get(name))
        return f"{name} {_brief(before.get(name), asked.get(name))}"
    return f"{before!r} then, {asked!r} now"
