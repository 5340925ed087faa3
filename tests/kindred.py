"""A served version whose items have providers, clusters and embeddings, with a model of each provider and cluster."""

from dataclasses import replace

import numpy as np

from actors.bandits.version import Version
from actors.features.near import nearest
from actors.features.relations import Relations
from tests import bandit_cases, serving

WIDTH, MOST = 5, 3
CLUSTER_OF = {"p0": "near", "p1": "far", "p2": "near", "p3": "far"}


def provider(item_id: str) -> str | None:
    """Of the twelve items of `tests.serving`; the first is of nobody."""
    number = int(item_id[1:])
    return f"p{number % 4}" if number else None


def version(kind: str = "joint", facts: dict[str, object] | None = None, seed: int = 0) -> Version:
    """`serving.version` with random embeddings, neighbours among all, and the members "cluster" and "provider"."""
    made, rng = serving.version(seed, facts, kind), np.random.default_rng(seed)
    ids = made.feature_map.item_ids
    vectors_FE = rng.normal(size=(len(ids), WIDTH)).astype(np.float32)
    vectors_FE /= np.linalg.norm(vectors_FE, axis=1, keepdims=True)
    near_FJ, similarity_FJ = nearest(vectors_FE, vectors_FE, MOST, range(len(ids)))
    level_F = np.full(len(ids), 3)
    owners = [provider(item_id) for item_id in ids]
    relations = Relations.of(owners, CLUSTER_OF, vectors_FE, near_FJ, similarity_FJ, level_F, 0.2)
    ensemble = made.ensemble
    members = (*ensemble.members, *bandit_cases.content(rng, ensemble.dimension, 4, 2))
    ensemble = replace(ensemble, members=members, values_M=np.append(ensemble.values_M, [0.3, 0.35]))
    return replace(made, feature_map=replace(made.feature_map, relations=relations), ensemble=ensemble)
