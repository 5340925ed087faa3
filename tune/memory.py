"""What refinements tried before: a try costs error rate even where nothing came of it, so it is remembered."""

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cluster.errors import StateError

KEPT = ("looks", "attempts", "tests")
"""What a file has of a memory."""


def _nowhere(memory: "Memory") -> None:
    """A memory without a file."""


@dataclass
class Memory:
    """looks: by version, events at the last look at its members. attempts: by family of tries, events of each try.

    tests: what the gate spent, as `tune.spending` has it. save: called with each try, before its error rate is spent.
    """

    looks: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)
    tests: dict[str, list[str]] = field(default_factory=dict)
    save: Callable[["Memory"], None] = field(default_factory=lambda: _nowhere, init=False, repr=False, compare=False)

    def looked(self, version: int) -> int:
        return self.looks.get(str(version), 0)

    def look(self, version: int, events: int) -> None:
        self.looks[str(version)] = events
        self.save(self)

    def tried(self, family: str) -> int:
        """Events at the last try, 0 before the first."""
        return self.attempts.get(family, [0])[-1]

    def tries(self, family: str) -> int:
        return len(self.attempts.get(family, []))

    def attempt(self, family: str, events: int) -> None:
        self.attempts.setdefault(family, []).append(events)
        self.save(self)


@contextmanager
def remembered(path: Path) -> Iterator[Memory]:
    """The memory of a file for one run at a time. Each look and try is written when it is made, the rest at the end.

    Raises StateError, also where another run has it.
    """

    def save(memory: Memory) -> None:
        aside = path.with_suffix(".partial")
        try:
            aside.write_text(json.dumps({name: getattr(memory, name) for name in KEPT}, indent=1))
            aside.replace(path)
        except OSError as error:
            raise StateError(f"{path}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error

    with _alone(path):
        try:
            memory = Memory(**json.loads(path.read_text())) if path.exists() else Memory()
        except (OSError, ValueError, TypeError) as error:
            raise StateError(f"{path}: cannot be read ({error}); move it away to begin anew") from error
        memory.save = save
        try:
            yield memory
        finally:
            save(memory)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    try:
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise StateError(f"{path}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(f"{path}: another refinement has it; wait for its end") from None
        yield
