"""How long a training may go on: seconds, and steps where a run is to be repeated bit for bit."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Clock:
    """seconds: wall time from now on; steps: at most so many, null for by time alone."""

    seconds: float
    steps: int | None = None
    started: float = field(default_factory=time.monotonic)

    def elapsed_s(self) -> float:
        return time.monotonic() - self.started

    def spent(self, step: int) -> bool:
        """Whether to end before step number `step` (from 0)."""
        return (self.steps is not None and step >= self.steps) or self.elapsed_s() >= self.seconds
