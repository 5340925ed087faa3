"""Linear models of groups, from sums of products: how well does each predict a provider's users?

A group's model is a ridge regression of the reward on the feature map, drawn towards that of all groups together, so
that a group with few outcomes predicts as all do. The likelihood of a reward r in [0, 1] under a prediction q is
r·ln q + (1 − r)·ln(1 − q), q kept within [LEAST, 1 − LEAST].

Shapes: N outcomes, G groups, A parameter rows, D features, U users.
"""

from dataclasses import dataclass, field

import numpy as np

from actors.features.features import Floats, Ints
from tune.predefined import Design

LEAST = 0.01
PENALTIES = (10.0, 100.0, 1_000.0)


@dataclass
class Sums:
    """Sums of φφᵀ (and φr) of G groups and A parameter rows, and of those in no group (the last)."""

    groups: int
    arms: int
    dimension: int
    products_GADE: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.products_GADE = np.zeros((self.groups + 1, self.arms, self.dimension, self.dimension + 1))

    def add(self, design: Design, group_N: Ints) -> None:
        """Add outcomes; group -1 speaks for all together only."""
        arm_N = design.arm_N % self.arms
        beside_NE = np.hstack([design.phi_ND, design.reward_N[:, None]])
        for key in np.unique(np.stack([group_N, arm_N], axis=1), axis=0):
            own_N = (group_N == key[0]) & (arm_N == key[1])
            self.products_GADE[key[0], key[1]] += design.phi_ND[own_N].T @ beside_NE[own_N]

    def joined(self) -> "Sums":
        """All groups as one."""
        one = Sums(1, self.arms, self.dimension)
        one.products_GADE[0], one.products_GADE[1] = self.products_GADE[:-1].sum(0), self.products_GADE[-1]
        return one

    def models(self, penalty: float, without: "Sums | None" = None) -> Floats:
        """theta_GAD of the groups, and of all together as the last; `without` the outcomes of other sums."""
        products_GADE = self.products_GADE - (without.products_GADE if without else 0.0)
        eye_DD = np.eye(self.dimension)
        all_ADE = products_GADE.sum(0)
        all_AD1 = np.linalg.solve(all_ADE[..., :-1] + eye_DD, all_ADE[..., -1:])
        own_GADE = products_GADE[:-1]
        towards_GAD1 = own_GADE[..., -1:] + penalty * all_AD1
        theta_GAD1 = np.linalg.solve(own_GADE[..., :-1] + penalty * eye_DD, towards_GAD1)
        return np.concatenate([theta_GAD1, all_AD1[None]])[..., 0]


def likelihood(theta_GAD: Floats, design: Design) -> Floats:
    """Log-likelihood of each outcome under each model, (N, G), nats."""
    theta_NGD = theta_GAD[:, design.arm_N % theta_GAD.shape[1]].swapaxes(0, 1)
    chance_NG = np.clip(np.einsum("nd,ngd->ng", design.phi_ND, theta_NGD), LEAST, 1 - LEAST)
    reward_N1 = design.reward_N[:, None]
    return np.asarray(reward_N1 * np.log(chance_NG) + (1 - reward_N1) * np.log1p(-chance_NG))


def by_user(values_NG: Floats, user_N: Ints) -> Floats:
    """Means over each user's outcomes, (U, G)."""
    _, place_N, count_U = np.unique(user_N, return_inverse=True, return_counts=True)
    sums_UG = np.zeros((len(count_U), values_NG.shape[1]))
    np.add.at(sums_UG, place_N, values_NG)
    return sums_UG / count_U[:, None]
