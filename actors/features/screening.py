"""Which features of a pool are worth their parameters: forward selection by what they explain of the reward.

With parameters per item, every feature costs one parameter an arm. A feature's score is the fall of
2·(negative log-likelihood) from adding it to every arm's linear model: the sum over arms of (z·e)²/(z·z·σ²), with
e the residual of the arm's ridge fit and z the feature's residual on the features already there. It is kept
while the score is above four per parameter, between the two of Akaike (1974) and the log n of Schwarz (1978).
Features enter in rounds, the best first, so that of several that say the same only one enters.

Shapes: N rows, F features so far, P pool, A arms.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints

ROUNDS = 6
RIDGE = 3.0
GAIN = 4.0


def screen(base_NF: Floats, pool_NP: Floats, arm_N: Ints, reward_N: Floats, room: int) -> NDArray[np.bool_]:
    """Which of the pool to take, at most `room`. Rows without an arm (-1) or a finite reward are left out."""
    kept_P = np.zeros(pool_NP.shape[1], np.bool_)
    arms = _arms(arm_N, reward_N)
    base_NF = np.concatenate([np.ones((len(base_NF), 1)), base_NF], axis=1)
    for count in _rounds(min(room, pool_NP.shape[1])):
        score_P = _gains(np.concatenate([base_NF, pool_NP[:, kept_P]], axis=1), pool_NP, arms, reward_N)
        score_P[kept_P] = -1.0
        best = np.argsort(-np.round(score_P, 9), kind="stable")[:count]
        best = best[score_P[best] > GAIN * max(len(arms), 1)]
        if not len(best):
            break
        kept_P[best] = True
    return kept_P


def gains(base_NF: Floats, pool_NP: Floats, arm_N: Ints, reward_N: Floats) -> Floats:
    """Score of each feature of the pool beside the base, which has an intercept."""
    return _gains(base_NF, pool_NP, _arms(arm_N, reward_N), reward_N)


def _gains(features_NF: Floats, pool_NP: Floats, arms: list[Ints], reward_N: Floats) -> Floats:
    score_P = np.zeros(pool_NP.shape[1])
    for part in arms:
        score_P += _gain(features_NF[part], pool_NP[part], reward_N[part])
    return score_P


def _arms(arm_N: Ints, reward_N: Floats) -> list[Ints]:
    """Rows of each arm whose rewards vary."""
    rows = np.flatnonzero((arm_N >= 0) & np.isfinite(reward_N))
    arms = [rows[arm_N[rows] == arm] for arm in np.unique(arm_N[rows])]
    return [part for part in arms if reward_N[part].var() > 1e-12]


def _rounds(room: int) -> Iterator[int]:
    """How many enter in each round."""
    for r in range(ROUNDS):
        count = room * (r + 1) // ROUNDS - room * r // ROUNDS
        if count:
            yield count


def _gain(features_NF: Floats, pool_NP: Floats, reward_N: Floats) -> Floats:
    """Score of each feature of the pool in one arm; 0 for one that the others determine."""
    gram_FF = features_NF.T @ features_NF + RIDGE * np.eye(features_NF.shape[1])
    both = np.linalg.solve(gram_FF, features_NF.T @ np.column_stack([reward_N, pool_NP]))
    rest = np.column_stack([reward_N, pool_NP]) - features_NF @ both
    residual_N, pool_NP = rest[:, 0], rest[:, 1:]
    size_P = (pool_NP**2).sum(axis=0)
    gain_P: Floats = (residual_N @ pool_NP) ** 2 / np.maximum(size_P, 1e-9) / max(float(residual_N.var()), 1e-9)
    return np.where(size_P > 1e-3 * len(reward_N), gain_P, 0.0)
