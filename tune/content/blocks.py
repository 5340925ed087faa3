"""Items in a block with their vectors, and the table as which a block travels between Ray Data's steps.

Shapes: N items of the block, E size of the embedding.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.content.embedding import Embedded


@dataclass(frozen=True)
class Block:
    """ids and providers of N items; what `Embedded` says of them."""

    ids: tuple[str, ...]
    providers: tuple[str | None, ...]
    embedded: Embedded

    @classmethod
    def of(cls, items: pa.Table, embedded: Embedded) -> "Block":
        return cls(tuple(items["item_id"].to_pylist()), tuple(items["provider_id"].to_pylist()), embedded)

    def table(self) -> pa.Table:
        reasons: dict[int, list[str]] = defaultdict(list)
        for row, reason in self.embedded.problems:
            reasons[row].append(reason)
        vectors_NE = self.embedded.vectors_NE
        return pa.table(
            {
                "item_id": pa.array(self.ids, pa.string()),
                "provider_id": pa.array(self.providers, pa.string()),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors_NE.ravel()), vectors_NE.shape[1]),
                "there": pa.array(self.embedded.there_N),
                "reasons": pa.array([reasons[row] for row in range(len(self.ids))], pa.list_(pa.string())),
                "encoded": pa.array([self.embedded.encoded] + [0] * (len(self.ids) - 1), pa.int64()),
            }
        )

    @classmethod
    def read(cls, table: pa.Table) -> "Block":
        column = table["vector"].combine_chunks()
        vectors_NE: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
        rows = enumerate(table["reasons"].to_pylist())
        problems = tuple((row, reason) for row, reasons in rows for reason in reasons)
        there_N = table["there"].to_numpy().astype(bool)
        embedded = Embedded(vectors_NE, there_N, problems, int(table["encoded"].to_numpy().sum()))
        return cls(tuple(table["item_id"].to_pylist()), tuple(table["provider_id"].to_pylist()), embedded)
