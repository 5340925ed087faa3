"""Which process is meant: a pid and the moment it started, so that a reused pid is never ended by mistake."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil

_SAME_START_S = 0.05
"""psutil rounds start times to the kernel's clock tick (0.01 s)."""


@dataclass(frozen=True)
class Process:
    """A process by pid and start time (seconds since the epoch)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Process | None":
        """The process that has this pid now, None if there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.Error:
            return None

    @classmethod
    def current(cls) -> "Process":
        return cls(os.getpid(), psutil.Process().create_time())

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "Process":
        return cls(int(facts["pid"]), float(facts["started"]))

    def facts(self) -> dict[str, Any]:
        return {"pid": self.pid, "started": self.started}

    def handle(self) -> psutil.Process | None:
        """psutil's handle while exactly this process runs (a zombie does not)."""
        try:
            handle = psutil.Process(self.pid)
            same = abs(handle.create_time() - self.started) < _SAME_START_S
            return handle if same and handle.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def alive(self) -> bool:
        return self.handle() is not None


def end(processes: Iterable[Process], timeout_s: float = 5.0) -> list[Process]:
    """Ask exactly these processes to end, kill those that have not after `timeout_s`; returns those met alive."""
    met = [(process, handle) for process in processes if (handle := process.handle()) is not None]
    _signal([handle for _, handle in met], "terminate")
    deadline = time.monotonic() + timeout_s
    while any(process.alive() for process, _ in met) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal([handle for process, handle in met if process.alive()], "kill")
    return [process for process, _ in met]


def _signal(handles: list[psutil.Process], action: str) -> None:
    for handle in handles:
        try:
            getattr(handle, action)()
        except psutil.NoSuchProcess:
            continue  # it ended by itself between the look and the signal


def listener(port: int) -> str | None:
    """Who listens on a TCP port of this machine, as "name (pid n)"; None where that is not known."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        at_port = connection.laddr and connection.laddr[1] == port
        if at_port and connection.status == psutil.CONN_LISTEN and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.Error:
                return f"pid {connection.pid}"
    return None
