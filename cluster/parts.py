"""`medley compose`, `medley tune` and `medley serve`: one part of a run by itself, on a Ray started here or joined; and
parts that need no Ray."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import ingress, place, programs, running, scheduling, session
from cluster.config import Settings
from cluster.errors import SourceError
from cluster.interrupts import terminable, wait
from cluster.registry import DEFAULT_NAME, Registry
from cluster.run import Stages, ending, new_folder, start_ray
from cluster.running import Running
from cluster.session import Session


def compose(settings: Settings, data: Path, folder: Path | None, console: Console) -> dict[str, Any]:
    """Run `tune.compose` on an import; returns its JSON line.

    Raises:
        SourceError: there is no such import.
    """
    folder = (folder or new_folder(settings)).absolute()
    words = ["--data", str(_imported(settings, data)), "--run", str(folder), "--name", DEFAULT_NAME]
    return _job("tune.compose", words, settings, folder, console)


def tune(settings: Settings, data: Path, words: Sequence[str], console: Console) -> dict[str, Any]:
    """Run `tune.sweep` on an import, with these words more; returns its JSON line.

    Raises:
        SourceError: there is no such import.
        ConfigError: a word or the search space cannot be; no Ray was started.
    """
    words = ["--data", str(_imported(settings, data)), *words]
    programs.check("tune.sweep", words, settings)
    return _job("tune.sweep", words, settings, new_folder(settings), console)


def _imported(settings: Settings, data: Path) -> Path:
    """The folder of an import, given by its path or its name under home/data."""
    place.check_home(settings.home)
    places = (data.absolute(), settings.home / "data" / data)
    source = next((one for one in places if (one / "dataset.json").is_file()), None)
    if source is None:
        raise SourceError(f"--data {data}: no finished import there or under {settings.home / 'data'}")
    return source


def _job(module: str, words: Sequence[str], settings: Settings, folder: Path, console: Console) -> dict[str, Any]:
    """Run a job to its end, with its settings in `folder`; returns its JSON line."""
    folder.mkdir(parents=True, exist_ok=True)
    holder = Running(None, module.rpartition(".")[2])
    with terminable(), _ray(settings, holder, console) as ray:
        return Stages(settings, folder, holder, ray, console)(module, *words)


def serve(settings: Settings, console: Console) -> None:
    """Deploy the latest version and serve until Ctrl-C.

    Raises:
        RegistryError: there is no version yet.
        ClusterError: the port is taken, or another Medley runs on this home.
    """
    place.check_home(settings.home)
    Registry(settings.registry_uri).latest(DEFAULT_NAME)
    with running.take(settings.home, "serve") as holder, terminable():
        if session.prepare(settings) is None:
            place.check_port(settings.serve.host, settings.serve.port)
        folder = new_folder(settings)
        folder.mkdir(parents=True)
        with ending(settings, folder, holder, console):
            ray = start_ray(settings, holder, console)
            call = Stages(settings, folder, holder, ray, console)
            facts = call("serve.deploy", "--registry-name", DEFAULT_NAME)
            ingress.record(settings.home)
            holder.update(stage="serving", url=facts["url"], serving=True)
            console.print(f"[green]✓[/] serving at {facts['url']} until Ctrl-C", highlight=False)
            with scheduling.ticking(settings, console, call.config, holder, ray) as tick:
                wait(tick)


def program(module: str, words: Sequence[str], settings: Settings) -> int:
    """Run a module in the caller's folder and on its streams; returns its exit code. -P: no file of that folder may
    hide a module of ours."""
    return subprocess.call([sys.executable, "-P", "-m", module, *words], env=programs.environment(settings, None))


@contextlib.contextmanager
def _ray(settings: Settings, holder: Running, console: Console) -> Iterator[Session]:
    """The Ray of a `medley run` or `medley serve` on this home, the configured one, or one of our own."""
    record = running.alive(settings.home)
    if record and record.get("local") and settings.cluster.address is None:
        yield Session(record["address"], local=True, cpus=0, gpus=0)
        return
    try:
        yield start_ray(settings, holder, console)
    finally:
        session.stop()
