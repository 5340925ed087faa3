"""What Medley started on this home: one `medley run` or `medley serve` at a time, known by home/run.json.

The lock is the kernel's and ends with the process. The record outlives a kill: the next start, or
`medley stop`, reads it and ends exactly the processes named there.
"""

import fcntl
import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from cluster import ingress, process
from cluster.errors import ClusterError
from cluster.process import Process

DYING_RAY_S = 30.0
"""A Ray whose driver was killed needs some seconds to end; its ingress is left behind only then."""


class Running:
    """The record of the process that holds the lock; `facts` are free. Without a home nothing is written.

    `killed` is the record of a holder before it that did not get to its end.
    """

    def __init__(self, home: Path | None, command: str) -> None:
        self.killed = read(home) if home else None
        self._path = home / "run.json" if home else None
        self._children: list[Process] = []
        self.facts: dict[str, Any] = {"command": command, "since": time.time()}

    def update(self, **facts: Any) -> None:
        """Add facts and write the record (whole or not at all)."""
        self.facts |= facts
        if self._path is None:
            return
        record = self.facts | {
            "process": Process.current().facts(),
            "children": [child.facts() for child in self._children],
        }
        aside = self._path.with_suffix(".new")
        aside.write_text(json.dumps(record, indent=1))
        aside.replace(self._path)

    @contextmanager
    def child(self, pid: int) -> Iterator[None]:
        """While inside, a process that ends with us; on an error it is ended here."""
        one = self.adopt(pid)
        try:
            yield
        finally:
            process.end([one] if one else [])
            self._children = [child for child in self._children if child != one]
            self.update()

    def adopt(self, pid: int) -> Process | None:
        """Name a process in the record, so that it ends with us; those that have ended are taken out."""
        one = Process.of(pid)
        self._children = [child for child in (*self._children, one) if child and child.alive()]
        self.update()
        return one


@contextmanager
def take(home: Path, command: str) -> Iterator[Running]:
    """Hold the lock of a home, ending first what a killed holder left behind.

    Raises:
        ClusterError: another process holds it; the message names it.
    """
    with (home / "run.lock").open("a") as lock:
        if not _lock(lock):
            raise ClusterError(
                f"{_describe(read(home))} is running on {home}; end it with `medley stop`, or set MEDLEY_HOME "
                "to another folder"
            )
        end_children(home)
        running = Running(home, command)
        local = (running.killed or {}).get("local")
        ingress.end_left_behind(home, DYING_RAY_S if local else 0.0)
        running.update()
        try:
            yield running
        finally:
            (home / "run.json").unlink(missing_ok=True)


def read(home: Path) -> dict[str, Any] | None:
    """The record, None where nothing was started or its record cannot be read."""
    try:
        record: dict[str, Any] = json.loads((home / "run.json").read_text())
        return record
    except (OSError, ValueError):
        return None


def alive(home: Path) -> dict[str, Any] | None:
    """The record of a holder that still runs."""
    record = read(home)
    return record if record and Process.from_facts(record["process"]).alive() else None


def stop(home: Path, timeout_s: float = 60.0) -> list[str]:
    """End what Medley started on this home, the holder first so that it can clean up; says what it ended."""
    ended = []
    record = alive(home)
    if record is not None:
        holder = Process.from_facts(record["process"])
        handle = holder.handle()
        if handle is not None:
            handle.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        while holder.alive() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.end([holder])
        ended.append(_describe(record))
    ended += [f"pid {one.pid}" for one in end_children(home)]
    wait_s = DYING_RAY_S if record is None and (read(home) or {}).get("local") else 0.0
    ended += [f"ingress (pid {one.pid})" for one in ingress.end_left_behind(home, wait_s)]
    (home / "run.json").unlink(missing_ok=True)
    return ended


def end_children(home: Path) -> list[Process]:
    """End the subprocesses that a killed holder left behind."""
    record = read(home)
    return process.end([Process.from_facts(facts) for facts in (record or {}).get("children", [])])


def _lock(handle: TextIO) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _describe(record: dict[str, Any] | None) -> str:
    return f"`medley {record['command']}` (pid {record['process']['pid']})" if record else "another Medley"
