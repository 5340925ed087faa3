"""A bar on stderr for what takes more than two seconds."""

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from tqdm import tqdm


@contextmanager
def bar(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Shows while inside; call what it gives with (done, total)."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def steps(title: str, shown: bool, total: int | None = None, done: int = 0) -> "Iterator[tqdm[None]]":
    """The steps of a training on stderr: a bar on a terminal, a line every ten seconds in a log."""
    terminal = sys.stderr.isatty()
    with tqdm(
        desc=title,
        unit="step",
        total=total,
        initial=done,
        disable=not shown,
        file=sys.stderr if terminal else _Lines(),
        mininterval=0.1 if terminal else 10.0,
        bar_format=None if terminal else "{desc}: {n_fmt} steps in {elapsed}{postfix}",
    ) as found:
        yield found


class _Lines(io.TextIOBase):
    """stderr, where what redraws a line begins a new one."""

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        return sys.stderr.write(line + "\n") if line else 0

    def flush(self) -> None:
        sys.stderr.flush()
