"""Gaussian parameters on a tree: everyone's, a cluster's, a provider's, each level drawn around the one above.

    θ_root ~ N(m, diag(1/e₀)),   θ_node ~ N(θ_parent, diag(1/e_l)),   rewards r = θ_leafᵀφ + N(0, σ²)

Beliefs are exact: on a tree, messages up and then down give every node's posterior (Pearl 1988, Probabilistic
Reasoning, ch. 4; for Gaussians Weiss & Freeman 2001). What a node's prior says so comes from its parent as the rest of
the tree knows it, without the node's own rows: nothing counts twice.

Shapes: A nodes of a level, D features.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats, Ints


@dataclass(frozen=True)
class Natural:
    """A Gaussian for each node, up to a factor: exp(−½θᵀΛθ + θᵀb). precision_ADD (Λ) may be singular; shift_AD (b)."""

    precision_ADD: Floats
    shift_AD: Floats

    def __add__(self, other: "Natural") -> "Natural":
        return Natural(self.precision_ADD + other.precision_ADD, self.shift_AD + other.shift_AD)

    def __sub__(self, other: "Natural") -> "Natural":
        return Natural(self.precision_ADD - other.precision_ADD, self.shift_AD - other.shift_AD)

    def take(self, row_A: Ints) -> "Natural":
        return Natural(self.precision_ADD[row_A], self.shift_AD[row_A])

    def gathered(self, parent_A: Ints, parents: int) -> "Natural":
        """The product of what a parent's nodes say, for each parent."""
        dimension = self.shift_AD.shape[1]
        found = Natural(np.zeros((parents, dimension, dimension)), np.zeros((parents, dimension)))
        np.add.at(found.precision_ADD, parent_A, self.precision_ADD)
        np.add.at(found.shift_AD, parent_A, self.shift_AD)
        return found

    def across(self, edge_D: Floats) -> "Natural":
        """What this says of a node one edge away: E(Λ + E)⁻¹Λ and E(Λ + E)⁻¹b, E = diag(edge_D)."""
        both = np.concatenate([self.precision_ADD, self.shift_AD[:, :, None]], axis=2)
        found = edge_D[:, None] * np.linalg.solve(self.precision_ADD + np.diag(edge_D), both)
        return Natural(_symmetric(found[:, :, :-1]), found[:, :, -1].copy())


@dataclass(frozen=True)
class Level:
    """The nodes of a level. prior: what all but what is below them says; below: what their own rows say.

    rest: of their parents, without what comes from the node itself; None for the root.
    """

    prior: Natural
    below: Natural
    rest: Natural | None = None

    @property
    def belief(self) -> Natural:
        return self.prior + self.below

    def steps(self, edge_D: Floats) -> tuple[Floats, Floats]:
        """Posterior of how far nodes lie from their parents: mean_AD, variance_AD."""
        assert self.rest is not None
        total_ADD = self.below.precision_ADD + self.rest.precision_ADD
        both = np.stack([self.below.shift_AD, self.rest.shift_AD], axis=2)
        up_ADD = np.linalg.solve(total_ADD, np.concatenate([self.below.precision_ADD, both], axis=2))
        seen_ADD = _symmetric(self.rest.precision_ADD @ up_ADD[:, :, :-2])
        shift_AD = np.einsum("ade,ae->ad", self.rest.precision_ADD, up_ADD[:, :, -2])
        shift_AD -= np.einsum("ade,ae->ad", self.below.precision_ADD, up_ADD[:, :, -1])
        covariance_ADD = np.linalg.inv(seen_ADD + np.diag(edge_D))
        mean_AD = np.einsum("ade,ae->ad", covariance_ADD, shift_AD)
        return mean_AD, np.diagonal(covariance_ADD, axis1=1, axis2=2)


def beliefs(root: Natural, parents: Sequence[Ints], edges: Sequence[Floats], data: Natural) -> list[Level]:
    """Every level of the tree, from the root to the leaves.

    Args:
        root: the root's prior, one node.
        parents: for each level below the root, each node's parent in the level above.
        edges: for each level below the root, the precision of its nodes around their parents, (D,).
        data: what the rows say of the leaves.
    """
    below, messages = [data], []
    above = [1, *map(len, parents)]
    for parent_A, edge_D, count in reversed(list(zip(parents, edges, above[:-1], strict=True))):
        messages.append(below[-1].across(edge_D))
        below.append(messages[-1].gathered(parent_A, count))
    levels = [Level(root, below.pop())]
    for parent_A, edge_D in zip(parents, edges, strict=True):
        rest = levels[-1].belief.take(parent_A) - messages.pop()
        levels.append(Level(rest.across(edge_D), below.pop(), rest))
    return levels


def _symmetric(matrix_ADD: Floats) -> Floats:
    return np.asarray((matrix_ADD + matrix_ADD.swapaxes(1, 2)) / 2)
