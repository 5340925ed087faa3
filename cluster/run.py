"""`medley run`: import, compose, deploy, drive, report, serve; each stage is a program of its own.

A run has a folder home/runs/<id> with its settings, keys (mode 0600) and what its stages wrote. A run that
was killed leaves its keys there: they are revoked at the next start, which begins clean; a finished import
is used again, and a finished version when that is asked for.
"""

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Console

from cluster import config_text, example, imports, ingress, place, programs, run_keys, running, scheduling, session
from cluster.config import Settings
from cluster.errors import DatabaseError, JobError
from cluster.interrupts import take_signals, terminable, wait
from cluster.progress import bar
from cluster.registry import DEFAULT_NAME, Registry
from cluster.running import Running
from cluster.session import Session

WINDOW_S = 2.0
"""Wait window of rewards in a demonstration; a shop's default is half an hour."""

Show: TypeAlias = Callable[[dict[str, Any], Path, str | None], None]
"""Shows what traffic came to: figures, where the report lies, a curl line while it is served."""


@dataclass(frozen=True)
class Plan:
    """What `medley run` was asked for; `report` is where report.html goes."""

    request: imports.Request
    once: bool
    reuse_version: bool
    report: Path


class Run:
    """One `medley run`. `execute` leaves the ground as it found it, whatever happens inside."""

    def __init__(self, plan: Plan, settings: Settings, console: Console) -> None:
        self.plan = plan
        self.settings = with_window(settings, WINDOW_S)
        self.console = console
        self.started = time.monotonic()
        self.folder = new_folder(settings)
        self.data = Path()
        self.keys: dict[str, str] = {}
        self.url = f"http://{settings.serve.host}:{settings.serve.port}"

    def execute(self, show: Show) -> None:
        """Run every stage; hand what traffic came to to `show`; serve on until Ctrl-C unless `once`."""
        self.plan.request.check()
        place.check_home(self.settings.home)
        with running.take(self.settings.home, "run") as holder, terminable():
            if session.prepare(self.settings) is None:
                place.check_port(self.settings.serve.host, self.settings.serve.port)
            run_keys.revoke_abandoned(self.settings, self.console)
            self.folder.mkdir(parents=True)
            holder.update(run=str(self.folder), url=self.url)
            with ending(self.settings, self.folder, holder, self.console):
                self._stages(holder, show)

    def _stages(self, holder: Running, show: Show) -> None:
        self.data = self._import()
        ray = start_ray(self.settings, holder, self.console)
        call = Stages(self.settings, self.folder, holder, ray, self.console)
        if not (self.plan.reuse_version and self._found()):
            self._compose(call)
        self.keys = run_keys.create(self.folder, self.data, self.settings)
        call("serve.deploy", "--registry-name", DEFAULT_NAME)
        ingress.record(self.settings.home)
        self._say(f"answers at {self.url} after {time.monotonic() - self.started:.0f} s")
        figures = self._drive(call)
        line = example.curl_line(self.data, self.keys, self.url)
        show(figures, self.plan.report, None if self.plan.once else line)
        if not self.plan.once:
            holder.update(stage="serving", serving=True)
            self._say("serving until Ctrl-C")
            with scheduling.ticking(self.settings, self.console, call.config, holder, ray) as tick:
                wait(tick)

    def _import(self) -> Path:
        """Import once; the same input again is found finished."""
        found = imports.done(self.plan.request, self.settings)
        if found is not None:
            self._say(f"import: {found} is there already")
            return found
        start, budget_s = time.monotonic(), self.settings.budgets.import_s
        with bar(self.console, f"import {self.plan.request.format}") as progress:
            imported = imports.read(self.plan.request, self.settings, progress)
            folder = imports.save(self.plan.request, self.settings, imported)
        facts = imports.summary(imported)
        rejected = f", {facts['rejected']:,} rows in quarantine" if facts["rejected"] else ""
        self._say(
            f"import: {time.monotonic() - start:.1f} s of {budget_s:g} s: {facts['events']:,} events, "
            f"{facts['items']:,} items, {facts['users']:,} users{rejected}"
        )
        return folder

    def _compose(self, call: "Stages") -> None:
        given = self.settings.budgets
        budget_s = given.backbone_s + given.head_s + given.select_s + given.sweep_s + given.confirm_s
        words = ["--data", str(self.data), "--run", str(self.folder), "--name", DEFAULT_NAME]
        version = call("tune.compose", *words, budget_s=budget_s)
        (self.folder / "published.json").write_text(json.dumps({"data": str(self.data), **version}))

    def _found(self) -> bool:
        """Whether the latest version is an earlier run's, from this data; its facts are copied to this run."""
        published = Registry(self.settings.registry_uri).versions(DEFAULT_NAME)
        for earlier in sorted((self.settings.home / "runs").glob("*/published.json"), reverse=True):
            facts = json.loads(earlier.read_text())
            if facts["data"] == str(self.data) and facts["version"] == max(published, default=0):
                for name in ("compose.json", "published.json"):
                    shutil.copyfile(earlier.with_name(name), self.folder / name)
                self._say(f"compose: version {facts['version']} of an earlier run is used again")
                return True
        return False

    def _drive(self, call: "Stages") -> dict[str, Any]:
        words = ["--data", str(self.data), "--run", str(self.folder), "--url", self.url]
        keys = str(self.folder / run_keys.FILE)
        figures = call("tune.drive", *words, "--keys", keys, budget_s=self.settings.budgets.drive_s)
        call("tune.report", "--run", str(self.folder), "--out", str(self.plan.report), configured=False)
        figures["seconds"] = round(time.monotonic() - self.started, 1)
        return figures

    def _say(self, text: str) -> None:
        self.console.print(f"[green]✓[/] {text}", highlight=False)


class Stages:
    """Calls programs with the settings of one run, which it writes to the run's folder."""

    def __init__(self, settings: Settings, folder: Path, holder: Running, ray: Session, console: Console) -> None:
        self._settings, self._holder, self._ray, self._console = settings, holder, ray, console
        self.config = folder / "settings.yaml"
        config_text.write(settings, self.config)

    def __call__(
        self, module: str, *words: str, budget_s: float | None = None, configured: bool = True
    ) -> dict[str, Any]:
        arguments = [*words, *(["--config", str(self.config)] if configured else [])]
        return programs.call(
            module, arguments, self._settings, self._holder, self._console, ray=self._ray, budget_s=budget_s
        )


def new_folder(settings: Settings) -> Path:
    """A folder of a run's own; the names sort by time."""
    return settings.home / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def with_window(settings: Settings, window_s: float) -> Settings:
    """The same settings with every reward's wait window at most `window_s`."""
    rewards = {
        name: kind.model_copy(update={"window_s": min(kind.window_s, window_s)})
        for name, kind in settings.rewards.items()
    }
    return settings.model_copy(update={"rewards": rewards})


def start_ray(settings: Settings, holder: Running, console: Console) -> Session:
    """Start or join Ray and say where it is."""
    with console.status("starting Ray"):
        ray = session.start(settings)
    take_signals()
    holder.update(address=ray.address, local=ray.local)
    console.print(f"[green]✓[/] Ray at {ray.address}: {ray.cpus:g} CPUs, {ray.gpus:g} GPUs", highlight=False)
    return ray


@contextlib.contextmanager
def ending(settings: Settings, folder: Path, holder: Running, console: Console) -> Iterator[None]:
    """What was started inside ends: keys, what is served, a local Ray, its ingress."""
    try:
        yield
    finally:
        with contextlib.suppress(DatabaseError):  # the error that led here is the one to report
            run_keys.revoke(folder, settings)
        try:
            _end_serving(settings, folder, holder, console)
        finally:
            with console.status("stopping Ray"):
                session.stop()
                ingress.end_left_behind(settings.home)


def _end_serving(settings: Settings, folder: Path, holder: Running, console: Console) -> None:
    """Let calls in work be answered, and take off what we put on a Ray that goes on without us."""
    address, local = holder.facts.get("address"), holder.facts.get("local")
    if address and (holder.facts.get("serving") or not local):
        ray = Session(address, local=bool(local), cpus=0, gpus=0)
        with contextlib.suppress(JobError):
            Stages(settings, folder, holder, ray, console)("serve.deploy", "--end", "--registry-name", DEFAULT_NAME)
