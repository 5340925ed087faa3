"""All entries of a store in a folder that appears whole or not at all, and is mapped into memory, not parsed.

    snapshot-<n>/entries.arrow        one row an entry, the partitions one after the other
    snapshot-<n>/cells.safetensors    centres and rows of the cells of large spaces
    snapshot-<n>/manifest.json        sizes and checksums of these, the partitions, the vocabulary

Any Arrow reader opens entries.arrow: item_id, embedding, and the columns of `payloads.SCHEMA`.
"""

import json
import os
import shutil
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from actors.content.vectors.entry import Vectors
from actors.content.vectors.payloads import SCHEMA, Payloads
from cluster.disk import flush
from cluster.errors import StateError

FORMAT = 1
MANIFEST = "manifest.json"
Arrays: TypeAlias = dict[str, NDArray[Any]]
_REMEDY = "restore the store's folder from a copy, or delete it and embed the items again"


@dataclass(frozen=True)
class Snapshot:
    """Rows are the store's slots. partitions: (cluster, provider, entries), in the order of the rows."""

    item_ids: list[str]
    vectors_SE: Vectors
    payloads: Payloads
    partitions: list[tuple[str, str, int]]
    cells: Arrays

    @classmethod
    def empty(cls, width: int) -> "Snapshot":
        return cls([], np.empty((0, width), np.float32), Payloads.empty(), [], {})


def write(folder: Path, entries: Snapshot) -> None:
    """Raises OSError where it cannot be written; then there is no such folder."""
    aside = folder.with_name(f".{folder.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    width = entries.vectors_SE.shape[1]
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(entries.vectors_SE.reshape(-1)), width)
    table = entries.payloads.table.add_column(0, "embedding", embedding)
    table = table.add_column(0, "item_id", pa.array(entries.item_ids, pa.large_string())).combine_chunks()
    with pa.OSFile(str(aside / "entries.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    save_file(entries.cells, aside / "cells.safetensors")
    facts = {
        "format": FORMAT,
        "width": width,
        "partitions": entries.partitions,
        "names": entries.payloads.names,
        "files": {path.name: {"bytes": path.stat().st_size, "crc32": _crc(path)} for path in sorted(aside.iterdir())},
    }
    (aside / MANIFEST).write_text(json.dumps(facts))
    for path in [*aside.iterdir(), aside]:
        flush(path)
    os.rename(aside, folder)
    flush(folder.parent)


def read(folder: Path, width: int) -> Snapshot:
    """Raises StateError: a file is missing, cut short or changed, or the embeddings are of another size."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
        if facts["format"] > FORMAT:
            raise StateError(f"{folder}: format {facts['format']} is newer than {FORMAT}, which this Medley reads")
        if facts["width"] != width:
            raise StateError(
                f"{folder}: a store of embeddings of size {facts['width']}, opened for {width}; use another folder"
            )
        for name, expected in facts["files"].items():
            path = folder / name
            if path.stat().st_size != expected["bytes"] or _crc(path) != expected["crc32"]:
                raise StateError(f"{path}: cut short or changed since it was written; {_REMEDY}")
        with pa.memory_map(str(folder / "entries.arrow")) as source:
            table = pa.ipc.open_file(source).read_all()
        return Snapshot(
            table["item_id"].to_pylist(),
            _embeddings(table["embedding"], width),
            Payloads(table.select(SCHEMA.names), facts["names"]),
            [(str(cluster), str(provider), int(count)) for cluster, provider, count in facts["partitions"]],
            load_file(folder / "cells.safetensors"),
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, SafetensorError) as error:
        raise StateError(f"{folder}: cannot be read ({error}); {_REMEDY}") from error


def _embeddings(column: pa.ChunkedArray, width: int) -> Vectors:
    if not column.num_chunks:
        return np.empty((0, width), np.float32)
    found: Vectors = column.chunk(0).values.to_numpy().reshape(-1, width)
    return found


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            crc = zlib.crc32(block, crc)
    return crc
