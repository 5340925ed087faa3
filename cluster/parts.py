"""`medley compose` and `medley serve`: one part of a run by itself, on a Ray started here or joined."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cluster import ingress, place, programs, running, session
from cluster.config import Settings
from cluster.config_text import as_values
from cluster.errors import SourceError
from cluster.registry import DEFAULT_NAME, Registry
from cluster.run import end_serving, interrupted, new_folder, terminable, write_private
from cluster.running import Running
from cluster.session import Session


def compose(settings: Settings, data: Path, folder: Path | None, console: Console) -> dict[str, Any]:
    """Run `tune.compose` on an import; returns its JSON line.

    Raises:
        SourceError: there is no such import.
    """
    place.check_home(settings.home)
    source = next((one for one in (data, settings.home / "data" / data) if (one / "dataset.json").is_file()), None)
    if source is None:
        raise SourceError(f"--data {data}: no finished import there or under {settings.home / 'data'}")
    folder = (folder or new_folder(settings)).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    arguments = [
        "--data",
        str(source.absolute()),
        "--run",
        str(folder),
        "--name",
        DEFAULT_NAME,
        *_config(folder, settings),
    ]
    with terminable(), _ray(settings, console) as (ray, record):
        return programs.call("tune.compose", arguments, settings, record, console, ray=ray)


def serve(settings: Settings, console: Console) -> None:
    """Deploy the latest version and serve until Ctrl-C.

    Raises:
        RegistryError: there is no version yet.
        ClusterError: the port is taken, or another Medley runs on this home.
    """
    place.check_home(settings.home)
    Registry(settings.registry_uri).latest(DEFAULT_NAME)
    with terminable(), running.take(settings.home, "serve") as holder:
        if session.prepare(settings) is None:
            place.check_port(settings.serve.host, settings.serve.port)
        url = f"http://{settings.serve.host}:{settings.serve.port}"
        try:
            with console.status("starting Ray"):
                ray = session.start(settings)
            interrupted()
            holder.update(address=ray.address, local=ray.local, url=url)
            folder = new_folder(settings)
            folder.mkdir(parents=True)
            arguments = [*_config(folder, settings), "--registry-name", DEFAULT_NAME]
            programs.call("serve.deploy", arguments, settings, holder, console, ray=ray)
            ingress.record(settings.home)
            console.print(f"[green]✓[/] serving at {url} until Ctrl-C", highlight=False)
            holder.update(stage="serving")
            with contextlib.suppress(KeyboardInterrupt):
                while True:
                    time.sleep(3600)
        finally:
            end_serving(settings)


@contextlib.contextmanager
def _ray(settings: Settings, console: Console) -> Iterator[tuple[Session, Running]]:
    """The Ray of a `medley run` or `medley serve` on this home, the configured one, or one of our own."""
    record = running.alive(settings.home)
    if record and record.get("local") and settings.cluster.address is None:
        yield Session(record["address"], local=True, cpus=0, gpus=0), Running(None, "compose")
        return
    with console.status("starting Ray"):
        found = session.start(settings)
    interrupted()
    try:
        yield found, Running(None, "compose")
    finally:
        session.stop()


def _config(folder: Path, settings: Settings) -> list[str]:
    path = folder / "settings.yaml"
    write_private(path, yaml.safe_dump(as_values(settings)))
    return ["--config", str(path)]
