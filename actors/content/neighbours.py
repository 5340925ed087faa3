"""Which models an item's neighbours speak for: how those that served items like it are weighted (docs/content.md).

    share_km = 0.99·(Σ_j α_kj·models_j[m] + u_k/M) + 0.01/M,    α_k = softmax(similarity_k/τ)

u_k is the part of the neighbours' weight that names none of the members: an entry that has no weights yet, or some that
are negative or not finite, and weights of members that are no longer there. What is not known so stays uniform, which
moves no blend. Weights that do not sum to one are scaled to it first. The hundredth keeps logarithms finite.

Shapes: K items, J neighbours at most, N entries, M members.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from actors.content.vectors.entry import Entry, Neighbours, Scope
from cluster.errors import ModelError

Floats: TypeAlias = NDArray[np.float64]
Level: TypeAlias = Scope | Literal["none"]

UNIFORM = 0.01


@dataclass(frozen=True)
class Shares:
    """share_KM: rows sum to one. said_K: 1 − u, the part that names members. levels: where each item's were found.

    item_ids, similarities: each item's neighbours that count, the nearest first.
    """

    share_KM: Floats
    said_K: Floats
    levels: tuple[Level, ...]
    item_ids: tuple[tuple[str, ...], ...]
    similarities: tuple[tuple[float, ...], ...]


def shares(
    found: Sequence[Neighbours], entries: Mapping[str, Entry], members: Sequence[str], temperature: float
) -> Shares:
    """The neighbour shares of the K items that were searched for.

    Args:
        found: what the vector store's `search` answered, one for each item.
        entries: what its `get` answered for them; one that was deleted in between is no neighbour.
        members: M names of models.
        temperature: τ, in units of cosine: a neighbour nearer by τ counts e times as much.

    Raises:
        ModelError: no members, one twice, or a temperature that is not above zero.
    """
    if not members or len(set(members)) < len(members) or not 0 < temperature < math.inf:
        raise ModelError(f"members {list(members)}, temperature {temperature}; expected names that differ, and above 0")
    kept = [[(j, s) for j, s in zip(n.item_ids, n.similarity_K.tolist(), strict=True) if j in entries] for n in found]
    place = {item_id: n for n, item_id in enumerate({item_id: None for near in kept for item_id, _ in near})}
    weight_NM = np.zeros((len(place) + 1, len(members)))  # the last row pads: it says nothing
    for item_id, n in place.items():
        weight_NM[n] = _weights(entries[item_id].models, members)
    most = max((len(near) for near in kept), default=0)
    place_KJ, similarity_KJ = np.full((len(kept), most), -1), np.full((len(kept), most), -np.inf)
    for k, near in enumerate(kept):
        place_KJ[k, : len(near)] = [place[item_id] for item_id, _ in near]
        similarity_KJ[k, : len(near)] = [similarity for _, similarity in near]
    share_KM = np.einsum("kj,kjm->km", _alpha(similarity_KJ, temperature), weight_NM[place_KJ])
    said_K = np.minimum(share_KM.sum(axis=1), 1.0)
    share_KM = (1 - UNIFORM) * (share_KM + (1 - said_K[:, None]) / len(members)) + UNIFORM / len(members)
    return Shares(
        share_KM / share_KM.sum(axis=1, keepdims=True),
        said_K,
        tuple(n.scope if near else "none" for n, near in zip(found, kept, strict=True)),
        tuple(tuple(item_id for item_id, _ in near) for near in kept),
        tuple(tuple(similarity for _, similarity in near) for near in kept),
    )


def _weights(models: Mapping[str, float], members: Sequence[str]) -> list[float]:
    """Those of the members, of weights scaled to sum to one; zeros where they are none."""
    total = math.fsum(models.values())
    if not 0 < total < math.inf or min(models.values()) < 0:
        return [0.0] * len(members)
    return [models.get(name, 0.0) / total for name in members]


def _alpha(similarity_KJ: Floats, temperature: float) -> Floats:
    """softmax over those that are there; zeros where none is."""
    if not similarity_KJ.shape[1]:
        return similarity_KJ
    best_K1 = similarity_KJ.max(axis=1, keepdims=True)
    alpha_KJ = np.exp((similarity_KJ - np.where(np.isfinite(best_K1), best_K1, 0.0)) / temperature)
    normal_KJ: Floats = alpha_KJ / np.maximum(alpha_KJ.sum(axis=1, keepdims=True), 1e-300)
    return normal_KJ
