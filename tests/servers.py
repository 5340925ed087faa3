"""Real servers for tests, each on a free port of 127.0.0.1; a missing one skips with the line that installs it."""

import os
import shutil
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _program(name: str) -> str:
    """A PostgreSQL program: Debian keeps them off the PATH."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(places[-1]) if places else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install -y postgresql")
    return found


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL in `folder`, which must be under one that everybody may enter.

    It refuses to run as root, so root lends it to the user postgres or nobody.
    """
    initdb, server = _program("initdb"), _program("pg_ctl")
    as_user: list[str] = []
    if os.geteuid() == 0:
        users = [line.partition(":")[0] for line in Path("/etc/passwd").read_text().splitlines()]
        user = "postgres" if "postgres" in users else "nobody"
        shutil.chown(folder, user)
        as_user = ["setpriv", "--reuid", user, "--clear-groups", "--"]
    data, port = folder / "data", free_port()

    def call(*words: str) -> None:
        done = subprocess.run([*as_user, *words], cwd=folder, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")

    call(initdb, "-D", str(data), "-U", "medley", "--auth=trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c max_connections=50"
    call(server, "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        yield f"postgresql+psycopg://medley@127.0.0.1:{port}/postgres"
    finally:
        call(server, "-D", str(data), "-m", "immediate", "-w", "stop")


@contextmanager
def empty_database(url: str) -> Iterator[str]:
    """A new database on the server of `url`, dropped at the end."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    server = url.replace("+psycopg", "")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield f"{url.rpartition('/')[0]}/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
