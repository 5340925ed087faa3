"""Logs as JSON, one object a line, on stderr: Ray keeps a replica's stderr in its session's logs folder.

    {"at": "2026-01-01T10:00:00.123456+00:00", "level": "WARNING", "logger": "serve.gateway", "event": "slow",
     "decision_id": "01J...", "client": "shop", "version": 12, "mode": "live", "ms": 412.0}

A line's own fields come by `extra={"fields": {...}}`; its message is `event`.
"""

import logging
import sys
import time
from collections.abc import Callable, Hashable
from datetime import UTC, datetime
from typing import TextIO

from pydantic_core import to_json


class JsonLines(logging.Formatter):
    """A record as one line of JSON; an exception's trace is its field `trace`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return to_json(line, fallback=str).decode()


def install(stream: TextIO = sys.stderr) -> None:
    """Let everything that this process logs under `serve`, `actors` and `cluster` go to `stream` as JSON."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in ("serve", "actors", "cluster"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(logging.INFO)


class Seldom:
    """Lets `most` events of a kind through in every `every_s`, and counts those that it leaves out.

    Args:
        clock: seconds, monotone.
    """

    def __init__(self, most: int, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._every_s = every_s
        self._clock = clock
        self._seen: dict[Hashable, list[float]] = {}
        """kind -> [start of its period, let through in it, left out since the last one let through]"""

    def __call__(self, kind: Hashable) -> int | None:
        """None for an event to leave out; else how many of its kind were left out before it."""
        now = self._clock()
        seen = self._seen.setdefault(kind, [now, 0, 0])
        if now - seen[0] >= self._every_s:
            seen[:2] = [now, 0]
        if seen[1] >= self._most:
            seen[2] += 1
            return None
        seen[1] += 1
        left_out, seen[2] = int(seen[2]), 0
        return left_out
