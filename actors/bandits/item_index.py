"""Which items of a large catalogue have the greatest inner products with some queries: FAISS, and nothing else of it.

An inverted file of half-precision vectors: a query looks into a few cells, those whose centres fit it best. Items that
come later stand in a tail that is searched whole, and move into a copy of the file TAIL at a time, so that a change
costs what it changes and whoever searches is never waited for.

Shapes: I items (rows of the catalogue), W width of a vector, Q queries.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints

TAIL = 4_096
LANES = 16
"""Widths are padded to a multiple of it: what one instruction of the widest machines holds."""


@dataclass(frozen=True)
class ItemIndex:
    """file: the FAISS index of rows 0 .. file.ntotal - 1. tail_JW: vectors of the rows after them."""

    file: Any
    tail_JW: Floats

    @classmethod
    def of(cls, vectors_IW: Floats) -> "ItemIndex":
        """Cells are fitted to these vectors, about 2√I of them: 2,048 for a million."""
        faiss = _faiss()
        padded_IW = _padded(vectors_IW)
        items, width = padded_IW.shape
        cells = 1 << max(0, round(np.log2(2 * np.sqrt(max(items, 1)))))
        half = faiss.ScalarQuantizer.QT_fp16
        file = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(width), width, cells, half, faiss.METRIC_INNER_PRODUCT, False
        )
        file.cp.niter, file.cp.min_points_per_centroid, file.cp.max_points_per_centroid = 8, 1, 64
        file.train(padded_IW)
        file.add(padded_IW)
        return cls(file, padded_IW[:0])

    def __len__(self) -> int:
        return int(self.file.ntotal) + len(self.tail_JW)

    @property
    def crowded(self) -> bool:
        """Whether so many items came that cells should be fitted anew."""
        return len(self) > max(int(self.file.nlist) ** 2, 2 * TAIL)

    def grown(self, vectors_JW: Floats) -> "ItemIndex":
        """With these rows after those that are there."""
        tail_JW = np.concatenate([self.tail_JW, _padded(vectors_JW)])
        if len(tail_JW) < TAIL:
            return ItemIndex(self.file, tail_JW)
        file = _faiss().clone_index(self.file)
        file.add(tail_JW)
        return ItemIndex(file, tail_JW[:0])

    def search(self, query_QW: Floats, most: int, probes: int, open_I: NDArray[np.bool_] | None = None) -> Ints:
        """Rows among the `most` best of some query, in order, each once.

        Args:
            probes: cells that a query looks into.
            open_I: rows that may be found, None for all. The fewer there are, the more cells are looked into.
        """
        faiss, query_QW = _faiss(), _padded(query_QW)
        share = 1.0 if open_I is None else max(float(open_I.mean()), 1e-9)
        found = faiss.SearchParametersIVF(nprobe=min(self.file.nlist, int(np.ceil(probes / share))))
        if open_I is not None:
            packed = np.packbits(open_I[: self.file.ntotal], bitorder="little")
            found.sel = faiss.IDSelectorBitmap(packed)
        _, rows_QN = self.file.search(query_QW, most, params=found)
        rows = np.unique(rows_QN)
        return np.union1d(rows[rows >= 0], self._of_tail(query_QW, most, open_I))

    def _of_tail(self, query_QW: Floats, most: int, open_I: NDArray[np.bool_] | None) -> Ints:
        first = int(self.file.ntotal)
        places = np.arange(len(self.tail_JW)) if open_I is None else np.flatnonzero(open_I[first : len(self)])
        if len(places) > most:
            score_QJ = query_QW @ self.tail_JW[places].T
            places = places[np.unique(np.argpartition(-score_QJ, most - 1, axis=1)[:, :most])]
        return places + first


def _faiss() -> Any:
    """Loaded where it is used: it takes memory that a process without a large catalogue need not give."""
    import faiss

    return faiss


def _padded(vectors_NW: Floats) -> Floats:
    rows, width = vectors_NW.shape
    padded = np.zeros((rows, width + -width % LANES), np.float32)
    padded[:, :width] = vectors_NW
    return padded
