"""What items' content says of them, as a composition takes it up: their providers, the clusters of these, and for each
item the nearest others.

Embeddings are those that `tune.embed` published for the name of the versions, else those that items come with;
clusters of providers those of `tune.regroup`, else one of all. Neighbours are exact, sought as the vector store seeks
them: in the provider, else in its cluster, else in all.

Shapes: I items, J neighbours, E size of the embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa

from actors.content.given import given
from actors.content.published import CONTENT, Published, Vectors
from actors.content.regrouping import kept
from actors.content.regrouping.regrouping import Regrouping
from actors.content.vectors.entry import Entry, Put
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from actors.features.kin import LEVELS
from actors.features.relations import Relations
from cluster.config import ContentSettings
from cluster.registry import Registry

ONE = "all"
"""The cluster of all providers where nobody has grouped them."""


@dataclass(frozen=True)
class Content:
    """What was published beside the versions of a name.

    vectors: unit embeddings by item; none where `tune.embed` did not run. regrouping: None where `tune.regroup`
    did not.
    source, encoder: of the vectors, as in `Relations`.
    """

    vectors: Mapping[str, Vectors] = field(default_factory=dict)
    regrouping: Regrouping | None = None
    source: str = ""
    encoder: str = ""

    @classmethod
    def of(cls, registry: Registry, name: str) -> "Content":
        """Raises RegistryError, ModelError or StateError where what was published cannot be read."""
        content, regrouping, found = CONTENT.format(name), kept.NAME.format(name), cls()
        if numbers := registry.versions(content):
            published = Published.load(registry.fetch(content, numbers[-1]))
            vectors = dict(zip(published.item_ids, published.vectors_IE, strict=True))
            encoder = published.facts.get("fingerprint") or ""
            found = replace(found, vectors=vectors, source=f"{content}/{numbers[-1]}", encoder=encoder)
        if numbers := registry.versions(regrouping):
            found = replace(found, regrouping=kept.load(registry.fetch(regrouping, numbers[-1]))[0])
        return found

    def embedded(self, items: pa.Table) -> bool:
        """Whether there are embeddings, published or the items' own."""
        return bool(self.vectors) or any(items["embedding"].to_pylist())

    def facts(self) -> dict[str, Any]:
        """Which publications these are; nothing where nothing was published."""
        moves = 0 if self.regrouping is None else len(self.regrouping.groups.moves)
        return {key: found for key, found in {"content": self.source, "moves": moves}.items() if found}

    def related(
        self, feature_map: FeatureMap, items: pa.Table, settings: ContentSettings, encoder: str | None = None
    ) -> FeatureMap:
        """The feature map, just fitted, with how its items are related; the same where nothing is known of any.

        Args:
            items: the feature map's catalogue. Where none of them was embedded, what was published is of other data.
            encoder: fingerprint of the model that made the items' own embeddings, None where nobody knows.
        """
        if self.vectors and not any(item_id in self.vectors for item_id in items["item_id"].to_pylist()):
            return replace(self, vectors={}, source="").related(feature_map, items, settings, encoder)
        providers = items["provider_id"].to_pylist()
        vectors_IE = self._vectors(items)
        if not (any(providers) or vectors_IE.shape[1]):
            return feature_map
        clusters = self._clusters(providers, vectors_IE)
        nearest = near(items["item_id"].to_pylist(), providers, clusters, vectors_IE, settings.neighbours)
        names = [name or None for name in providers]
        relations = Relations.of(names, clusters, vectors_IE, *nearest, settings.temperature)
        made_by = self.encoder if self.vectors else encoder or ""
        return replace(feature_map, relations=replace(relations, source=self.source, encoder=made_by))

    def _vectors(self, items: pa.Table) -> Vectors:
        """Embeddings, zeros for an item without; of no width where no item has one."""
        ids = items["item_id"].to_pylist()
        if not self.vectors and self.embedded(items):
            return given(items).vectors_NE
        width = len(next(iter(self.vectors.values()), ()))
        return np.stack([self.vectors.get(item_id, np.zeros(width, np.float32)) for item_id in ids])

    def _clusters(self, providers: list[str | None], vectors_IE: Vectors) -> dict[str, str]:
        """The cluster of each provider; of one that nobody has grouped yet, as `Regrouping.place` puts it."""
        names = sorted({name for name in providers if name})
        state = self.regrouping
        if state is None or not state.groups.moves:
            return dict.fromkeys(names, ONE)
        own = np.array([name or "" for name in providers])
        content = {name: vectors_IE[own == name].mean(0).astype(np.float64) for name in names}
        content = {name: mean_E for name, mean_E in content.items() if mean_E.any()}
        members = {c: [content[n] for n in state.groups.members(c) if n in content] for c in state.groups.clusters}
        centroids = {cluster: np.mean(means, axis=0) for cluster, means in members.items() if means}
        day = date.fromisoformat(state.groups.moves[-1].day)
        for name in names:
            if name not in state.groups.cluster_of:
                state = state.place(name, day, content.get(name), centroids)
        return {name: state.groups.cluster_of[name] for name in names}


def told(relations: Relations) -> dict[str, Any]:
    """For a report: how many providers, clusters and embedded items, and where the embeddings are from."""
    embedded = int(relations.vectors_FE.any(axis=1).sum())
    return {
        "providers": len(relations.providers),
        "clusters": len(relations.clusters),
        "embedded": embedded,
        "embeddings": (relations.source or "the items' own") if embedded else "none; `medley submit embed` makes them",
    }


def near(
    ids: list[str], providers: list[str | None], clusters: Mapping[str, str], vectors_IE: Vectors, most: int
) -> tuple[Ints, Floats, Ints]:
    """near_IJ, similarity_IJ and level_I of `Kin`: the `most` nearest others of each item that has an embedding.

    An item without a provider is sought among all.
    """
    level_I = np.zeros(len(ids), np.int64)
    if not vectors_IE.shape[1]:
        return np.full((len(ids), 0), -1), np.zeros((len(ids), 0)), level_I
    from actors.content.vectors.memory import Memory  # FAISS takes half a second, and most catalogues do not need it
    from actors.content.vectors.snapshot import Snapshot

    near_IJ, similarity_IJ = np.full((len(ids), most), -1), np.zeros((len(ids), most))
    row, memory = {item_id: i for i, item_id in enumerate(ids)}, Memory(Snapshot.empty(vectors_IE.shape[1]))
    there: dict[str, list[int]] = {}
    for i in np.flatnonzero(vectors_IE.any(axis=1)).tolist():
        there.setdefault(providers[i] or "", []).append(i)
    puts = ((ids[i], name, clusters.get(name, ""), vectors_IE[i]) for name, rows in there.items() for i in rows)
    memory.apply([Put(Entry(*entry)) for entry in puts])
    for name, rows in there.items():
        own = [ids[i] for i in rows]
        found = memory.search(vectors_IE[rows], most, clusters.get(name), name or None, None, own, True)
        for i, neighbours in zip(rows, found, strict=True):
            count = len(neighbours.item_ids)
            near_IJ[i, :count] = [row[item_id] for item_id in neighbours.item_ids]
            similarity_IJ[i, :count] = neighbours.similarity_K
            level_I[i] = LEVELS.index(neighbours.scope) if count else 0
    return near_IJ, similarity_IJ, level_I
