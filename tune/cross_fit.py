"""Reward models for estimators: ridge regressions that never saw the user whose events they speak for.

Shapes: N events, K candidates (padded), U users, D features, F folds, A parameter rows, L penalties.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import FeatureBatch, Floats, Ints
from cluster.errors import EvidenceError
from tune.log import Log


@dataclass(frozen=True)
class RewardModel:
    """Cross-fitted q: q_NK[n] comes from a model that never saw the user of event n.

    penalty: the ridge penalty with the least squared error on events left out; error: that error.
    """

    q_NK: Floats
    penalty: float
    error: float


def cross_fit(
    log: Log,
    batch: FeatureBatch,
    arms: int,
    *,
    folds: int = 5,
    penalties: tuple[float, ...] = (1.0, 10.0, 100.0, 1_000.0),
    seed: int = 0,
) -> RewardModel:
    """Ridge reward models around the mean reward, one per fold of users and per parameter row.

    Args:
        batch: the candidates' features; `arms` is the number of parameter rows of the map.
    """
    if log.users < 2:
        raise EvidenceError(f"cross-fitting needs at least 2 users, found {log.users}; use more data")
    folds = min(folds, log.users)
    fold_N = np.random.default_rng([seed, 0xF01D]).permutation(log.users)[log.user_N] % folds
    rows = np.arange(len(log))
    phi_ND, arm_N = batch.phi_BKD[rows, log.action_N], batch.arm_BK[rows, log.action_N] % arms
    mean_F = np.array([log.reward_N[fold_N != fold].mean() for fold in range(folds)])
    theta_LFAD = _ridge(phi_ND, arm_N, log.reward_N, fold_N, mean_F, arms, penalties)
    errors_L = [
        float(np.mean((log.reward_N - np.clip(_predict(phi_ND, arm_N, t, mean_F, fold_N), 0, 1)) ** 2))
        for t in theta_LFAD
    ]
    best = int(np.argmin(errors_L))
    q_NK = np.zeros(batch.mask_BK.shape)
    for part in np.array_split(rows, 1 + len(log) // 1_000):
        theta_BKD = theta_LFAD[best][fold_N[part][:, None], batch.arm_BK[part] % arms]
        direct_BK = np.einsum("bkd,bkd->bk", batch.phi_BKD[part], theta_BKD)
        q_NK[part] = np.clip(mean_F[fold_N[part]][:, None] + direct_BK, 0, 1)
    return RewardModel(np.where(batch.mask_BK, q_NK, 0.0), penalties[best], errors_L[best])


def _predict(phi_ND: Floats, arm_N: Ints, theta_FAD: Floats, mean_F: Floats, fold_N: Ints) -> Floats:
    return np.asarray(mean_F[fold_N] + np.einsum("nd,nd->n", phi_ND, theta_FAD[fold_N, arm_N]))


def _ridge(
    phi_ND: Floats,
    arm_N: Ints,
    reward_N: Floats,
    fold_N: Ints,
    mean_F: Floats,
    arms: int,
    penalties: tuple[float, ...],
) -> Floats:
    """theta_LFAD, one per penalty and fold: a fold's model is fitted on the other folds, around their mean."""
    folds, dimension = len(mean_F), phi_ND.shape[1]
    theta_LFAD = np.zeros((len(penalties), folds, arms, dimension))
    penalty_L1DD = np.multiply.outer(np.asarray(penalties), np.eye(dimension))[:, None]
    for arm in np.unique(arm_N):
        gram_FDD = np.zeros((folds, dimension, dimension))
        shift_FD, sum_FD = np.zeros((folds, dimension)), np.zeros((folds, dimension))
        for fold in range(folds):
            rows = (arm_N == arm) & (fold_N == fold)
            gram_FDD[fold] = phi_ND[rows].T @ phi_ND[rows]
            shift_FD[fold], sum_FD[fold] = phi_ND[rows].T @ reward_N[rows], phi_ND[rows].sum(0)
        gram_FDD = gram_FDD.sum(0) - gram_FDD
        shift_FD = shift_FD.sum(0) - shift_FD - mean_F[:, None] * (sum_FD.sum(0) - sum_FD)
        theta_LFAD[:, :, arm] = np.linalg.solve(gram_FDD + penalty_L1DD, shift_FD[None, ..., None])[..., 0]
    return theta_LFAD
