"""SIGTERM (`medley stop`) and Ctrl-C end us alike: as KeyboardInterrupt, so that what we started ends too."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """While inside, both signals are Ctrl-C."""
    before = signal.getsignal(signal.SIGTERM)
    take_signals()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def take_signals() -> None:
    """Put the handlers in place; once more after ray.init, which puts its own there."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)


def wait(each: Callable[[], object] = lambda: None, every_s: float = 1.0) -> None:
    """Until one of the signals, with a call of `each` from time to time."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            each()
            time.sleep(every_s)
