"""The vector store of one process, durable on a disk.

    <folder>/snapshot-<n>/    all entries at some time (snapshot.py)
    <folder>/log-<n>          the commits since (log.py)

A commit is first in the log, durable, then in memory. `checkpoint` writes the next snapshot with an empty log, and goes
on from what it reads back: a store that was opened anew and one that went on are in the same state.
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from threading import Lock

import numpy as np

from actors.content.vectors import log, snapshot
from actors.content.vectors.changes import decode, encode
from actors.content.vectors.entry import Change, Entry, Filter, Neighbours, Vectors, checked
from actors.content.vectors.memory import Memory
from actors.content.vectors.snapshot import Snapshot
from actors.content.vectors.space import Flat
from cluster.errors import DataError, StateError


class Store:
    """See `entry.VectorStore`. One process at a time; its threads may share it.

    Args:
        folder: its own; made where there is none.
        width: size of the embeddings.
        half_life: rewards of an entry and kind after which one counts half in its outcomes.
        flat: see `Space`; `space.on_gpu()` where there is a GPU.

    Raises:
        StateError: another process has it, a file is damaged or cannot be read, or the embeddings are of another size.
    """

    def __init__(self, folder: Path, width: int, half_life: float = 1_000.0, flat: Flat | None = None) -> None:
        self.folder, self.width = folder, width
        self._decay, self._flat = 0.5 ** (1 / half_life), flat
        self._writing, self._lock = Lock(), Lock()
        self._alone = _alone(folder)
        try:
            self._open()
        except BaseException:
            os.close(self._alone)
            raise

    def close(self) -> None:
        with self._writing, self._lock:
            if self._alone >= 0:
                self._log.close()
                os.close(self._alone)
                self._alone = -1

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._memory)

    @property
    def log_bytes(self) -> int:
        """Read again when the store is opened; a checkpoint begins an empty log."""
        return self._log.size

    def commit(self, changes: Sequence[Change]) -> None:
        found = self.checked(changes)
        with self._writing:
            with self._lock:
                settled = self._memory.settled(found, self._decay)
            if settled:
                self._log.append(encode(settled))  # who searches does not wait for the disk
                with self._lock:
                    self._memory.apply(settled)

    def checked(self, changes: Sequence[Change]) -> list[Change]:
        """The changes as `commit` takes them; raises DataError as it does."""
        found = []
        for place, change in enumerate(changes):
            try:
                found.append(checked(change, self.width))
            except DataError as error:
                raise DataError(f"change {place}: {error}") from error
        return found

    def get(self, item_ids: Iterable[str]) -> dict[str, Entry]:
        with self._lock:
            return self._memory.get(item_ids)

    def search(
        self,
        query_QE: Vectors,
        k: int,
        cluster: str | None = None,
        provider_id: str | None = None,
        where: Filter | None = None,
        own: Sequence[str | None] | None = None,
        wider: bool = True,
    ) -> list[Neighbours]:
        if k < 1 or (own is not None and len(own) != len(query_QE)):
            raise DataError(
                f"k = {k}, {len(own or ())} own items for {len(query_QE)} queries; expected k >= 1, one each"
            )
        if query_QE.ndim != 2 or query_QE.shape[1] != self.width or not np.isfinite(query_QE).all():
            raise DataError(
                f"queries of shape {query_QE.shape}; expected finite numbers in (queries, {self.width}), made by the "
                "encoder of this store's entries"
            )
        with self._lock:
            return self._memory.search(
                np.ascontiguousarray(query_QE, np.float32), k, cluster, provider_id, where, own, wider
            )

    def checkpoint(self) -> None:
        """Fit cells to spaces that became large, write a snapshot, and begin an empty log; nothing is served meanwhile.

        Raises:
            StateError: it cannot be written; then the store goes on as it was.
        """
        with self._writing, self._lock:
            number = self._number + 1
            try:
                log.create(self._path("log", number), self.width)
                snapshot.write(self._path("snapshot", number), self._memory.snapshot())
            except OSError as error:
                raise StateError(f"{self.folder}: no snapshot ({error}); free the disk and try again") from error
            self._log.close()
            self._open()

    def _open(self) -> None:
        """The latest snapshot, then its log; what a killed process left of others is removed."""
        numbers = [int(p.name.partition("-")[2]) for p in self.folder.glob("snapshot-*")]
        number = self._number = max(numbers, default=0)
        if numbers:
            found = snapshot.read(self._path("snapshot", number), self.width)
        else:
            found = Snapshot.empty(self.width)
            if not list(self.folder.glob("log-*")):
                log.create(self._path("log", 0), self.width)
        memory = Memory(found, self._flat)
        records = log.read(self._path("log", number), self.width)
        for body in records:
            memory.apply(decode(body, self.width))
        self._memory, self._log = memory, log.Log(self._path("log", number), records.size, records.number)
        for path in [*self.folder.glob("snapshot-*"), *self.folder.glob("log-*")]:
            if path.name.partition("-")[2] != str(number):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _path(self, kind: str, number: int) -> Path:
        return self.folder / f"{kind}-{number}"


def _alone(folder: Path) -> int:
    """A lock on the folder, held while the file is open."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(f"{folder}: cannot be written ({error}); free the disk or choose another folder") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise StateError(f"{folder}: another process has this vector store open; end it, or ask it") from None
    return handle
