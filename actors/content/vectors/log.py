"""The changes since a snapshot, one record for each commit, durable before `append` returns.

    8 bytes "MEDLEYV1", width u32, crc32 u32            the file's head; all numbers little-endian
    length u32, number u64, crc32(body) u32, crc32(these three) u32, body        a record; numbers count from 0

A process that is killed, or a machine that loses power, can leave the last record cut short: it was never
acknowledged, and is cut off when the log is opened again. Damage anywhere else is refused.
"""

import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from cluster.disk import flush
from cluster.errors import StateError

MAGIC = b"MEDLEYV1"
_FILE = struct.Struct("<8sII")
_RECORD = struct.Struct("<IQI")
_CRC = struct.Struct("<I")
_HEAD = _RECORD.size + _CRC.size
LONGEST = 2**31
_LOGGER = logging.getLogger(__name__)


class Log:
    """Appends to a log. Make the file by `create`, read its records by `read`, then go on after them.

    Args:
        size, number: where the last whole record ends, and how many there are: the `end` that `read` found.
    """

    def __init__(self, path: Path, size: int, number: int) -> None:
        self.path, self.size, self._number = path, size, number
        self._file = os.open(path, os.O_WRONLY)
        self._broken: OSError | None = None
        if os.fstat(self._file).st_size != size:
            os.ftruncate(self._file, size)
            os.fsync(self._file)

    def append(self, body: bytes) -> None:
        """Raises StateError where the record could not be made durable; then it is not in the log."""
        if self._broken is not None:
            raise StateError(f"{self.path}: not written since an error ({self._broken}); open the store again")
        if len(body) > LONGEST:
            raise StateError(f"{self.path}: {len(body):,} bytes in one commit, at most {LONGEST:,}; send fewer changes")
        head = _RECORD.pack(len(body), self._number, zlib.crc32(body))
        record = head + _CRC.pack(zlib.crc32(head)) + body
        try:
            _write(self._file, record, self.size)
            os.fdatasync(self._file)
        except OSError as error:
            self._take_back(error)
            raise StateError(f"{self.path}: cannot be written ({error}); free the disk and send it again") from error
        self.size += len(record)
        self._number += 1

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _take_back(self, error: OSError) -> None:
        """What was not acknowledged must not come back after a restart, and later records must not stand behind it."""
        try:
            os.ftruncate(self._file, self.size)
            os.fsync(self._file)
        except OSError:
            self._broken = error


def create(path: Path, width: int) -> None:
    """A log without records, durable. Replaces what a killed process left under this name."""
    aside = path.with_name(f".{path.name}")
    head = struct.pack("<8sI", MAGIC, width)
    with aside.open("wb") as file:
        file.write(head + _CRC.pack(zlib.crc32(head)))
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)
    flush(path.parent)


def read(path: Path, width: int) -> "Records":
    """The records of a log.

    Raises:
        StateError: it is missing, of another width, or damaged before its end.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StateError(f"{path}: cannot be read ({error}); restore the store's folder from a copy") from error
    head = data[: _FILE.size]
    if len(head) < _FILE.size or head[:8] != MAGIC or zlib.crc32(head[:12]) != _FILE.unpack(head)[2]:
        raise StateError(f"{path}: not the log of a vector store, or damaged; restore the store's folder from a copy")
    found = _FILE.unpack(head)[1]
    if found != width:
        raise StateError(f"{path}: a store of embeddings of size {found}, opened for {width}; use another folder")
    return Records(path, data)


class Records:
    """Iterate once; then `size` and `number` say where the log ends."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data = path, data
        self.size, self.number = _FILE.size, 0

    def __iter__(self) -> Iterator[bytes]:
        data = self._data
        while self.size < len(data):
            body = self._next()
            if body is None:
                lost = len(data) - self.size
                _LOGGER.warning(
                    "%s: a last record of %d bytes, cut short and not acknowledged, left out", self._path, lost
                )
                return
            yield body
            self.size += _HEAD + len(body)
            self.number += 1

    def _next(self) -> bytes | None:
        """The record that begins at `size`, None where writing it was cut short."""
        data, start = self._data, self.size
        head = data[start : start + _HEAD]
        if len(head) < _HEAD:
            return None
        if not any(head) and not any(data[start:]):  # a file may grow before its bytes are there
            return None
        length, number, crc = _RECORD.unpack_from(head)
        if _CRC.unpack_from(head, _RECORD.size)[0] != zlib.crc32(head[: _RECORD.size]) or number != self.number:
            raise self._damaged()
        body = data[start + _HEAD : start + _HEAD + length]
        if len(body) == length and zlib.crc32(body) == crc:
            return body
        if start + _HEAD + length < len(data):
            raise self._damaged()
        return None

    def _damaged(self) -> StateError:
        return StateError(
            f"{self._path}: damaged at byte {self.size:,}, before its end; restore the store's folder from a copy, "
            "or delete it and embed the items again"
        )


def _write(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done
