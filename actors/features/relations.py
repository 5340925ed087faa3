"""How the items of a catalogue are related: their providers, the clusters of these, and the nearest of other items.

The member "cluster" has a row of parameters for each cluster and a last one for an unknown one. The member "provider"
has one for each provider, then one for a new provider of each cluster, then a last one for an unknown one.

Shapes: I items of the catalogue now, F items at the fit, P providers, C clusters, J neighbours, E size of embeddings,
Q numbers that they are reduced to.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.catalogue import embeddings, unit
from actors.features.dense import times
from actors.features.extended import extend
from actors.features.features import Floats, Ints
from actors.features.kin import Kin, alphas
from actors.features.lowrank import principal
from actors.features.near import nearest
from cluster.errors import ModelError

REDUCED = 16
"""Numbers that an embedding is reduced to, at most."""


@dataclass(frozen=True)
class Relations:
    """Made by `of` for a catalogue at the fit; `followed` for items that come later.

    kin: of the catalogue's rows now, and of an unknown item in the last row, I + 1.
    cluster_P: each provider's cluster. provider_F: each fitted item's provider, -1 for none.
    vectors_FE: unit embeddings in single precision, 0 for an item that has none; (F, 0) where none has.
    center_E, axes_EQ: reduce an embedding. temperature: τ of the neighbours' weights, in units of cosine.
    source: what published the embeddings, NAME/NUMBER in the registry; empty where items came with their own.
    encoder: fingerprint of the model that made them, empty where nobody knows.
    """

    providers: tuple[str, ...]
    clusters: tuple[str, ...]
    cluster_P: Ints
    kin: Kin
    provider_F: Ints
    vectors_FE: Floats
    center_E: Floats
    axes_EQ: Floats
    temperature: float
    source: str = ""
    encoder: str = ""

    def __post_init__(self) -> None:
        if self.cluster_P.min(initial=0) < 0 or self.cluster_P.max(initial=-1) >= len(self.clusters):
            raise ModelError(
                f"clusters {sorted(set(self.cluster_P.tolist()))} of providers are not among {self.clusters}"
            )

    @property
    def width(self) -> int:
        """E, 0 where no item has an embedding."""
        return int(self.vectors_FE.shape[1])

    @property
    def neighbours(self) -> int:
        """J: how many known items an item is compared with."""
        return int(self.kin.near_KJ.shape[1])

    @cached_property
    def place(self) -> Mapping[str, int]:
        """The number of each provider."""
        return {name: p for p, name in enumerate(self.providers)}

    @property
    def provider_rows(self) -> int:
        """Rows of parameters of the member "provider", P + C + 1."""
        return len(self.providers) + len(self.clusters) + 1

    @property
    def cluster_rows(self) -> int:
        """Rows of parameters of the member "cluster", C + 1."""
        return len(self.clusters) + 1

    def with_items(
        self, items: pa.Table, rows: Ints, fitted: Ints, replaced: NDArray[np.bool_] | None = None
    ) -> "Relations":
        """Of another catalogue: items with a row in this one keep what is known of them, the others, and those whose
        provider or embedding is another now, are `later` ones.

        Args:
            rows: of the items in this catalogue, -1 for none. fitted: their catalogue index at the fit, -1 for none.
            replaced: items that have another embedding than in this catalogue; None for no one.
        """
        kin = self.kin.take(np.append(rows, -1))
        new_I = (rows < 0) | self._moved(items["provider_id"].to_pylist(), kin.provider_K[:-1])
        new = np.flatnonzero(new_I if replaced is None else new_I | replaced)
        if len(new):
            more = self.later(items.take(pa.array(new)), fitted[new])
            for field in fields(kin):
                getattr(kin, field.name)[new] = getattr(more, field.name)
        return replace(self, kin=kin)

    def _moved(self, names: Sequence[str | None], provider_N: Ints) -> NDArray[np.bool_]:
        """Which items are of another provider than the one by which they are known, or are now of any or of none."""
        place_N = np.array([self.place.get(name or "", -1) for name in names], np.int64)
        unknown_N = np.array([bool(name) for name in names], np.bool_) & (place_N < 0)
        return np.where(unknown_N, provider_N < len(self.providers), provider_N != place_N)

    def followed(self, items: pa.Table, fitted: Ints) -> "Relations":
        """Of the same catalogue with these items after it, as `later` sees them; what was there is shared."""
        later = with_unknown(self.later(items, fitted))
        parts = (extend(getattr(self.kin, field.name), getattr(later, field.name)) for field in fields(later))
        made = copy.copy(self)  # with what was found of the fitted items, which takes long for many
        object.__setattr__(made, "kin", Kin(*parts))
        return made

    def later(self, items: pa.Table, fitted: Ints) -> Kin:
        """Kin of items (ITEMS schema) that were not in the catalogue, or not as they are now; of each as alone.

        Their provider goes by its name. A new one is of the cluster whose items are nearest to this item on the mean,
        and unknown where the item has no embedding. Neighbours are sought among the items of the fit by the item's own
        `embedding`, where that has the right size and is finite, or else by what the fit knew of it: in its provider,
        else in its cluster, else in all, whichever is the first to have enough.

        Args:
            fitted: the items' catalogue index at the fit, -1 for none.
        """
        vectors_NE, given_N = embeddings(items, self.width)
        vectors_NE = unit(vectors_NE, least=0.0).astype(np.float32)
        known_N = ~given_N & (fitted >= 0)
        vectors_NE[known_N] = self.vectors_FE[fitted[known_N]]
        names = items["provider_id"].to_pylist()
        provider_N = np.array([self.place.get(name, -1) for name in names], np.int64)
        cluster_N = np.append(self.cluster_P, -1)[provider_N]
        new_N = (provider_N < 0) & np.array([bool(name) for name in names], np.bool_) & vectors_NE.any(axis=1)
        if len(self.clusters):
            cluster_N[new_N] = times(vectors_NE[new_N], self._centre_CE.T).argmax(axis=1)
        near_NJ, similarity_NJ, level_N = self._sought(vectors_NE, provider_N, cluster_N, fitted)
        return Kin(
            np.where(new_N & (cluster_N >= 0), len(self.providers) + cluster_N, provider_N),
            cluster_N,
            near_NJ,
            similarity_NJ,
            alphas(similarity_NJ, near_NJ, self.temperature),
            level_N,
            reduced(vectors_NE, self.center_E, self.axes_EQ),
        )

    def _sought(self, vectors_NE: Floats, provider_N: Ints, cluster_N: Ints, fitted: Ints) -> tuple[Ints, Floats, Ints]:
        """near_NJ, similarity_NJ and level_N of `Kin`."""
        shape = len(vectors_NE), self.neighbours
        near_NJ, similarity_NJ, level_N = np.full(shape, -1), np.zeros(shape), np.zeros(len(vectors_NE), np.int64)
        if not self.neighbours:
            return near_NJ, similarity_NJ, level_N
        scopes: dict[tuple[int, int], list[int]] = {}
        for n in np.flatnonzero(vectors_NE.any(axis=1)).tolist():
            scopes.setdefault(self._scope(int(provider_N[n]), int(cluster_N[n]), int(fitted[n])), []).append(n)
        for (level, number), rows in scopes.items():
            among_M = self._scopes[level][number]
            own = np.where(np.isin(fitted[rows], among_M), np.searchsorted(among_M, fitted[rows]), -1).tolist()
            vectors_ME = self.vectors_FE if len(among_M) == len(self.vectors_FE) else self.vectors_FE[among_M]
            found_NJ, similarity_NJ[rows] = nearest(vectors_NE[rows], vectors_ME, self.neighbours, own)
            near_NJ[rows] = np.append(among_M, -1)[found_NJ]
            level_N[rows] = np.where(near_NJ[rows, 0] >= 0, level, 0)
        return near_NJ, similarity_NJ, level_N

    def _scope(self, provider: int, cluster: int, fitted: int) -> tuple[int, int]:
        """Level and number of the narrowest scope that has enough others."""
        for level, number in ((1, provider), (2, cluster)):
            among_M = self._scopes[level].get(number)
            if among_M is not None and len(among_M) - (fitted in among_M) >= self.neighbours:
                return level, number
        return 3, 0

    @cached_property
    def _scopes(self) -> tuple[dict[int, Ints], ...]:
        """By level and number, the fitted items that have embeddings, ascending."""
        there_F = np.flatnonzero(self.vectors_FE.any(axis=1))
        provider_F = self.provider_F[there_F]
        cluster_F = np.append(self.cluster_P, -1)[provider_F]
        return {}, _by_number(there_F, provider_F), _by_number(there_F, cluster_F), {0: there_F}

    @cached_property
    def _centre_CE(self) -> Floats:
        """The mean direction of each cluster's fitted items; 0 for one without embeddings."""
        none: Ints = np.empty(0, np.int64)
        means = [self.vectors_FE[self._scopes[2].get(c, none)].sum(axis=0) for c in range(len(self.clusters))]
        return unit(np.stack(means)) if means else np.zeros((0, self.width))

    @classmethod
    def of(
        cls,
        provider_ids: Sequence[str | None],
        cluster_of: Mapping[str, str],
        vectors_FE: Floats,
        near_FJ: Ints,
        similarity_FJ: Floats,
        level_F: Ints,
        temperature: float,
    ) -> "Relations":
        """Of a catalogue at the fit, item by item; providers and clusters are numbered in the order of their names.

        Args:
            provider_ids: each item's, None for none.
            cluster_of: the cluster of each provider.
            vectors_FE, near_FJ, similarity_FJ, level_F: as in this class and `Kin`; of no width where there are no
                embeddings.

        Raises:
            ModelError: a provider without a cluster, numbers of items that differ, or a temperature not above 0.
        """
        providers = tuple(sorted({name for name in provider_ids if name is not None}))
        missing = [name for name in providers if name not in cluster_of]
        if missing:
            raise ModelError(f"providers {missing[:5]} have no cluster; give each provider one")
        clusters = tuple(sorted({cluster_of[name] for name in providers}))
        cluster_P = np.array([clusters.index(cluster_of[name]) for name in providers], np.int64)
        place = {name: p for p, name in enumerate(providers)}
        provider_F = np.array([-1 if name is None else place[name] for name in provider_ids], np.int64)
        sizes = {len(part) for part in (provider_F, vectors_FE, near_FJ, similarity_FJ, level_F)}
        if len(sizes) > 1:
            raise ModelError(f"relations of {sorted(sizes)} items; each needs a row in every array")
        there_F = vectors_FE.any(axis=1)
        center_E: Floats = np.zeros(vectors_FE.shape[1])
        axes_EQ: Floats = np.zeros((vectors_FE.shape[1], 0))
        if there_F.sum() >= 2:
            center_E, axes_EQ = principal(vectors_FE[there_F].astype(np.float64), REDUCED)
        kin = Kin(
            provider_F,
            np.append(cluster_P, -1)[provider_F],
            near_FJ,
            similarity_FJ,
            alphas(similarity_FJ, near_FJ, temperature),
            level_F,
            reduced(vectors_FE, center_E, axes_EQ),
        )
        vectors_FE = vectors_FE.astype(np.float32)
        return cls(
            providers, clusters, cluster_P, with_unknown(kin), provider_F, vectors_FE, center_E, axes_EQ, temperature
        )


def _by_number(rows_F: Ints, number_F: Ints) -> dict[int, Ints]:
    """The rows of each number from 0 on, in their order."""
    order_F = np.argsort(number_F, kind="stable")
    numbers, first = np.unique(number_F[order_F], return_index=True)
    parts = np.split(rows_F[order_F], first[1:])
    return {number: part for number, part in zip(numbers.tolist(), parts, strict=False) if number >= 0}


def reduced(vectors_NE: Floats, center_E: Floats, axes_EQ: Floats) -> Floats:
    """(N, Q) of unit embeddings, 0 for the zero vector."""
    there_N1 = vectors_NE.any(axis=1, keepdims=True)
    return np.asarray(times(vectors_NE - center_E, axes_EQ) * there_N1)


def with_unknown(kin: Kin) -> Kin:
    """The rows and after them that of an unknown item."""
    width, size = kin.near_KJ.shape[1], kin.reduced_KQ.shape[1]
    none, zeros = np.full((1, width), -1), np.zeros((1, width))
    return Kin(
        np.append(kin.provider_K, -1),
        np.append(kin.cluster_K, -1),
        np.append(kin.near_KJ, none, axis=0),
        np.append(kin.similarity_KJ, zeros, axis=0),
        np.append(kin.alpha_KJ, zeros, axis=0),
        np.append(kin.level_K, 0),
        np.append(kin.reduced_KQ, np.zeros((1, size)), axis=0),
    )
