"""Logs of simulated users whose true value under another policy is known exactly.

A world has T kinds of situation and K items with chances of reward m(t, k). A user has a taste of her own for kinds of
situation and a factor of her own, of mean 1, on every chance: her events hang together. Both policies depend on the
situation, so that the truth is Σ_t P(t) Σ_k π(k|t) m(t, k).

Shapes: T kinds of situation, K items, N events, U users.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import FeatureBatch, Floats, Ints
from tune.log import Log

KINDS, ITEMS = 12, 8
EACH = 5
"""Events of a user on average; geometric."""


@dataclass(frozen=True)
class World:
    """share_T: how often each kind occurs; mean_TK: chances of reward; logging_TK, policy_TK: probabilities."""

    share_T: Floats
    mean_TK: Floats
    logging_TK: Floats
    policy_TK: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, rate: float, distance: float) -> "World":
        """rate: mean chance of a reward. distance: of the policies' logits, which share half of their variance; both
        explore, the one that logs in 20 % of events."""
        common, own, other = rng.normal(size=(3, KINDS, ITEMS)) * distance / np.sqrt(2)
        logging_TK, policy_TK = (np.exp(logits) for logits in (common + own, common + other))
        logging_TK, policy_TK = (each / each.sum(1, keepdims=True) for each in (logging_TK, policy_TK))
        return cls(
            rng.dirichlet(np.full(KINDS, 3.0)),
            np.minimum(rng.beta(1.5, 1.5 * (1 / rate - 1), (KINDS, ITEMS)), 0.6),
            0.8 * logging_TK + 0.2 / ITEMS,
            0.95 * policy_TK + 0.05 / ITEMS,
        )

    @property
    def truth(self) -> float:
        return float(self.share_T @ (self.policy_TK * self.mean_TK).sum(1))

    def log(self, rng: np.random.Generator, users: int) -> tuple[Log, Ints]:
        """Events and their kinds of situation, (N,)."""
        user_N = np.repeat(np.arange(users), rng.geometric(1 / EACH, users))
        taste_UT = rng.dirichlet(5 * self.share_T, users)
        factor_U = rng.uniform(0.4, 1.6, users)
        kind_N = _choice(rng, taste_UT[user_N])
        action_N = _choice(rng, self.logging_TK[kind_N])
        reward_N = (rng.random(len(user_N)) < factor_U[user_N] * self.mean_TK[kind_N, action_N]).astype(float)
        every_NK = np.ones((len(user_N), ITEMS), bool)
        return Log(action_N, reward_N, self.logging_TK[kind_N, action_N], user_N, every_NK), kind_N


def features(kind_N: Ints) -> FeatureBatch:
    """A wrong model on purpose: parameters per item, of whether the kind of situation is among the first half."""
    phi_N2 = np.stack([np.ones(len(kind_N)), (kind_N < KINDS // 2).astype(float)], axis=1)
    arm_NK = np.tile(np.arange(ITEMS), (len(kind_N), 1))
    phi_NK2 = np.broadcast_to(phi_N2[:, None], (len(kind_N), ITEMS, 2))
    every_NK = np.ones(arm_NK.shape, bool)
    return FeatureBatch(phi_NK2, arm_NK, arm_NK, arm_NK.astype(np.uint64), every_NK, phi_N2[:, 1:])


def _choice(rng: np.random.Generator, share_NK: Floats) -> Ints:
    least_N = rng.random((len(share_NK), 1)) * share_NK.sum(1, keepdims=True)
    return np.asarray((least_N > np.cumsum(share_NK, 1)).sum(1), np.int64)
