"""Real servers for tests, each on a free port of 127.0.0.1; a missing one skips with the line that installs it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
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


@contextmanager
def ray_head(folder: Path, *words: str, **environment: str) -> Iterator[None]:
    """`ray start --head` with two CPUs and token authentication; its log is in `folder`."""
    # The agent's usual port may belong to the test run's own Ray.
    agent = (f"--dashboard-agent-listen-port={free_port()}", f"--dashboard-agent-grpc-port={free_port()}")
    size = ("--num-cpus=2", f"--object-store-memory={100 * 2**20}", "--disable-usage-stats")
    bin_folder = str(Path(sys.executable).parent)
    path = os.pathsep.join([bin_folder, os.environ["PATH"]])
    with (folder / "log").open("w") as log:
        node = subprocess.Popen(
            [f"{bin_folder}/ray", "start", "--head", "--block", *words, *agent, *size],
            env={**os.environ, "RAY_AUTH_MODE": "token", "PATH": path, **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while "Ray runtime started" not in (folder / "log").read_text():
        assert node.poll() is None, (folder / "log").read_text()
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.2)
    try:
        yield
    finally:
        node.terminate()
        try:
            node.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()
