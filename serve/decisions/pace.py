"""How long decisions take, and where one is made so that its answer keeps a budget of time.

A decision that has begun on the event loop cannot be stopped, so what may be long goes to a worker thread, whose
result is waited for until the budget is spent; and what is sure to be late is not begun.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Way: TypeAlias = Literal["here", "beside", "not"]
"""On the event loop, in a worker thread, or not at all."""

HERE_MS = 5.0
"""Longest that the event loop may be held."""
TRY_AGAIN_S = 1.0
"""Decisions that take too long are tried this often, so that it is noticed when they no longer do."""
_SLOWER = 0.1  # weight of a decision that took longer; one that took less stands at once
_KEPT = 4_096


class Stopwatch:
    """Milliseconds of this thread's own: what other threads of the process computed meanwhile is not counted.

    They take turns with the interpreter's lock. With their time, decisions that wait for one another in worker threads
    would seem slow, and therefore be sent to worker threads.

    Args:
        clock: seconds on the wall, of computing by this process, of computing by this thread.
    """

    def __init__(self, clock: Callable[[], tuple[float, float, float]] | None = None) -> None:
        self._clock = clock or _times
        self._begin = self._clock()

    def ms(self) -> float:
        """Since this was made, in the same thread."""
        wall, process, own = (now - then for now, then in zip(self._clock(), self._begin, strict=True))
        return 1e3 * max(own, wall - max(0.0, process - own))


def _times() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()


@dataclass
class _Mean:
    ms: float
    tried_at: float
    guessed: bool = False


class Pace:
    """Milliseconds that a decision needs, by who decides what and by how many items (in powers of two).

    What takes a decision's time beside its own work (other processes, a cold cache) only adds to it, so a shorter time
    is believed at once and a longer one by and by: a busy machine must not look like a slow model.

    Args:
        clock: seconds, monotone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._means: OrderedDict[tuple[Hashable, int], _Mean] = OrderedDict()

    def expected_ms(self, who: Hashable, items: int) -> float | None:
        """Of one decision; None before the first of its kind."""
        mean = self._means.get((who, items.bit_length()))
        return mean.ms if mean else None

    def way(self, who: Hashable, items: int, decisions: int, left_ms: float) -> Way:
        """Where to make so many decisions that must be there in `left_ms`. What is not known yet goes beside."""
        mean = self._means.get((who, items.bit_length()))
        if left_ms <= 0:
            return "not"
        if mean is None:
            return "beside"
        if decisions * mean.ms > left_ms:
            if self._clock() - mean.tried_at < TRY_AGAIN_S:
                return "not"
            mean.tried_at = self._clock()
            return "beside"
        return "here" if mean.ms <= HERE_MS else "beside"

    def at_once(self, who: Hashable, items: int) -> int:
        """How many decisions may hold the event loop together."""
        return max(1, int(HERE_MS / max(self.expected_ms(who, items) or HERE_MS, 1e-3)))

    def took(self, who: Hashable, items: int, ms: float) -> None:
        """Count what one decision took."""
        mean = self._mean(who, items, ms)
        mean.ms = ms if mean.guessed or ms < mean.ms else mean.ms + _SLOWER * (ms - mean.ms)
        mean.guessed = False

    def missed(self, who: Hashable, items: int, ms: float) -> None:
        """A decision was given up after so long: what it takes is not known, but it is more. The next that is known
        takes the guess's place, so that one hiccup costs one second."""
        mean = self._mean(who, items, ms)
        mean.ms, mean.guessed = max(mean.ms, 2 * ms), True
        mean.tried_at = self._clock()

    def _mean(self, who: Hashable, items: int, ms: float) -> _Mean:
        key = (who, items.bit_length())
        mean = self._means.setdefault(key, _Mean(ms, float("-inf")))
        self._means.move_to_end(key)
        if len(self._means) > _KEPT:
            self._means.popitem(last=False)
        return mean
