"""Mutual exclusion on a store that has neither rename nor conditional writes: Lamport's bakery.

Everyone writes only files of their own and reads by listing, which object stores answer consistently:
announce that a number is being drawn, draw one above all that are there, then wait for the smaller ones
(Lamport, "A new solution of Dijkstra's concurrent programming problem", 1974). Files of a process that
died are passed over once they are `LEASE_S` old by the store's clock.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from pyarrow import fs

from cluster.errors import RegistryError

LEASE_S = 60.0
_POLL_S = 0.02


@contextmanager
def locked(filesystem: fs.FileSystem, folder: str, lease_s: float = LEASE_S) -> Iterator[None]:
    """Hold the lock that lives in `folder`; what is done inside must take less than `lease_s`.

    Raises:
        RegistryError: the others did not let go within two leases.
    """
    token = uuid.uuid4().hex
    drawing, drawn = f"{folder}/drawing", f"{folder}/drawn"
    for part in (drawing, drawn):
        filesystem.create_dir(part, recursive=True)
    _put(filesystem, f"{drawing}/{token}")
    tickets = _fresh(filesystem, drawn, None, lease_s)
    ticket = f"{1 + max((int(name.partition('-')[0]) for name in tickets), default=0):012d}-{token}"
    _put(filesystem, f"{drawn}/{ticket}")
    filesystem.delete_file(f"{drawing}/{token}")
    try:
        drawn_at, start = filesystem.get_file_info(f"{drawn}/{ticket}").mtime, time.monotonic()
        while _ahead(filesystem, drawing, drawn, ticket, drawn_at + _since(start), lease_s):
            if _since(start).total_seconds() > 2 * lease_s:
                raise RegistryError(f"{folder}: locked by another publisher for {2 * lease_s:.0f} s; try again")
            time.sleep(_POLL_S)
        yield
    finally:
        filesystem.delete_file(f"{drawn}/{ticket}")


def _ahead(filesystem: fs.FileSystem, drawing: str, drawn: str, ticket: str, now: datetime, lease_s: float) -> bool:
    """Whether anyone is drawing (their number is not known yet) or holds a smaller ticket."""
    if _fresh(filesystem, drawing, now, lease_s):
        return True
    return any(other < ticket for other in _fresh(filesystem, drawn, now, lease_s))


def _fresh(filesystem: fs.FileSystem, folder: str, now: datetime | None, lease_s: float) -> list[str]:
    infos = filesystem.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    return [
        info.base_name
        for info in infos
        if info.is_file and (now is None or (now - info.mtime).total_seconds() < lease_s)
    ]


def _since(start: float) -> timedelta:
    return timedelta(seconds=time.monotonic() - start)


def _put(filesystem: fs.FileSystem, path: str) -> None:
    with filesystem.open_output_stream(path) as out:
        out.write(b"1")
