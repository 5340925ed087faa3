"""Reward models for estimators: ridge regressions that never saw the user whose events they speak for.

Users are dealt to folds, and a fold's model is fitted on the other folds, around their mean reward, one for each row of
parameters. All it needs are sums of products, so that a log of any length can be added up block by block.

Shapes: N events, K candidates (padded), D features, F folds, A parameter rows, L penalties.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.features.features import FeatureBatch, Floats, Ints
from cluster.errors import EvidenceError
from tune.log import Log
from tune.split import tasks, unit

FOLDS = 5
PENALTIES = (1.0, 10.0, 100.0, 1_000.0)
_ROWS = 1_000
"""Events predicted at a time."""


@dataclass(frozen=True)
class Ridge:
    """theta_FAD and mean_F of each fold's model; penalty: the one with the least squared error on events left out,
    before clipping; error: that error."""

    theta_FAD: Floats
    mean_F: Floats
    penalty: float
    error: float

    def q(self, batch: FeatureBatch, fold_N: Ints) -> Floats:
        """The reward expected of every candidate by the model of the event's fold, in [0, 1], (N, K)."""
        q_NK = np.zeros(batch.mask_BK.shape)
        for rows in np.array_split(np.arange(len(batch)), 1 + len(batch) // _ROWS):
            theta_BKD = self.theta_FAD[fold_N[rows][:, None], batch.arm_BK[rows] % self.theta_FAD.shape[1]]
            direct_BK = np.einsum("bkd,bkd->bk", batch.phi_BKD[rows], theta_BKD)
            q_NK[rows] = np.clip(self.mean_F[fold_N[rows]][:, None] + direct_BK, 0, 1)
        return np.where(batch.mask_BK, q_NK, 0.0)


class Moments:
    """Sums of products of each fold and parameter row: F·D² numbers for every row of parameters that was used."""

    def __init__(self, arms: int, folds: int = FOLDS) -> None:
        self.arms, self.folds = arms, folds
        self._plain_F3 = np.zeros((folds, 3))  # events, Σr, Σr²
        self._products: dict[int, Floats] = {}  # (F, D, D + 2): φφᵀ, φr, φ

    def add(self, log: Log, batch: FeatureBatch, fold_N: Ints) -> None:
        """Add a block of events with the features of their candidates."""
        rows = np.arange(len(log))
        phi_ND, arm_N = batch.phi_BKD[rows, log.action_N], batch.arm_BK[rows, log.action_N] % self.arms
        beside_N2 = np.stack([log.reward_N, np.ones(len(log))], axis=1)
        plain_N3 = np.stack([np.ones(len(log)), log.reward_N, log.reward_N**2], axis=1)
        np.add.at(self._plain_F3, fold_N, plain_N3)
        d = phi_ND.shape[1]
        for arm in np.unique(arm_N).tolist():
            sums_FDE = self._products.setdefault(arm, np.zeros((self.folds, d, d + 2)))
            for fold in range(self.folds):
                own = np.flatnonzero((arm_N == arm) & (fold_N == fold))
                sums_FDE[fold] += phi_ND[own].T @ np.hstack([phi_ND[own], beside_N2[own]])

    def fit(self, penalties: tuple[float, ...] = PENALTIES) -> Ridge:
        """Raises EvidenceError where there are not two folds with events."""
        count_F, sum_F, square_F = self._plain_F3.T
        others_F = count_F.sum() - count_F
        if not (others_F > 0).all():
            raise EvidenceError(
                "cross-fitting needs at least 2 users, in different folds; use more data, or an estimator without a "
                "reward model"
            )
        mean_F = (sum_F.sum() - sum_F) / others_F
        d = next(iter(self._products.values())).shape[1]
        theta_LFAD = np.zeros((len(penalties), self.folds, self.arms, d))
        error_L = np.full(len(penalties), float((square_F - 2 * mean_F * sum_F + count_F * mean_F**2).sum()))
        for arm, own_FDE in self._products.items():
            gram_FDD, shift_FD = own_FDE[..., :d], own_FDE[..., d] - mean_F[:, None] * own_FDE[..., d + 1]
            rest_FDE = own_FDE.sum(0) - own_FDE
            rest_FD = rest_FDE[..., d] - mean_F[:, None] * rest_FDE[..., d + 1]
            penalty_L1DD = np.multiply.outer(np.asarray(penalties), np.eye(d))[:, None]
            theta_LFD = np.linalg.solve(rest_FDE[..., :d] + penalty_L1DD, rest_FD[None, ..., None])[..., 0]
            theta_LFAD[:, :, arm] = theta_LFD
            error_L += np.einsum("lfd,fde,lfe->l", theta_LFD, gram_FDD, theta_LFD)
            error_L -= 2 * np.einsum("lfd,fd->l", theta_LFD, shift_FD)
        best = int(np.argmin(error_L))
        return Ridge(theta_LFAD[best], mean_F, penalties[best], float(error_L[best] / count_F.sum()))


@dataclass(frozen=True)
class RewardModel:
    """Cross-fitted q: q_NK[n] comes from a model that never saw the user of event n; the rest as in Ridge."""

    q_NK: Floats
    penalty: float
    error: float


def cross_fit(
    log: Log,
    batch: FeatureBatch,
    arms: int,
    *,
    folds: int = FOLDS,
    penalties: tuple[float, ...] = PENALTIES,
    seed: int = 0,
    fold_N: Ints | None = None,
) -> RewardModel:
    """The reward model of a log in memory.

    Args:
        batch: the candidates' features; `arms` is the number of parameter rows of the map.
        fold_N: the fold of each event, as `folds_of` deals them; None deals users in turn by the seed.
    """
    if log.users < 2:
        raise EvidenceError(f"cross-fitting needs at least 2 users, found {log.users}; use more data")
    if fold_N is None:
        folds = min(folds, log.users)
        fold_N = np.random.default_rng([seed, 0xF01D]).permutation(log.users)[log.user_N] % folds
    moments = Moments(arms, folds)
    moments.add(log, batch, fold_N)
    ridge = moments.fit(penalties)
    return RewardModel(ridge.q(batch, fold_N), ridge.penalty, ridge.error)


def folds_of(events: pa.Table, folds: int = FOLDS, seed: int = 0) -> Ints:
    """The fold of each event by a hash of its user, N: the same in whichever block the event comes."""
    return np.asarray(unit(tasks(events), seed, "cross-fit") * folds, dtype=np.int64)
