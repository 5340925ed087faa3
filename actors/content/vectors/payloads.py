"""The models and outcomes of a store's entries: a snapshot's as Arrow columns, those changed since beside them.

Only what is asked for becomes a Python object, so that a million entries are there as soon as their file is mapped.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.content.vectors.entry import Outcomes

Payload: TypeAlias = tuple[Mapping[str, float], Mapping[str, Outcomes]]
"""An entry's models and outcomes."""

SCHEMA = pa.schema(
    [
        ("model", pa.large_list(pa.int32())),
        ("weight", pa.large_list(pa.float64())),
        ("kind", pa.large_list(pa.int32())),
        ("sums", pa.large_list(pa.float64())),
    ]
)
"""Models and kinds are places in `names`; `sums` are three for each kind: of 1, r and r², decayed."""


class Payloads:
    """By slot, the store's number of an entry; slots of the snapshot are its rows.

    Args:
        table: columns of SCHEMA, in one piece.
    """

    def __init__(self, table: pa.Table, names: Sequence[str]) -> None:
        self.table, self.names = table, list(names)
        self._code = {name: n for n, name in enumerate(self.names)}
        self._lists = [_lists(table[name]) for name in SCHEMA.names]
        self._changed: dict[int, Payload] = {}

    @classmethod
    def empty(cls) -> "Payloads":
        return cls(SCHEMA.empty_table(), ())

    def __getitem__(self, slot: int) -> Payload:
        changed = self._changed.get(slot)
        if changed is not None:
            return changed
        model, weight, kind, sums = (values[start[slot] : start[slot + 1]].tolist() for start, values in self._lists)
        outcomes = {self.names[k]: Outcomes(*sums[3 * n : 3 * n + 3]) for n, k in enumerate(kind)}
        return {self.names[m]: w for m, w in zip(model, weight, strict=True)}, outcomes

    def __setitem__(self, slot: int, payload: Payload) -> None:
        self._changed[slot] = payload

    def of(self, slot_N: NDArray[np.int64]) -> "Payloads":
        """Those of these slots, numbered anew in this order."""
        changed = list(self._changed.values())
        columns = [
            [[self._of(name) for name in models] for models, _ in changed],
            [list(models.values()) for models, _ in changed],
            [[self._of(kind) for kind in outcomes] for _, outcomes in changed],
            [[x for o in outcomes.values() for x in (o.count, o.reward, o.square)] for _, outcomes in changed],
        ]
        new = pa.table([pa.array(rows, field.type) for rows, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
        place_S = np.arange(max(len(self.table), *self._changed, -1, -1) + 1)
        place_S[list(self._changed)] = len(self.table) + np.arange(len(changed))
        table = pa.concat_tables([self.table, new]).combine_chunks()
        return Payloads(table.take(place_S[slot_N]).combine_chunks(), self.names)

    def _of(self, name: str) -> int:
        if name not in self._code:
            self._code[name] = len(self.names)
            self.names.append(name)
        return self._code[name]


def _lists(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Where each row's list begins, and the values of all."""
    if not column.num_chunks:
        return np.zeros(1, np.int64), np.empty(0)
    lists = column.chunk(0)
    return lists.offsets.to_numpy(), lists.values.to_numpy()
