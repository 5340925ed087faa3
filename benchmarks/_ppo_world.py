"""Decisions in which similarity misleads: look-alikes that earn differently, by a feature of their embedding.

An item's content is its look, which cosines go by, and a trait, which shows on one axis only. Members are specialists:
which of them knows an item's reward follows from the trait. Neighbours are look-alikes of either trait, so what they
speak for is right for some items and wrong for others, and the plain blend believes it.

Shapes: B decisions, K items, M members, Q reduced numbers of content, J neighbours.
"""

import numpy as np

from actors.bandits.residual import observe
from actors.bandits.weights import softmax
from tune.blend_env import Contexts
from tune.blending.policy import Form

MEMBERS, REDUCED, NEIGHBOURS, LOOKS = 5, 16, 5, 8
TRAIT = 0.35
"""Size of the trait's axis in an embedding of length 1."""
SURE, UNSURE = 0.03, 0.25
"""Errors of a specialist's means, of items that it knows and of others, in reward."""
SPREAD = 0.04


def form(items: int, seed: int) -> Form:
    names = tuple(f"member{m}" for m in range(MEMBERS))
    every = tuple(range(MEMBERS))
    return Form(names, every, every, 0.02, REDUCED, NEIGHBOURS, items, 0.99, seed=seed)


def misled(decisions: int, items: int, seed: int, told: float = 2.0) -> Contexts:
    """Seeded decisions; `told` is how loudly neighbours speak (β·log share of the member that they name)."""
    rng = np.random.default_rng(seed)
    fixed = np.random.default_rng(0)
    looks_LQ = fixed.normal(size=(LOOKS, REDUCED - 1)) / np.sqrt(REDUCED - 1)
    said_L, knows_LT = fixed.integers(MEMBERS, size=LOOKS), fixed.integers(MEMBERS, size=(LOOKS, 2))
    shape = (decisions, items)
    look_BK, trait_BK = rng.integers(LOOKS, size=shape), rng.integers(2, size=shape)
    content_BKQ = looks_LQ[look_BK] + 0.1 * rng.normal(size=(*shape, REDUCED - 1))
    reduced_BKQ = np.concatenate([content_BKQ, TRAIT * (2 * trait_BK[..., None] - 1)], axis=-1)
    reduced_BKQ /= np.linalg.norm(reduced_BKQ, axis=-1, keepdims=True)
    similarity_BKJ = np.sort(rng.uniform(0.8, 1.0, (*shape, NEIGHBOURS)))[..., ::-1]
    known_BKM = np.eye(MEMBERS)[knows_LT[look_BK, trait_BK]]
    reward_BK = np.clip(rng.beta(2, 8, shape), 0.01, 0.9)
    error_BKM = np.where(known_BKM > 0, SURE, UNSURE) * rng.normal(size=(*shape, MEMBERS))
    logits_BKM = told * np.eye(MEMBERS)[said_L[look_BK]]
    share_BKM = softmax(logits_BKM)
    weights_BM = rng.dirichlet(np.full(MEMBERS, 50.0), decisions)
    values_BM = rng.normal(0.25, 0.01, (decisions, MEMBERS))
    observed_BKN = observe(
        reduced_BKQ, similarity_BKJ, share_BKM, weights_BM, values_BM, np.full((decisions, MEMBERS), 0.01)
    )
    logits_BKM = np.log(weights_BM)[:, None] + logits_BKM
    spread_BKM = np.full((*shape, MEMBERS), SPREAD)
    floor_BK, mask_BK = np.full(shape, 0.01 / items), np.ones(shape, np.bool_)
    mean_BKM = reward_BK[..., None] + error_BKM
    return Contexts(observed_BKN, logits_BKM, mean_BKM, spread_BKM, floor_BK, mask_BK, reward_BK)
