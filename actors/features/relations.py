"""How the items of a catalogue are related: their providers, the clusters of these, and the nearest of other items.

The member "cluster" has a row of parameters for each cluster and a last one for an unknown one. The member "provider"
has one for each provider, then one for a new provider of each cluster, then a last one for an unknown one.

Shapes: I items of the catalogue now, F items at the fit, P providers, C clusters, J neighbours, E size of embeddings,
Q numbers that they are reduced to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actors.features.dense import times
from actors.features.features import Floats, Ints
from actors.features.kin import Kin, alphas
from actors.features.lowrank import principal
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

    def __post_init__(self) -> None:
        if self.cluster_P.min(initial=0) < 0 or self.cluster_P.max(initial=-1) >= len(self.clusters):
            raise ModelError(
                f"clusters {sorted(set(self.cluster_P.tolist()))} of providers are not among {self.clusters}"
            )

    @property
    def neighbours(self) -> int:
        """J: how many known items an item is compared with."""
        return int(self.kin.near_KJ.shape[1])

    @property
    def provider_rows(self) -> int:
        """Rows of parameters of the member "provider", P + C + 1."""
        return len(self.providers) + len(self.clusters) + 1

    @property
    def cluster_rows(self) -> int:
        """Rows of parameters of the member "cluster", C + 1."""
        return len(self.clusters) + 1

    def take(self, rows: Ints) -> "Relations":
        """Of another catalogue, whose items (and at the end an unknown one) stand in these rows of this one."""
        return replace(self, kin=self.kin.take(rows))

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
