"""A commit's changes as the bytes of a log's record, and back: JSON for all but the embeddings, which follow it.

    length of the JSON u32, JSON, embeddings of the entries in order as float32, little-endian

What a reward changes is written as the entry that it leads to, so that reading a log needs no arithmetic.
"""

import json
import struct
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from actors.content.vectors.entry import Delete, Entry, Move, Outcomes, Put

Settled: TypeAlias = Put | Delete | Move
"""A change that says what is to be, whatever was."""

_LENGTH = struct.Struct("<I")


def encode(changes: Sequence[Settled]) -> bytes:
    rows, vectors = [], []
    for change in changes:
        match change:
            case Put(e):
                outcomes = {kind: [sums.count, sums.reward, sums.square] for kind, sums in e.outcomes.items()}
                rows.append(["put", e.item_id, e.provider_id, e.cluster, dict(e.models), outcomes])
                vectors.append(e.embedding_E.tobytes())
            case Delete(item_id):
                rows.append(["delete", item_id])
            case Move(provider_id, source, target):
                rows.append(["move", provider_id, source, target])
    text = json.dumps(rows, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return b"".join([_LENGTH.pack(len(text)), text, *vectors])


def decode(body: bytes, width: int) -> list[Settled]:
    start = _LENGTH.size + _LENGTH.unpack_from(body)[0]
    vectors_NE = np.frombuffer(body[start:], "<f4").reshape(-1, width)
    changes: list[Settled] = []
    place = 0
    for kind, *row in json.loads(body[_LENGTH.size : start]):
        if kind == "put":
            item_id, provider_id, cluster, models, outcomes = row
            sums = {name: Outcomes(*three) for name, three in outcomes.items()}
            changes.append(Put(Entry(item_id, provider_id, cluster, vectors_NE[place], models, sums)))
            place += 1
        else:
            changes.append(Delete(*row) if kind == "delete" else Move(*row))
    return changes
