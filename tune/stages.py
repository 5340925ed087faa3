"""The stages of a job: what each was given, what it took, what it left out. Written as it goes.

A run that is killed leaves the stages that it finished, so that the next one sees where it stood.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cluster.errors import StateError


class Stages:
    """Times stages, shows them on stderr and keeps `RUN/compose.json` (or another file) in step.

    Args:
        path: the JSON file; None keeps nothing.
        console: where progress goes.
    """

    def __init__(self, path: Path | None, console: Console | None = None):
        self.path = path
        self.console = console or Console(stderr=True)
        self.facts: dict[str, Any] = {"timings": []}

    @property
    def folder(self) -> Path | None:
        """The run's folder; None keeps nothing."""
        return self.path and self.path.parent.absolute()

    @property
    def shown(self) -> bool:
        """Whether anybody reads what is said."""
        return not self.console.quiet

    @contextmanager
    def stage(self, name: str, budget_s: float | None = None, bar: bool = True) -> Iterator["Stage"]:
        """Time what is inside; without `bar` it shows its own progress."""
        stage = Stage(name, budget_s)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        hidden = not (self.console.is_terminal and bar)
        with Progress(*columns, console=self.console, transient=True, disable=hidden) as progress:
            stage.bar, stage.task = progress, progress.add_task(name, total=None)
            yield stage
        stage.seconds = time.monotonic() - stage.started
        budget = f" of {budget_s:g} s" if budget_s else ""
        left = f"; {stage.left_out}" if stage.left_out else ""
        self.console.print(f"[green]✓[/] {name}: {stage.seconds:.1f} s{budget}{left}", highlight=False, soft_wrap=True)
        self.facts["timings"].append(
            {"stage": name, "seconds": stage.seconds, "budget_s": budget_s, "left_out": stage.left_out}
        )
        self.write()

    def say(self, text: str) -> None:
        """Say what came of a stage."""
        self.console.print(f"  {escape(text)}", highlight=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say what went wrong while the job goes on."""
        self.console.print(f"[yellow]![/] {escape(text)}", highlight=False, soft_wrap=True)

    def write(self, **facts: Any) -> None:
        """Add facts and write all of them, aside and then renamed. Raises StateError where that cannot be."""
        self.facts |= facts
        if self.path is None:
            return
        aside = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(self.facts, indent=1))
            aside.replace(self.path)
        except OSError as error:
            raise StateError(
                f"{self.path}: cannot be written ({error}); free the disk or give another --run"
            ) from error


class Stage:
    """One stage: its deadline, its progress, and in words what it left out."""

    def __init__(self, name: str, budget_s: float | None):
        self.name, self.budget_s = name, budget_s
        self.started = time.monotonic()
        self.seconds = 0.0
        self.left_out = ""
        self.bar: Progress | None = None
        self.task: Any = None

    @property
    def left_s(self) -> float:
        """Seconds until the budget is spent; infinite without one."""
        return float("inf") if self.budget_s is None else self.budget_s - (time.monotonic() - self.started)

    def progress(self, done: float, total: float) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total)
