"""The ground before anything starts: a home that can be written and has room, a free port, private files."""

import errno
import os
import shutil
import socket
from pathlib import Path

from cluster import process
from cluster.errors import ClusterError, StateError

LEAST_FREE_BYTES = 256 * 2**20


def check_home(home: Path, least_free_bytes: int = LEAST_FREE_BYTES) -> None:
    """Make the home if it is not there, readable by its owner only.

    Raises:
        StateError: it cannot be made or written, or its disk is nearly full.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = home / f".probe-{os.getpid()}"
        probe.write_bytes(b"medley")
        probe.unlink()
    except OSError as error:
        raise StateError(
            f"home {home}: {error.strerror or error}; set MEDLEY_HOME to a folder that can be written"
        ) from error
    free = shutil.disk_usage(home).free
    if free < least_free_bytes:
        raise StateError(
            f"home {home}: {free / 2**20:.0f} MB free, {least_free_bytes / 2**20:.0f} MB needed; "
            "free some, or set MEDLEY_HOME to another disk"
        )


def check_port(host: str, port: int) -> None:
    """Raises ClusterError where the port cannot be listened on; it names the process that has it, if known."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ClusterError(f"cannot listen on {host}:{port}: {error.strerror}; set serve.host") from error
            holder = process.listener(port) or "another process"
            raise ClusterError(f"port {port} is in use by {holder}; stop it, or set serve.port to another") from error


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
