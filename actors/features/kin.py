"""What an item's content says of it: whose it is, who its provider is like, and which known items it is like.

Shapes: K items, J neighbours at most, I items of the catalogue at the fit, Q numbers that a vector is reduced to.
"""

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cluster.errors import ModelError

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.int64]

LEVELS = ("none", "provider", "cluster", "all")
"""Where an item's neighbours were sought, by number: the narrowest scope that has enough."""


@dataclass(frozen=True)
class Kin:
    """Of K items; made by `Relations`.

    provider_K, cluster_K: rows of parameters of the members "provider" and "cluster", -1 (the last row) for unknown.
    near_KJ: the items (catalogue index at the fit) that are nearest by their embeddings, the nearest first, -1 for
        none; never the item itself.
    similarity_KJ: their cosines, 0 for none. alpha_KJ: softmax(similarity/τ) over those there, 0 for none.
    level_K: places in LEVELS.
    reduced_KQ: the embeddings on their leading principal axes, 0 for none.
    """

    provider_K: Ints
    cluster_K: Ints
    near_KJ: Ints
    similarity_KJ: Floats
    alpha_KJ: Floats
    level_K: Ints
    reduced_KQ: Floats

    def __len__(self) -> int:
        return len(self.provider_K)

    def take(self, rows: Ints) -> "Kin":
        """Of these items, in this order."""
        return Kin(*(getattr(self, field.name).take(rows, axis=0) for field in fields(self)))


def alphas(similarity_KJ: Floats, near_KJ: Ints, temperature: float) -> Floats:
    """softmax(similarity/τ) over the neighbours that are there (near >= 0), 0 for the others, (K, J).

    Raises:
        ModelError: a temperature that is not above zero.
    """
    if not 0 < temperature < np.inf:
        raise ModelError(f"temperature {temperature} of neighbours must be above 0")
    if not near_KJ.shape[1]:
        return np.zeros(near_KJ.shape)
    there_KJ = near_KJ >= 0
    most_K1 = np.where(there_KJ, similarity_KJ, -np.inf).max(axis=1, keepdims=True)
    away_KJ = np.where(there_KJ, similarity_KJ - np.where(np.isfinite(most_K1), most_K1, 0.0), -np.inf)
    alpha_KJ = np.exp(away_KJ / temperature)
    return np.asarray(alpha_KJ / np.maximum(alpha_KJ.sum(axis=1, keepdims=True), 1e-300))
