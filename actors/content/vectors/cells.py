"""A large space divided into cells, so that a search looks into few of them: FAISS's inverted file.

HNSW stands in the design for this place. It cannot delete, loses its recall under a filter, and takes a minute to build
where this takes one second; and it was no faster at equal recall (docs/vectors.md has the figures of both).

How many cells a search looks into is measured when the cells are fitted, against exact answers: for queries like the
entries themselves and for queries halfway between two of them, at several shares of entries that may be found. Where so
many cells are needed that reading every vector is cheaper, it says so, and the space is searched exactly.

Shapes: R rows of a space, C cells, E size, Q queries, N found.
"""

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.content.vectors.entry import Vectors

faiss: Any = import_module("faiss")  # its types know neither the keyword arguments nor the constants used here
Ints: TypeAlias = NDArray[np.int64]

TARGET = 0.995
"""Least recall in calibration, the worse of the two kinds of queries."""
MOST = 24
"""Neighbours that recall is measured for; a search for more is exact."""
SHARES = (1.0, 0.3, 0.1, 0.03)
TRIED = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
QUERIES = 128
SEED = 1
EXACT_NS, CENTRE_NS, SKIPPED_NS, FOUND_NS = 7.0, 7.0, 8.0, 30.0
"""Measured at 64 dimensions: a row read in order, a cell's centre, a row of a cell, and more if it may be found."""


@dataclass
class Cells:
    """probes_S: cells to look into for each of SHARES, 0 where exact search is cheaper."""

    centre_CE: Vectors
    probes_S: tuple[int, ...]
    cell_R: NDArray[np.int32]
    file: Any

    @classmethod
    def of(
        cls,
        centre_CE: Vectors,
        probes_S: tuple[int, ...],
        cell_R: NDArray[np.int32],
        vectors_RE: Vectors,
    ) -> "Cells":
        """Cells whose rows are known."""
        cells, width = centre_CE.shape
        centres = faiss.IndexFlatIP(width)
        centres.add(centre_CE)
        file = faiss.IndexIVFFlat(centres, width, cells, faiss.METRIC_INNER_PRODUCT)
        file.is_trained = True
        rows, ids, places = len(vectors_RE), np.arange(len(vectors_RE)), cell_R.astype(np.int64)
        vectors_RE = np.ascontiguousarray(vectors_RE)
        file.add_core(rows, faiss.swig_ptr(vectors_RE), faiss.swig_ptr(ids), faiss.swig_ptr(places))
        file.set_direct_map_type(faiss.DirectMap.Hashtable)
        return cls(centre_CE, probes_S, cell_R, file)

    @classmethod
    def fit(cls, vectors_RE: Vectors) -> "Cells":
        """About 2√R cells. The same rows in the same order give the same cells."""
        rows, width = vectors_RE.shape
        number = 1 << round(np.log2(2 * np.sqrt(rows)))
        clustering = faiss.Clustering(width, number)
        clustering.niter, clustering.seed, clustering.spherical = 8, SEED, True
        clustering.min_points_per_centroid, clustering.max_points_per_centroid = 1, 64
        centres = faiss.IndexFlatIP(width)
        clustering.train(np.ascontiguousarray(vectors_RE), centres)
        centre_CE = faiss.vector_to_array(clustering.centroids).reshape(number, width)
        found = cls.of(centre_CE, (), _nearest_cell(centres, vectors_RE), vectors_RE)
        found.probes_S = found._calibrated(vectors_RE)
        return found

    def __len__(self) -> int:
        return int(self.file.ntotal)

    def probes(self, selected: int, share: float) -> int:
        """Cells to look into where `selected` rows may be found; 0 says that exact search is cheaper.

        Args:
            share: of a cell's rows that may be found, in the cells that have the fewest.
        """
        place = next((n for n, tried in enumerate(SHARES) if tried <= share), None)
        if place is None or not self.probes_S[place]:
            return 0
        cells, number = len(self.centre_CE), self.probes_S[place]
        looked = number / cells * len(self)
        cost = CENTRE_NS * cells + looked * (SKIPPED_NS + FOUND_NS * share)
        return number if cost < EXACT_NS * selected else 0

    def least_share(self, row_N: Ints) -> float:
        """The share of a cell's rows that are among these, at the second percentile of the rows themselves.

        A filter that goes with the content, such as one category, leaves some cells nearly empty: the neighbours of a
        query there are far away, in more cells than a filter by chance would need.
        """
        rows = len(self)
        in_C = np.bincount(self.cell_R[:rows], minlength=len(self.centre_CE))
        kept_C = np.bincount(self.cell_R[row_N], minlength=len(self.centre_CE))
        share_C = kept_C / np.maximum(in_C, 1)
        order = np.argsort(share_C)
        return float(share_C[order][np.searchsorted(np.cumsum(in_C[order]), 0.02 * rows)])

    def search(self, query_QE: Vectors, most: int, parameters: Any) -> Ints:
        """Rows, −1 where there are fewer."""
        row_QN: Ints = self.file.search(query_QE, most, params=parameters)[1]
        return row_QN

    def put(self, first: int, vectors_NE: Vectors, room: int) -> None:
        """Rows `first` and following; `room`: rows that the space can hold."""
        cell_N = _nearest_cell(self.file.quantizer, vectors_NE)
        if len(self.cell_R) < room:
            self.cell_R = np.concatenate([self.cell_R, np.zeros(room - len(self.cell_R), np.int32)])
        elif not self.cell_R.flags.writeable:
            self.cell_R = self.cell_R.copy()
        self.cell_R[first : first + len(vectors_NE)] = cell_N
        self.file.add_with_ids(vectors_NE, np.arange(first, first + len(vectors_NE)))

    def drop(self, *rows: int) -> None:
        self.file.remove_ids(np.array(rows))

    def parameters(self, probes: int, selector: Any = None) -> Any:
        return faiss.SearchParametersIVF(nprobe=probes, sel=selector)

    @cached_property
    def unfiltered(self) -> Any:
        """Parameters where every row may be found; only where `probes(len(self), 1.0)` is not 0."""
        return self.parameters(self.probes_S[0])

    def _calibrated(self, vectors_RE: Vectors) -> tuple[int, ...]:
        rng = np.random.default_rng(SEED)
        rows = len(vectors_RE)
        one_QE, other_QE = vectors_RE[rng.integers(0, rows, (2, QUERIES))]
        between_QE = one_QE + other_QE
        between_QE /= np.maximum(np.linalg.norm(between_QE, axis=1, keepdims=True), 1e-6)
        found = [self._enough(vectors_RE, (one_QE, between_QE), np.flatnonzero(rng.random(rows) < s)) for s in SHARES]
        return tuple(found)

    def _enough(self, vectors_RE: Vectors, queries: tuple[Vectors, ...], row_N: Ints) -> int:
        """The fewest cells tried with recall TARGET for each kind of query, 0 beyond a quarter of all."""
        rows, cells = len(vectors_RE), len(self.centre_CE)
        selected_NE = np.ascontiguousarray(vectors_RE[row_N])
        truths = [faiss.knn(query_QE, selected_NE, MOST, faiss.METRIC_INNER_PRODUCT)[0] for query_QE in queries]
        selector = bitmap(row_N, rows)
        for probes in (number for number in TRIED if number <= cells // 4):
            given = self.parameters(probes, selector)
            found = [self.file.search(query_QE, MOST, params=given)[0] for query_QE in queries]
            if min(_recall(*pair) for pair in zip(truths, found, strict=True)) >= TARGET:
                return probes
        return 0


def bitmap(row_N: Ints, rows: int) -> Any:
    """A FAISS selector of these rows."""
    allowed_R = np.zeros(rows, bool)
    allowed_R[row_N] = True
    return faiss.IDSelectorBitmap(np.packbits(allowed_R, bitorder="little"))


def _recall(truth_QN: Vectors, found_QN: Vectors) -> float:
    """Of equal similarities any is right."""
    return float((found_QN >= truth_QN[:, -1:] - 1e-6).mean())


def _nearest_cell(centres: Any, vectors_NE: Vectors) -> NDArray[np.int32]:
    found_N1: Ints = centres.search(np.ascontiguousarray(vectors_NE), 1)[1]
    return found_N1[:, 0].astype(np.int32)
