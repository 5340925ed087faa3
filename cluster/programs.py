"""The other parts as programs: `python -m tune.compose`, `serve.deploy`, `tune.drive`, `tune.report`.

Each gets absolute paths, prints progress on stderr and, where it has a result, one JSON object as the last
line of stdout. It is never imported here.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from cluster import config_text, session
from cluster.config import Settings
from cluster.errors import ConfigError, JobError
from cluster.running import Running
from cluster.session import Session


def call(
    module: str,
    arguments: Sequence[str],
    settings: Settings,
    running: Running,
    console: Console,
    *,
    ray: Session | None = None,
    budget_s: float | None = None,
) -> dict[str, Any]:
    """Run a module to its end; returns its JSON line, {} where it prints none.

    Args:
        ray: the Ray to join.
        budget_s: what the program was given, to be shown beside what it took; the program keeps to it itself.

    Raises:
        JobError: it ended with an error, which it has said on stderr.
    """
    start = time.monotonic()
    running.update(stage=module)
    command = [sys.executable, "-m", module, *arguments]
    child = subprocess.Popen(
        command, cwd=session.ROOT, env=environment(settings, ray), stdout=subprocess.PIPE, text=True
    )
    with child, running.child(child.pid):
        last = _forward(child, console)
        code = child.wait()
    if code != 0:
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        raise JobError(f"{module} failed ({reason}); its message stands above")
    budget = f" of {budget_s:g} s" if budget_s else ""
    console.print(f"[green]✓[/] {module}: {time.monotonic() - start:.1f} s{budget}", highlight=False)
    return _result(module, last)


def check(module: str, arguments: Sequence[str], settings: Settings) -> None:
    """Ask a module by its --check, without Ray, what it has against these arguments and settings.

    Raises:
        ConfigError: what it says on stderr, less its name.
        JobError: it could not say.
    """
    with tempfile.TemporaryDirectory(prefix="medley-") as folder:
        path = Path(folder) / "settings.yaml"
        config_text.write(settings, path)
        command = [sys.executable, "-m", module, "--check", *arguments, "--config", str(path)]
        done = subprocess.run(
            command, cwd=session.ROOT, env=environment(settings, None), capture_output=True, text=True
        )
    if done.returncode == 0:
        return
    _, said, message = f"\n{done.stderr}".rpartition(f"\n{module.rpartition('.')[2]}: ")
    if said:
        raise ConfigError(message.strip())
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise JobError(f"{module} --check failed (exit code {done.returncode}): {last}")


def environment(settings: Settings, ray: Session | None) -> dict[str, str]:
    """The environment of a program: ours, with the packages on the path and the Ray to join."""
    paths = [str(session.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    joined = session.joining(ray) if ray else {}
    return {**os.environ, **session.environment(settings), "PYTHONPATH": os.pathsep.join(paths), **joined}


def _forward(child: "subprocess.Popen[str]", console: Console) -> str:
    """Show stdout as it comes, except for the last line, which is returned."""
    last = ""
    for line in child.stdout or ():
        if last:
            console.print(last, markup=False, highlight=False)
        last = line.rstrip("\n")
    return last


def _result(module: str, line: str) -> dict[str, Any]:
    if not line:
        return {}
    try:
        result = json.loads(line)
    except ValueError as error:
        raise JobError(f"{module}: its last line is no JSON object: {line[:200]!r}") from error
    if not isinstance(result, dict):
        raise JobError(f"{module}: its last line is no JSON object: {line[:200]!r}")
    return result
