"""Off-policy estimators: the value of a policy from a log that another policy made.

With ρ = π(a|x)/p(a|x), r the reward and q(x, a) a reward model fitted on other users:

    IPS    mean of ρr                              (Horvitz, Thompson 1952)
    SNIPS  Σρr / Σρ                                (Swaminathan, Joachims 2015)
    DM     mean of Σ_k π(k|x) q(x, k)              model-based: no propensity enters
    DR     mean of Σ_k π(k|x) q(x, k) + ρ(r − q)   (Dudík, Langford, Li 2011)

Each is a ratio of two sums over events; its intervals resample, or take the variance between, users.

Shapes: N events, K candidates (padded), U users, D features.
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from actors.features.features import FeatureBatch, Floats, Ints
from cluster.errors import EvidenceError
from cluster.statistics import bootstrap_by_user, ratio_error
from tune.log import Log

Method: TypeAlias = Literal["ips", "snips", "dm", "dr"]

_NORMAL_95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % intervals and what it rests on.

    value, low, high: mean reward per event, percentile bootstrap by user.
    normal_low, normal_high: the same by the variance between users.
    effective_events: (Σρ)²/Σρ², the number of events that the weights amount to (N for DM).
    unsupported_share: share of the policy's probability on actions that the log never takes, estimated as
        1 − mean ρ and never below 0 (0 for DM, which cannot see it).
    model_based: true where no propensity entered.
    """

    method: Method
    value: float
    low: float
    high: float
    normal_low: float
    normal_high: float
    events: int
    users: int
    effective_events: float
    unsupported_share: float

    @property
    def model_based(self) -> bool:
        return self.method == "dm"


@dataclass(frozen=True)
class Terms:
    """What an estimate is the ratio of: Σ above / Σ below, per event; ratio_N is ρ (1 for DM)."""

    method: Method
    above_N: Floats
    below_N: Floats
    ratio_N: Floats


def ips(log: Log, policy_NK: Floats, *, resamples: int = 1_000, seed: int = 0) -> Estimate:
    return estimate(log, terms("ips", log, policy_NK), resamples, seed)


def snips(log: Log, policy_NK: Floats, *, resamples: int = 1_000, seed: int = 0) -> Estimate:
    return estimate(log, terms("snips", log, policy_NK), resamples, seed)


def dm(log: Log, policy_NK: Floats, q_NK: Floats, *, resamples: int = 1_000, seed: int = 0) -> Estimate:
    return estimate(log, terms("dm", log, policy_NK, q_NK), resamples, seed)


def dr(log: Log, policy_NK: Floats, q_NK: Floats, *, resamples: int = 1_000, seed: int = 0) -> Estimate:
    return estimate(log, terms("dr", log, policy_NK, q_NK), resamples, seed)


def terms(method: Method, log: Log, policy_NK: Floats, q_NK: Floats | None = None) -> Terms:
    """The terms of an estimate, event by event, so that two policies can be compared in pairs.

    Raises:
        EvidenceError: the log has no propensities and the method needs them, or the policy or the reward
            model is not what it must be; the message names the event and the remedy.
    """
    check_policy(log, policy_NK)
    rows, ones_N = np.arange(len(log)), np.ones(len(log))
    if method == "dm":
        return Terms("dm", _direct(log, policy_NK, q_NK), ones_N, ones_N)
    ratio_N = policy_NK[rows, log.action_N] / propensities(log, method)
    if method == "ips":
        return Terms("ips", ratio_N * log.reward_N, ones_N, ratio_N)
    if method == "snips":
        return Terms("snips", ratio_N * log.reward_N, ratio_N, ratio_N)
    direct_N = _direct(log, policy_NK, q_NK)
    assert q_NK is not None
    residual_N = log.reward_N - q_NK[rows, log.action_N]
    return Terms("dr", direct_N + ratio_N * residual_N, ones_N, ratio_N)


def estimate(log: Log, parts: Terms, resamples: int = 1_000, seed: int = 0) -> Estimate:
    """Value and intervals of terms by user. Raises EvidenceError where there is no event or no overlap."""
    if not len(log):
        raise EvidenceError("no event to estimate from; use more data, or a larger part of it")
    above_U, below_U = by_user(log, parts.above_N), by_user(log, parts.below_N)
    if not below_U.sum() > 0:
        raise EvidenceError(
            f"{parts.method}: the policy takes none of the {len(log)} logged actions; "
            "log with more exploration, or use a doubly robust estimate"
        )
    value, error = ratio_error(above_U, below_U)
    drawn_R = bootstrap_by_user(above_U[:, None], below_U[:, None], resamples, seed)[:, 0]
    low, high = np.quantile(drawn_R, [0.025, 0.975])
    square = float(parts.ratio_N @ parts.ratio_N)
    return Estimate(
        parts.method,
        value,
        float(low),
        float(high),
        value - _NORMAL_95 * error,
        value + _NORMAL_95 * error,
        len(log),
        len(above_U),
        float(parts.ratio_N.sum()) ** 2 / square if square else 0.0,
        max(0.0, 1.0 - float(parts.ratio_N.mean())),
    )


def by_user(log: Log, values_N: Floats) -> Floats:
    """Sums over the events of each user, (U,)."""
    sums_U: Floats = np.bincount(log.user_N, values_N, minlength=log.users).astype(np.float64)
    return sums_U


def propensities(log: Log, method: str) -> Floats:
    if log.propensity_N is None:
        raise EvidenceError(
            f"{method} needs the propensity of every logged action, and this log does not have them; "
            "map the column that holds them, or use the model-based estimate (dm)"
        )
    return log.propensity_N


def check_policy(log: Log, policy_NK: Floats) -> None:
    """Raises EvidenceError unless every row is a distribution over the event's candidates."""
    if policy_NK.shape != log.mask_NK.shape:
        raise EvidenceError(f"policy has shape {policy_NK.shape}; the log's is {log.mask_NK.shape}")
    _refuse(~np.isfinite(policy_NK).all(1), "policy has NaN or infinite probabilities", "mask before dividing")
    inside = (policy_NK >= 0) & ((policy_NK == 0) | log.mask_NK)
    _refuse(~inside.all(1), "policy has probability below 0 or on an item that is no candidate", "mask it")
    sums_N = policy_NK.sum(1)
    wrong_N = np.abs(sums_N - 1) > 1e-6
    first = f", {sums_N[np.argmax(wrong_N)]:g}," if wrong_N.any() else ""
    _refuse(wrong_N, f"policy's probabilities sum to{first} not to 1", "normalise over candidates")


def _refuse(wrong_N: Any, fault: str, remedy: str) -> None:
    if wrong_N.any():
        raise EvidenceError(f"event {int(np.argmax(wrong_N))}: {fault} ({int(wrong_N.sum())} such); {remedy}")


def _direct(log: Log, policy_NK: Floats, q_NK: Floats | None) -> Floats:
    if q_NK is None or q_NK.shape != policy_NK.shape:
        shape = None if q_NK is None else q_NK.shape
        raise EvidenceError(f"a reward model of shape {policy_NK.shape} is needed, found {shape}")
    q_NK = np.where(log.mask_NK, q_NK, 0.0)
    _refuse(~np.isfinite(q_NK).all(1), "the reward model is not finite", "refit it with a larger penalty")
    return np.asarray(np.einsum("nk,nk->n", policy_NK, q_NK))


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
