"""What stands for π/p where a log does not say p: weights that balance features.

The mean of Σ_k π(k) q(k) under a fitted q has an error that no resampling of users shows, since q is the same in
every resample: on logs without any effect, half the generated members passed the gate. The weights are the ridge
estimate of the Riesz representer of q -> mean Σ_k π(k) q(k) among linear functions of φ (Chernozhukov, Newey & Singh
2022, "Automatic debiased machine learning"), cross-fitted by user: the mean of weight · (r − q) takes away q's error
as far as it is linear in φ, and its spread between users is what q does not know.

Shapes: N events, K candidates, M policies, D features, F folds.
"""

import numpy as np

from actors.features.features import FeatureBatch, Floats
from tune.log import Log

FOLDS = 5
PENALTY = 1.0


def ratios(log: Log, batch: FeatureBatch, policy_NMK: Floats, seed: int = 0) -> Floats:
    """The weight of every logged action under each policy, (N, M), from the events of other users.

    In the cell of a parameter row and without other features than the intercept this is the policy's share of the
    cell over the log's.
    """
    rows = np.arange(len(log))
    phi_ND, arm_N = batch.phi_BKD[rows, log.action_N], batch.arm_BK[rows, log.action_N]
    folds = min(FOLDS, log.users)
    fold_N = np.random.default_rng([seed, 0xBA1A]).permutation(log.users)[log.user_N] % folds
    dimension, policies = phi_ND.shape[1], policy_NMK.shape[1]
    ratio_NM = np.zeros((len(log), policies))
    for arm in np.unique(arm_N):
        gram_FDD, mass_FMD = np.zeros((folds, dimension, dimension)), np.zeros((folds, policies, dimension))
        for fold in range(folds):
            inside = np.flatnonzero(fold_N == fold)
            own_ND = phi_ND[inside[arm_N[inside] == arm]]
            gram_FDD[fold] = own_ND.T @ own_ND
            share_NMK = policy_NMK[inside] * (batch.arm_BK[inside] == arm)[:, None]
            if batch.repeats:
                mass_FMD[fold] = share_NMK.sum(-1).T @ phi_ND[inside]
            else:
                mass_FMD[fold] = np.matmul(share_NMK, batch.phi_BKD[inside]).sum(0)
        gram_FDD = gram_FDD.sum(0) - gram_FDD + PENALTY * np.eye(dimension)
        theta_FDM = np.linalg.solve(gram_FDD, (mass_FMD.sum(0) - mass_FMD).swapaxes(1, 2))
        for fold in range(folds):
            own = np.flatnonzero((fold_N == fold) & (arm_N == arm))
            ratio_NM[own] = phi_ND[own] @ theta_FDM[fold]
    return ratio_NM
