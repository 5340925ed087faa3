"""What refinements tried before: a try costs error rate even where nothing came of it, so it is remembered."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cluster.errors import StateError


@dataclass
class Memory:
    """looks: by version, events at the last look at its members. attempts: by family of tries, events of each try.

    tests: what the gate spent, as `tune.spending` has it.
    """

    looks: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, list[int]] = field(default_factory=dict)
    tests: dict[str, list[str]] = field(default_factory=dict)

    def looked(self, version: int) -> int:
        return self.looks.get(str(version), 0)

    def look(self, version: int, events: int) -> None:
        self.looks[str(version)] = events

    def tried(self, family: str) -> int:
        """Events at the last try, 0 before the first."""
        return self.attempts.get(family, [0])[-1]

    def tries(self, family: str) -> int:
        return len(self.attempts.get(family, []))

    def attempt(self, family: str, events: int) -> None:
        self.attempts.setdefault(family, []).append(events)


@contextmanager
def remembered(path: Path) -> Iterator[Memory]:
    """The memory of a file, which is written again at the end, whatever happened. Raises StateError."""
    try:
        memory = Memory(**json.loads(path.read_text())) if path.exists() else Memory()
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{path}: cannot be read ({error}); move it away to begin anew") from error
    try:
        yield memory
    finally:
        aside = path.with_suffix(".partial")
        try:
            aside.write_text(json.dumps(asdict(memory), indent=1))
            aside.replace(path)
        except OSError as error:
            raise StateError(f"{path}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error
