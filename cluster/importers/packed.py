"""Files packed by gzip, bzip2 or xz, unpacked as they are read; which it is, their first bytes say."""

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

_PACKED: dict[bytes, tuple[str, Callable[..., Any]]] = {
    b"\x1f\x8b": (".gz", gzip.open),
    b"BZh": (".bz2", bz2.open),
    b"\xfd7zXZ": (".xz", lzma.open),
}
UNPACKING = (EOFError, OSError, zlib.error, lzma.LZMAError)
"""What reading a file raises that is cut short or damaged."""


def suffix(path: Path) -> str:
    """What a file ends in, that of its packing aside: .csv of log.csv.gz."""
    packings = [ending for ending, _ in _PACKED.values()]
    return path.with_suffix("").suffix if path.suffix in packings else path.suffix


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file unpacked, and as it lies on the disk."""
    with path.open("rb") as raw:
        start = raw.read(6)
        raw.seek(0)
        unpack = next((unpack for magic, (_, unpack) in _PACKED.items() if start.startswith(magic)), None)
        if unpack is None:
            yield raw, raw
        else:
            with unpack(raw, "rb") as file:
                yield cast(BinaryIO, file), raw
