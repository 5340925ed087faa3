"""Vectors by the key of their part, on disk: what was encoded once is not encoded again.

A folder for each model, of files that never change; every writer adds its own, so that processes of several machines
may share a folder. A file appears whole or not at all, and one that cannot be read is left out: its parts are then
encoded anew.

Shapes: P parts, E size of the embedding.
"""

import hashlib
import logging
import os
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from cluster.errors import StateError

log = logging.getLogger(__name__)
Vectors = NDArray[np.float32]
FILES = 64
"""Files above which `add` writes them as one."""
DIGEST = 32


class Known(Protocol):
    """Where vectors are kept by their parts' keys."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]: ...
    def add(self, keys: Sequence[bytes], vectors_PE: Vectors) -> None: ...


class Recent:
    """The last `most` vectors, in memory: what a serving process needs."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found = {key: self._vectors[key] for key in keys if key in self._vectors}
        for key in found:
            self._vectors.move_to_end(key)
        return found

    def add(self, keys: Sequence[bytes], vectors_PE: Vectors) -> None:
        self._vectors |= dict(zip(keys, vectors_PE, strict=True))
        while len(self._vectors) > self._most:
            self._vectors.popitem(last=False)


class Cache:
    """The vectors of one model, on disk.

    Args:
        folder: of all models; absolute, and readable by every node that encodes.
        fingerprint: of the model (`Encoder.fingerprint`).
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder / fingerprint[:32]
        self._vectors: dict[bytes, Vectors] = {}
        self._read: set[str] = set()

    def find(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        """The vectors of those keys that are there; looks once for what others have added since."""
        if any(key not in self._vectors for key in keys):
            self._refresh()
        return {key: self._vectors[key] for key in keys if key in self._vectors}

    def add(self, keys: Sequence[bytes], vectors_PE: Vectors) -> None:
        """Keep vectors, here and on disk.

        Raises:
            StateError: the folder cannot be written, or the disk is full.
        """
        new = {key: vector for key, vector in zip(keys, vectors_PE, strict=True) if key not in self._vectors}
        if not new:
            return
        self._vectors |= new
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write(new)
            if len(self._read) > FILES:
                self._merge()
        except OSError as error:
            raise StateError(
                f"{self._folder}: cannot be written ({error}); free the disk or set MEDLEY_HOME"
            ) from error

    def _write(self, vectors: dict[bytes, Vectors]) -> None:
        keys = np.frombuffer(b"".join(vectors), np.uint8).reshape(-1, DIGEST)
        body = save({"keys": keys, "vectors": np.stack(list(vectors.values()))})
        name = f"{uuid.uuid4().hex}.vectors"
        aside = self._folder / f"{name}.writing"
        with aside.open("wb") as file:
            file.write(hashlib.sha256(body).digest() + body)
            file.flush()
            os.fsync(file.fileno())
        aside.rename(self._folder / name)
        self._read.add(name)

    def _merge(self) -> None:
        """All that was read, as one file; another process that merges at the same time only writes it twice."""
        old = self._read
        self._read = set()
        self._write(self._vectors)
        for name in old:
            (self._folder / name).unlink(missing_ok=True)

    def _refresh(self) -> None:
        for path in sorted(self._folder.glob("*.vectors")):
            if path.name not in self._read:
                self._take(path)

    def _take(self, path: Path) -> None:
        self._read.add(path.name)
        try:
            body = path.read_bytes()
            if hashlib.sha256(body[DIGEST:]).digest() != body[:DIGEST]:
                raise ValueError("checksum differs")
            tensors = load(body[DIGEST:])
        except FileNotFoundError:
            return  # merged by another process: its file comes in the next look
        except (OSError, ValueError, SafetensorError) as error:
            log.warning("%s: left out (%s); what it held is encoded again", path, error)
            return
        keys = tensors["keys"].tobytes()
        rows = (keys[i : i + DIGEST] for i in range(0, len(keys), DIGEST))
        self._vectors |= dict(zip(rows, tensors["vectors"], strict=True))
