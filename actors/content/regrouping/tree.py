"""Providers × models performance -> a tree of providers, and how many clusters it has.

Row p says how well each model predicts provider p's outcomes (mean log-likelihood, nats); what is common to the row
says how hard the provider is to predict, not whom it resembles, and is taken out. Ward's linkage joins the rows.

The number of clusters: top down, a node of the tree is taken apart where its height is more than rows that differ by
chance alone would have (Kimes, Liu, Hayes & Marron 2017, arXiv:1411.5259, with the noise known instead of fitted): as
many rows, equal but for the standard error of each, are drawn and joined, DRAWS times. The root is tested at alpha,
a node of n of P providers at alpha·(n − 1)/(P − 1), and no node below one that stays whole: where no provider differs,
one cluster is found with a chance of 1 − alpha at least.

Rows that differ are not yet worth models of their own: models of one audience, fitted on the content of different
providers, err in different places. So a node that the rows would take apart must also pay: `pays` says whether models
of its two sides predict the users on either side better than one model of both.

Shapes: P providers, C models, U users.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.cluster import hierarchy

from actors.features.features import Floats
from cluster.errors import EvidenceError

DRAWS = 999


@dataclass(frozen=True)
class Tree:
    """linkage: SciPy's, (P − 1, 4); labels_P: clusters 0, 1, ... in the order of their first provider; chance: how
    often rows that differ by chance alone give a tree this high."""

    linkage: Floats
    labels_P: NDArray[np.int64]
    chance: float


def performance(scores: list[Floats]) -> tuple[Floats, Floats]:
    """Mean_PC of each provider's scores_UC, and the covariance_PCC of that mean between users.

    Raises:
        EvidenceError: a provider with fewer than two users, or a score that is not finite.
    """
    for place, scores_UC in enumerate(scores):
        if len(scores_UC) < 2 or not np.isfinite(scores_UC).all():
            raise EvidenceError(f"provider {place}: needs finite scores of two users or more, found {len(scores_UC)}")
    mean_PC = np.stack([scores_UC.mean(0) for scores_UC in scores])
    noise = [np.atleast_2d(np.cov(scores_UC, rowvar=False)) / len(scores_UC) for scores_UC in scores]
    return mean_PC, np.stack(noise)


Pays: TypeAlias = Callable[[NDArray[np.int64], NDArray[np.int64], float], bool]
"""Rows on the left, rows on the right, error rate -> whether two models do better than one."""


def always(_left: NDArray[np.int64], _right: NDArray[np.int64], _level: float) -> bool:
    """Where rows that differ are all that is known."""
    return True


def grow(mean_PC: Floats, noise_PCC: Floats, alpha: float, seed: int, pays: Pays = always) -> Tree:
    """The tree of at least one provider; equal for equal seeds."""
    p, c = mean_PC.shape
    if p < 2:
        return Tree(np.empty((0, 4)), np.zeros(p, np.int64), 1.0)
    centre_CC = np.eye(c) - 1 / c
    linkage = hierarchy.ward(mean_PC @ centre_CC)
    root_PCC = _roots(centre_CC @ noise_PCC @ centre_CC)
    rng = np.random.default_rng([seed, 0x7EE])
    labels_P = np.zeros(p, np.int64)
    chances: list[float] = []
    waiting, found = [hierarchy.to_tree(linkage)], 0
    while waiting:
        node = waiting.pop()
        leaves = np.array(node.pre_order())
        level = _level(alpha, len(leaves), p)
        chance = _chance(node.dist, root_PCC[leaves], rng) if len(leaves) > 1 else 1.0
        chances.append(chance)
        if chance <= level and len(leaves) > 1 and pays(*_sides(node), level):
            waiting += [node.get_right(), node.get_left()]
        else:
            labels_P[leaves] = found
            found += 1
    _, first, inverse = np.unique(labels_P, return_index=True, return_inverse=True)
    return Tree(linkage, np.argsort(np.argsort(first))[inverse], chances[0])


def _sides(node: hierarchy.ClusterNode) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.array(node.get_left().pre_order()), np.array(node.get_right().pre_order())


def _level(alpha: float, leaves: int, providers: int) -> float:
    return max(alpha * (leaves - 1) / (providers - 1), 1 / (DRAWS + 1))


def _chance(height: float, root_PCC: Floats, rng: np.random.Generator) -> float:
    """How often rows that differ by chance alone give a tree this high (Monte Carlo p-value)."""
    p, c, _ = root_PCC.shape
    higher = 0
    for _ in range(DRAWS):
        drawn_PC = np.einsum("pcd,pd->pc", root_PCC, rng.standard_normal((p, c)))
        higher += hierarchy.ward(drawn_PC)[-1, 2] >= height
    return (1 + higher) / (1 + DRAWS)


def _roots(noise_PCC: Floats) -> Floats:
    """Roots of covariances; they have no rank in the direction that was taken out."""
    values_PC, vectors_PCC = np.linalg.eigh(noise_PCC)
    return np.asarray(vectors_PCC * np.sqrt(np.maximum(values_PC, 0.0))[:, None, :])
