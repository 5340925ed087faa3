"""The vectors of one scope, a provider within its cluster or a whole cluster, and the nearest of them.

Small, or strongly filtered: every vector that may be found is read (`faiss.knn`, or a flat index on a GPU). Large and
weakly filtered: some cells of `Cells`. Whoever found them, the similarities of those found are computed once more, in
one way, and put in order: so that processor, GPU, one query and many give the same answer.

Shapes: R rows, E size, Q queries, N found, K neighbours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.content.vectors.cells import MOST, Cells, Ints, bitmap, faiss
from actors.content.vectors.entry import Vectors

LARGE = 8_192
"""Rows from which on a space gets cells, at the store's next checkpoint."""
SLACK = 8
"""Found beyond what is asked for, since the last bits of a similarity differ between ways to compute it."""


@dataclass(frozen=True)
class Selection:
    """What a filter leaves of a space. vectors_NE: a copy, read whole; or `parameters` for the cells."""

    generation: int
    row_N: Ints
    vectors_NE: Vectors | None
    parameters: Any = None

    @property
    def bytes(self) -> int:
        return self.row_N.nbytes + (0 if self.vectors_NE is None else self.vectors_NE.nbytes)


Flat = Callable[[Vectors], Any]
"""Vectors -> a FAISS index that reads them all, such as one on a GPU."""


class Space:
    """Rows 0 .. len - 1 without gaps: of a row that goes the last one takes the place.

    Args:
        vectors_RE, slot_R: what it begins with; read-only arrays are copied when they first change.
        slot_R: the store's number of each row's entry.
        flat: makes the index for whole exact searches; None is this processor, without an index.
        tried: rows for which cells were last fitted, whether they were worth it or not.
    """

    def __init__(
        self, vectors_RE: Vectors, slot_R: Ints, cells: Cells | None = None, flat: Flat | None = None, tried: int = 0
    ) -> None:
        self._vectors_RE, self._slot_R, self._rows = vectors_RE, slot_R, len(slot_R)
        self.cells, self._flat, self.tried = cells, flat, tried
        self.generation = 0
        self._whole: tuple[int, Any] = (-1, None)

    @classmethod
    def empty(cls, width: int, flat: Flat | None = None) -> "Space":
        return cls(np.empty((0, width), np.float32), np.empty(0, np.int64), None, flat)

    def __len__(self) -> int:
        return self._rows

    @property
    def vectors_RE(self) -> Vectors:
        return self._vectors_RE[: self._rows]

    @property
    def slot_R(self) -> Ints:
        return self._slot_R[: self._rows]

    def add(self, vectors_NE: Vectors, slot_N: Ints) -> int:
        """Returns the first of the new rows."""
        first, last = self._rows, self._rows + len(slot_N)
        self._writable(last)
        self._vectors_RE[first:last], self._slot_R[first:last] = vectors_NE, slot_N
        self._rows = last
        if self.cells is not None:
            self.cells.put(first, vectors_NE, len(self._slot_R))
        self.generation += 1
        return first

    def replace(self, row: int, vector_E: Vectors) -> None:
        self._writable(self._rows)
        self._vectors_RE[row] = vector_E
        if self.cells is not None:
            self.cells.drop(row)
            self.cells.put(row, vector_E[None], len(self._slot_R))
        self.generation += 1

    def remove(self, row: int) -> int:
        """Returns the slot whose row it is now; the row's own where it was the last."""
        self._writable(self._rows)
        last = self._rows - 1
        self._vectors_RE[row], self._slot_R[row] = self._vectors_RE[last], self._slot_R[last]
        self._rows = last
        if self.cells is not None:
            self.cells.drop(*{row, last})
            if row != last:
                self.cells.put(row, self._vectors_RE[row : row + 1], len(self._slot_R))
        self.generation += 1
        return int(self._slot_R[row])

    def select(self, row_N: Ints) -> Selection:
        """For `nearest` until the generation changes."""
        if self.cells is not None and len(row_N):
            probes = self.cells.probes(len(row_N), self.cells.least_share(row_N))
            if probes:
                selector = bitmap(row_N, self._rows)
                return Selection(self.generation, row_N, None, self.cells.parameters(probes, selector))
        return Selection(self.generation, row_N, self._vectors_RE[row_N])

    def nearest(self, query_QE: Vectors, most: int, chosen: Selection | None = None) -> tuple[Vectors, Ints]:
        """Similarities and slots (Q, most) of the nearest, in order; −inf and −1 where there are fewer.

        Args:
            chosen: what `select` returned for this generation, not empty.
        """
        wanted = most + SLACK
        if not self._rows:
            return np.full((len(query_QE), most), -np.inf, np.float32), np.full((len(query_QE), most), -1)
        if chosen is None:
            row_QN = self._of_all(query_QE, wanted)
        elif chosen.vectors_NE is None and wanted <= MOST + SLACK and self.cells is not None:
            row_QN = self.cells.search(query_QE, wanted, chosen.parameters)
        else:
            vectors_NE = self._vectors_RE[chosen.row_N] if chosen.vectors_NE is None else chosen.vectors_NE
            place_QN = _every(query_QE, vectors_NE, wanted)
            row_QN = chosen.row_N[place_QN]
            if len(vectors_NE) < wanted:
                row_QN[place_QN < 0] = -1
        return self._ordered(query_QE, row_QN, most)

    def _of_all(self, query_QE: Vectors, wanted: int) -> Ints:
        if self.cells is not None and wanted <= MOST + SLACK and self.cells.probes(self._rows, 1.0):
            return self.cells.search(query_QE, wanted, self.cells.unfiltered)
        if self._flat is not None:
            if self._whole[0] != self.generation:
                self._whole = (self.generation, self._flat(self.vectors_RE))
            row_QN: Ints = self._whole[1].search(query_QE, wanted)[1]
            return row_QN
        return _every(query_QE, self.vectors_RE, wanted)

    def _ordered(self, query_QE: Vectors, row_QN: Ints, most: int) -> tuple[Vectors, Ints]:
        found_QNE = self._vectors_RE[row_QN].astype(np.float64)  # −1 reads some row, which is masked
        similarity_QN = (found_QNE @ query_QE.astype(np.float64)[:, :, None])[:, :, 0].astype(np.float32)
        missing_QN = row_QN < 0
        similarity_QN[missing_QN] = -np.inf
        order_QK = np.lexsort((row_QN, -similarity_QN))[:, :most]
        query_Q1 = np.arange(len(query_QE))[:, None]
        slot_QN = self._slot_R[row_QN]
        slot_QN[missing_QN] = -1
        return similarity_QN[query_Q1, order_QK], slot_QN[query_Q1, order_QK]

    def _writable(self, rows: int) -> None:
        if len(self._slot_R) >= rows and self._vectors_RE.flags.writeable:
            return
        room = max(16, rows + rows // 2) if rows > len(self._slot_R) else len(self._slot_R)
        vectors_RE, slot_R = np.zeros((room, self._vectors_RE.shape[1]), np.float32), np.zeros(room, np.int64)
        vectors_RE[: self._rows], slot_R[: self._rows] = self.vectors_RE, self.slot_R
        self._vectors_RE, self._slot_R = vectors_RE, slot_R


def on_gpu() -> Flat | None:
    """A flat index on the first GPU; None where there is none."""
    if not faiss.get_num_gpus():
        return None
    resources = faiss.StandardGpuResources()

    def flat(vectors_RE: Vectors) -> Any:
        index = faiss.IndexFlatIP(vectors_RE.shape[1])
        index.add(vectors_RE)
        return faiss.index_cpu_to_gpu(resources, 0, index)

    return flat


def _every(query_QE: Vectors, vectors_NE: Vectors, most: int) -> Ints:
    row_QN: Ints = faiss.knn(query_QE, vectors_NE, most, faiss.METRIC_INNER_PRODUCT)[1]
    return row_QN
