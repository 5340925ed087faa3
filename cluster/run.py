"""`medley run`: import, compose, deploy, drive, report, serve; each stage is a program of its own.

A run has a folder home/runs/<id> with its settings, keys (mode 0600) and what its stages wrote. A run that
was killed leaves a folder without `done.json`: its keys are revoked at the next start, which begins clean; a
finished import is used again, and a finished version when that is asked for.
"""

import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pyarrow.compute as pc
import yaml
from rich.console import Console

from cluster import imports, ingress, place, programs, running, session
from cluster.config import Settings
from cluster.config_text import as_values
from cluster.errors import ClusterError, DatabaseError
from cluster.keys import opened
from cluster.progress import bar
from cluster.records import Dataset, decode
from cluster.registry import DEFAULT_NAME, Registry

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
        self.url = f"http://{settings.serve.host}:{settings.serve.port}"

    def execute(self, show: Show) -> None:
        """Run every stage; hand what traffic came to to `show`; serve on until Ctrl-C unless `once`."""
        self.plan.request.check()
        place.check_home(self.settings.home)
        with running.take(self.settings.home, "run") as holder, terminable():
            if session.prepare(self.settings) is None:
                place.check_port(self.settings.serve.host, self.settings.serve.port)
            revoke_abandoned(self.settings, self.console)
            self.folder.mkdir(parents=True)
            holder.update(run=str(self.folder), url=self.url)
            try:
                self._stages(holder, show)
            finally:
                self._clean_up()

    def _stages(self, holder: running.Running, show: Show) -> None:
        data = self._import()
        with self.console.status("starting Ray"):
            ray = session.start(self.settings)
        interrupted()
        holder.update(address=ray.address, local=ray.local)
        self._say(f"Ray at {ray.address}: {ray.cpus:g} CPUs, {ray.gpus:g} GPUs")
        config = self.folder / "settings.yaml"
        write_private(config, yaml.safe_dump(as_values(self.settings)))
        common = ["--config", str(config)]
        here = ["--data", str(data), "--run", str(self.folder), *common]
        budgets = self.settings.budgets

        def call(module: str, arguments: list[str], budget_s: float | None = None) -> dict[str, Any]:
            return programs.call(
                module,
                arguments,
                self.settings,
                holder,
                self.console,
                ray=ray,
                budget_s=budget_s,
            )

        if not (self.plan.reuse_version and self._published(data)):
            composing = budgets.backbone_s + budgets.head_s + budgets.sweep_s + budgets.confirm_s
            version = call("tune.compose", [*here, "--name", DEFAULT_NAME], composing)
            (self.folder / "published.json").write_text(json.dumps({"data": str(data), **version}))
        keys = create_keys(data, self.settings)
        write_private(self.folder / "keys.json", json.dumps(keys))
        call("serve.deploy", [*common, "--registry-name", DEFAULT_NAME])
        ingress.record(self.settings.home)
        self._say(f"answers at {self.url} after {time.monotonic() - self.started:.0f} s")
        traffic = ["--url", self.url, "--keys", str(self.folder / "keys.json")]
        figures = call("tune.drive", [*here, *traffic], budgets.drive_s)
        call("tune.report", ["--run", str(self.folder), "--out", str(self.plan.report)])
        ingress.record(self.settings.home)
        figures["seconds"] = round(time.monotonic() - self.started, 1)
        (self.folder / "done.json").write_text(json.dumps(figures))
        line = example(data, keys, self.url)
        show(figures, self.plan.report, None if self.plan.once else line)
        if not self.plan.once:
            self._serve(holder)

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
        rejected = f", {facts['rejected']} rows in quarantine" if facts["rejected"] else ""
        self._say(
            f"import: {time.monotonic() - start:.1f} s of {budget_s:g} s: {facts['events']:,} events, "
            f"{facts['items']:,} items, {facts['users']:,} users{rejected}"
        )
        return folder

    def _published(self, data: Path) -> bool:
        """Whether the latest version is an earlier run's, from this data; its facts are copied to this run."""
        published = Registry(self.settings.registry_uri).versions(DEFAULT_NAME)
        for earlier in sorted((self.settings.home / "runs").glob("*/published.json"), reverse=True):
            facts = json.loads(earlier.read_text())
            if facts["data"] == str(data) and facts["version"] == max(published, default=0):
                for name in ("compose.json", "published.json"):
                    shutil.copyfile(earlier.with_name(name), self.folder / name)
                self._say(f"compose: version {facts['version']} of an earlier run is used again")
                return True
        return False

    def _serve(self, holder: running.Running) -> None:
        holder.update(stage="serving")
        self._say("serving until Ctrl-C")
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
        self._say("stopping")

    def _clean_up(self) -> None:
        with contextlib.suppress(DatabaseError):  # the error that led here is the one to report
            revoke(self.folder, self.settings)
        with self.console.status("stopping Ray"):
            end_serving(self.settings)

    def _say(self, text: str) -> None:
        self.console.print(f"[green]✓[/] {text}", highlight=False)


def new_folder(settings: Settings) -> Path:
    """A folder of a run's own; the names sort by time."""
    return settings.home / "runs" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM (`medley stop`) ends us as Ctrl-C does, so that what we started ends too."""

    before = signal.getsignal(signal.SIGTERM)
    interrupted()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interrupted() -> None:
    """Take SIGTERM and SIGINT as Ctrl-C; once more after ray.init, which puts its own handler in place."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def with_window(settings: Settings, window_s: float) -> Settings:
    """The same settings with every reward's wait window at most `window_s`."""
    rewards = {
        name: kind.model_copy(update={"window_s": min(kind.window_s, window_s)})
        for name, kind in settings.rewards.items()
    }
    return settings.model_copy(update={"rewards": rewards})


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)


def create_keys(data: Path, settings: Settings) -> dict[str, str]:
    """A client for each tenant in the data, and a new key for each: {client_id: key}."""
    events = Dataset.load(data).events
    with opened(settings) as keys:
        clients = sorted(pc.unique(events["client_id"]).to_pylist())
        for client in clients:
            keys.create_client(client)
        return {client: keys.create_key(client) for client in clients}


def revoke(folder: Path, settings: Settings) -> int:
    """Revoke the keys of a run; the number revoked."""
    path = folder / "keys.json"
    if not path.exists():
        return 0
    with opened(settings) as keys:
        known = json.loads(path.read_text())
        for plain in known.values():
            keys.revoke(plain.split("_")[1])
    path.unlink()
    return len(known)


def revoke_abandoned(settings: Settings, console: Console) -> None:
    """The keys of runs that were killed still open the API: end them."""
    for path in sorted((settings.home / "runs").glob("*/keys.json")):
        with contextlib.suppress(DatabaseError, ValueError):  # another database, or a file cut short
            revoke(path.parent, settings)
        path.unlink(missing_ok=True)
        console.print(f"run {path.parent.name} was cut short; starting clean", highlight=False)


def end_serving(settings: Settings) -> None:
    """Leave Ray; a local one ends, and with it what it serves. Then exactly its ingress."""
    session.stop()
    ingress.end_left_behind(settings.home)


def example(data: Path, keys: dict[str, str], url: str) -> str:
    """A curl line for a real situation of the data, checked by asking it here first.

    Raises:
        ClusterError: the server does not answer it.
    """
    event = Dataset.load(data).events.slice(0, 1).to_pylist()[0]
    request = {
        "user_id": event["user_id"],
        "context": dict(list(decode(event["context"]).items())[:8]),
        "items": event["candidates"][:10] if event["candidates"] else None,
    }
    body = json.dumps({"requests": [request]}, ensure_ascii=False)
    key = keys[event["client_id"]]
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        answer = httpx.post(f"{url}/v1/decisions", content=body.encode(), headers=headers, timeout=10, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ClusterError(f"{url}/v1/decisions does not answer: {error}") from error
    flags = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())
    return f"curl -s {url}/v1/decisions {flags} -d {shlex.quote(body)}"
