"""What stands for π/p where a log does not say p: weights that balance features.

The mean of Σ_k π(k) q(k) under a fitted q has an error that no resampling of users shows, since q is the same in
every resample: on logs without any effect, half the generated members passed the gate. The weights are the ridge
estimate of the Riesz representer of q -> mean Σ_k π(k) q(k) among linear functions of φ (Chernozhukov, Newey & Singh
2022, "Automatic debiased machine learning"), cross-fitted by user: the mean of weight · (r − q) takes away q's error
as far as it is linear in φ, and its spread between users is what q does not know.

Shapes: N events, K candidates, M policies, D features, F folds, L penalties.
"""

import numpy as np

from actors.features.features import FeatureBatch, Floats, Ints
from tune.log import Log

FOLDS = 5
PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)


def corrections(log: Log, batch: FeatureBatch, q_NK: Floats, policy_NMK: Floats, seed: int = 0) -> Floats:
    """What each event adds to Σ_k π(k) q(k) for the error of q: weight · (r − q), (N, M)."""
    residual_N = log.reward_N - q_NK[np.arange(len(log)), log.action_N]
    return ratios(log, batch, policy_NMK, seed) * residual_N[:, None]


def ratios(log: Log, batch: FeatureBatch, policy_NMK: Floats, seed: int = 0) -> Floats:
    """The weight of every logged action under each policy, (N, M), from the events of other users.

    In the cell of a parameter row and without other features than the intercept this is the policy's share of the
    cell over the log's. A policy's ridge penalty is the one of least Riesz loss on users left out, the mean of
    w(a)² − 2 Σ_k π(k) w(k): a fixed small one gave weights of mean 3 on pendigits, where right ones have mean 1.
    """
    rows = np.arange(len(log))
    phi_ND, arm_N = batch.phi_BKD[rows, log.action_N], batch.arm_BK[rows, log.action_N]
    folds = min(FOLDS, log.users)
    fold_N = np.random.default_rng([seed, 0xBA1A]).permutation(log.users)[log.user_N] % folds
    dimension, policies = phi_ND.shape[1], policy_NMK.shape[1]
    weight_LNM, loss_LM = np.zeros((len(PENALTIES), len(log), policies)), np.zeros((len(PENALTIES), policies))
    for arm in np.unique(arm_N):
        gram_FDD, mass_FMD = np.zeros((folds, dimension, dimension)), np.zeros((folds, policies, dimension))
        own = [np.flatnonzero((fold_N == fold) & (arm_N == arm)) for fold in range(folds)]
        for fold in range(folds):
            gram_FDD[fold] = phi_ND[own[fold]].T @ phi_ND[own[fold]]
            mass_FMD[fold] = _mass(batch, policy_NMK, np.flatnonzero(fold_N == fold), int(arm))
        rest_FDD, rest_FMD = gram_FDD.sum(0) - gram_FDD, mass_FMD.sum(0) - mass_FMD
        for penalty, weight_NM, loss_M in zip(PENALTIES, weight_LNM, loss_LM, strict=True):
            theta_FDM = np.linalg.solve(rest_FDD + penalty * np.eye(dimension), rest_FMD.swapaxes(1, 2))
            for fold in range(folds):
                weight_NM[own[fold]] = phi_ND[own[fold]] @ theta_FDM[fold]
            loss_M -= 2 * np.einsum("fmd,fdm->m", mass_FMD, theta_FDM)
    loss_LM += np.einsum("lnm,lnm->lm", weight_LNM, weight_LNM)
    return np.asarray(weight_LNM[loss_LM.argmin(0), :, np.arange(policies)].T)


def _mass(batch: FeatureBatch, policy_NMK: Floats, rows: Ints, arm: int) -> Floats:
    """Σ over these events of Σ_k π(k) φ(k), items of one parameter row, (M, D)."""
    share_NMK = policy_NMK[rows] * (batch.arm_BK[rows] == arm)[:, None]
    if batch.repeats:
        return np.asarray(share_NMK.sum(-1).T @ batch.phi_BKD[rows, 0])
    return np.asarray(np.matmul(share_NMK, batch.phi_BKD[rows]).sum(0))
