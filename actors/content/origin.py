"""Where a vector store's entries come from: the items that a version was made with, and those that clients put later.

Shapes: N items, E size of the embedding.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actors.bandits.version import Version
from actors.content.contents import Content, text_of
from actors.content.embedding import Embedded, unit
from actors.content.vectors.entry import Entry, Vectors
from actors.features.relations import Relations
from cluster.records import item_table

UNKNOWN = "\x7f"
"""Of a provider or cluster that is not known: no id has control characters."""


@dataclass(frozen=True)
class Origin:
    """A version's items. embed: reads content as the version's embeddings were made; None where nobody can."""

    relations: Relations
    row: Mapping[str, int]
    embed: Callable[[Sequence[Content]], Embedded] | None

    @classmethod
    def of(cls, version: Version, embed: Callable[[Sequence[Content]], Embedded] | None) -> "Origin | None":
        """None where the version knows no embeddings."""
        relations = version.feature_map.relations
        if relations is None or not relations.width:
            return None
        return cls(relations, {item: row for row, item in enumerate(version.feature_map.fitted_ids)}, embed)

    @property
    def width(self) -> int:
        """E."""
        return self.relations.width

    def entry(self, item_id: str) -> Entry | None:
        """An item as the version knows it, without models and outcomes; None for another, or without an embedding."""
        row = self.row.get(item_id)
        if row is None or not self.relations.vectors_FE[row].any():
            return None
        relations, provider = self.relations, int(self.relations.provider_F[row])
        name = relations.providers[provider] if provider >= 0 else UNKNOWN
        return Entry(item_id, name, self.cluster(name), np.array(relations.vectors_FE[row], np.float32))

    def entries(self, bodies: Mapping[str, str]) -> dict[str, Entry]:
        """Items that a client put (JSON bodies), as `entry`; those that have no embedding, and no text that can be
        read, are left out."""
        given = {item_id: json.loads(body) for item_id, body in bodies.items()}
        vectors = self._vectors(given)
        if not vectors:
            return {}
        told = {item_id: json.dumps(given[item_id] | {"embedding": v.tolist()}) for item_id, v in vectors.items()}
        fitted = np.array([self.row.get(item_id, -1) for item_id in told], np.int64)
        clusters = self.relations.later(item_table(told), fitted).cluster_K
        return {
            item_id: Entry(item_id, given[item_id].get("provider_id") or UNKNOWN, self._name(cluster), vectors[item_id])
            for item_id, cluster in zip(told, clusters.tolist(), strict=True)
        }

    def cluster(self, provider: str) -> str:
        """Of a provider that the version knows."""
        place = self.relations.place.get(provider)
        return UNKNOWN if place is None else self._name(int(self.relations.cluster_P[place]))

    def _name(self, cluster: int) -> str:
        return self.relations.clusters[cluster] if cluster >= 0 else UNKNOWN

    def _vectors(self, given: Mapping[str, Mapping[str, object]]) -> dict[str, Vectors]:
        """Their own embeddings, where these have the right size and a length; else those of their texts."""
        found: dict[str, Vectors] = {}
        for item_id, body in given.items():
            own_E = np.asarray(body.get("embedding") or (), np.float64)
            if own_E.shape == (self.width,):
                vector_1E, there_1 = unit(own_E[None])
                found |= {item_id: vector_1E[0]} if there_1[0] else {}
        return found | self._read({item_id: body for item_id, body in given.items() if item_id not in found})

    def _read(self, given: Mapping[str, Mapping[str, object]]) -> dict[str, Vectors]:
        texts = {i: text_of(_text(body, "title"), _text(body, "description")) for i, body in given.items()}
        told = [item_id for item_id, text in texts.items() if text.strip()]
        if self.embed is None or not told:
            return {}
        embedded = self.embed([Content(text=texts[item_id]) for item_id in told])
        rows = zip(told, embedded.vectors_NE, embedded.there_N.tolist(), strict=True)
        return {item_id: vector_E for item_id, vector_E, there in rows if there}


def _text(body: Mapping[str, object], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) else None
