"""Log lines as JSON, and how seldom a kind of event becomes one."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime

import pytest

from serve.observed import logs
from serve.observed.logs import Seldom


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What is logged, as `install` writes it; the loggers are as before afterwards."""
    names = ("serve", "actors", "cluster")
    before = [(logging.getLogger(n), list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in names]
    stream = io.StringIO()
    logs.install(stream)
    yield stream
    for logger, handlers, level in before:
        logger.handlers, logger.propagate = handlers, True
        logger.setLevel(level)


def test_a_line_is_one_json_object_whatever_is_in_it(lines: io.StringIO) -> None:
    fields = {"decision_id": "01J", "client": 'a "shop"\nof two lines', "ms": 1.5, "path": {1, 2}.__class__}
    logging.getLogger("serve.observed.watch").info("slow %s", "one", extra={"fields": fields})
    try:
        raise ValueError("it broke")
    except ValueError:
        logging.getLogger("cluster.journal.journal").exception("failed")
    first, second = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {name: first[name] for name in ("level", "logger", "event", "client", "ms")} == {
        "level": "INFO",
        "logger": "serve.observed.watch",
        "event": "slow one",
        "client": 'a "shop"\nof two lines',
        "ms": 1.5,
    }
    assert datetime.fromisoformat(first["at"]).utcoffset() is not None
    assert "ValueError: it broke" in second["trace"]


def test_others_libraries_keep_their_own_logs(lines: io.StringIO) -> None:
    logging.getLogger("ray.serve").warning("not ours")
    assert lines.getvalue() == ""


def test_a_kind_comes_through_a_few_times_in_a_period_and_says_what_was_left_out() -> None:
    now = [0.0]
    seldom = Seldom(2, 60.0, lambda: now[0])
    assert [seldom("a") for _ in range(5)] == [0, 0, None, None, None]
    assert seldom("b") == 0
    now[0] = 59.9
    assert seldom("a") is None
    now[0] = 60.0
    assert [seldom("a") for _ in range(3)] == [4, 0, None]
