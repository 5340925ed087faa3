"""The HAProxy processes that Ray Serve starts for us, and the end of those that a killed run left behind.

Ray ends its own processes when the driver dies, but not HAProxy: that one keeps the ports and answers 500.
Ours is known by its configuration file, which lies under home (`environment`), and by pid and start time,
which `record` writes to home/ingress.json. It is left behind when its parent is no Ray worker any more.
"""

import json
import os
import time
from itertools import pairwise
from pathlib import Path

import psutil

from cluster import process
from cluster.process import Process


def environment(home: Path) -> dict[str, str]:
    """Variables for Serve's controller: they put HAProxy's configuration under home."""
    return {"RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(_folder(home) / "haproxy.cfg")}


def running(home: Path) -> list[Process]:
    """The HAProxy processes of this home, by the configuration file on their command line."""
    prefix = str(_folder(home)) + os.sep
    found = []
    for candidate in psutil.process_iter(["pid", "cmdline", "create_time"]):
        words = candidate.info["cmdline"] or []
        if any(flag == "-f" and path.startswith(prefix) for flag, path in pairwise(words)):
            found.append(Process(candidate.info["pid"], candidate.info["create_time"]))
    return found


def record(home: Path) -> list[Process]:
    """Write the ingress processes that run now to home/ingress.json (whole or not at all)."""
    found = running(home)
    aside = home / "ingress.json.new"
    aside.write_text(json.dumps([one.facts() for one in found]))
    aside.replace(home / "ingress.json")
    return found


def end_left_behind(home: Path, wait_s: float = 0.0) -> list[Process]:
    """End the ingress of a run that was killed: recorded or of this home, and without its Ray worker.

    Args:
        wait_s: how long a dying Ray may take to leave its ingress alone; 0 where another Ray may own it.
    """
    deadline = time.monotonic() + wait_s
    while any(_has_worker(one) for one in running(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [one for one in {*running(home), *_recorded(home)} if _is_haproxy(one) and not _has_worker(one)]
    ended = process.end(left)
    if not running(home):
        (home / "ingress.json").unlink(missing_ok=True)
    return ended


def _folder(home: Path) -> Path:
    return home / "ingress"


def _recorded(home: Path) -> list[Process]:
    try:
        return [Process.from_facts(facts) for facts in json.loads((home / "ingress.json").read_text())]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return []  # never written, or cut short by the kill: `running` finds it by its command line


def _is_haproxy(one: Process) -> bool:
    handle = one.handle()
    return handle is not None and "haproxy" in handle.name()


def _has_worker(one: Process) -> bool:
    handle = one.handle()
    try:
        parent = handle.parent() if handle else None
        return parent is not None and parent.cmdline()[:1] != [] and parent.cmdline()[0].startswith("ray::")
    except psutil.Error:
        return False
