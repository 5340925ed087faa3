"""Weights in the place of π/p where a log has no propensities."""

import numpy as np
import pytest
from scipy import stats

from actors.features.features import FeatureBatch, Floats
from tune import estimators
from tune.log import Log
from tune.offpolicy import balance

ITEMS = 4


def one_hots(items: int, rows: int, arms: bool) -> FeatureBatch:
    """Items told apart by one-hot features, or by parameter rows of their own over an intercept."""
    item_BK = np.tile(np.arange(items), (rows, 1))
    phi_KD = np.ones((1, 1)) if arms else np.eye(items)
    phi_BKD = np.broadcast_to(phi_KD, (rows, items, phi_KD.shape[1]))
    arm_BK = item_BK if arms else np.zeros_like(item_BK)
    keys = item_BK.astype(np.uint64)
    return FeatureBatch(phi_BKD, arm_BK, item_BK, keys, np.ones((rows, items), bool), np.empty((rows, 0)))


def logged(rng: np.random.Generator, users: int, mean_K: Floats, chance_K: Floats) -> Log:
    user_N = np.repeat(np.arange(users), 5)
    action_N = rng.choice(ITEMS, size=len(user_N), p=chance_K)
    reward_N = (rng.random(len(user_N)) < mean_K[action_N]).astype(float)
    return Log(action_N, reward_N, None, user_N, np.ones((len(user_N), ITEMS), bool))


@pytest.mark.parametrize("arms", [False, True], ids=["joint", "arms"])
def test_weights_are_the_policys_share_over_the_logs(arms: bool) -> None:
    """Against the propensities that the log does not tell: π(a)/p(a), by counts of the other users' events."""
    chance_K, policy_K = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    log = logged(np.random.default_rng(0), 2_000, np.full(ITEMS, 0.5), chance_K)
    policy_NMK = np.broadcast_to(np.stack([policy_K, chance_K]), (len(log), 2, ITEMS))
    ratio_NM = balance.ratios(log, one_hots(ITEMS, len(log), arms), policy_NMK)
    np.testing.assert_allclose(ratio_NM[:, 0], (policy_K / chance_K)[log.action_N], rtol=0.1)
    np.testing.assert_allclose(ratio_NM[:, 1], 1, rtol=0.1)


def test_an_events_weight_comes_from_other_users() -> None:
    log = logged(np.random.default_rng(1), 40, np.full(ITEMS, 0.5), np.full(ITEMS, 0.25))
    rng = np.random.default_rng(2)
    policy_NMK = rng.dirichlet(np.ones(ITEMS), size=(len(log), 1))
    found = balance.ratios(log, one_hots(ITEMS, len(log), False), policy_NMK)
    own = log.user_N == 7
    policy_NMK[own] = rng.dirichlet(np.ones(ITEMS), size=(int(own.sum()), 1))
    other = balance.ratios(log, one_hots(ITEMS, len(log), False), policy_NMK)
    np.testing.assert_allclose(found[own], other[own], rtol=1e-12)
    assert not np.allclose(found, other)


@pytest.mark.parametrize("arms", [1, 3])
def test_a_policys_penalty_is_the_best_on_other_users(arms: int) -> None:
    """By a plain loop over penalties, folds and events, with half as many features as events: weights that are free
    to fit have a mean far from 1."""
    rng = np.random.default_rng(arms)
    n, d, m = 60, 30, 2
    phi_BKD = rng.normal(size=(n, ITEMS, d))
    arm_BK = rng.integers(arms, size=(n, ITEMS))
    batch = FeatureBatch(phi_BKD, arm_BK, arm_BK, arm_BK.astype(np.uint64), np.ones((n, ITEMS), bool), np.empty((n, 0)))
    action_N, user_N = rng.integers(ITEMS, size=n), np.repeat(np.arange(20), 3)
    log = Log(action_N, rng.random(n), None, user_N, np.ones((n, ITEMS), bool))
    policy_NMK = rng.dirichlet(np.ones(ITEMS) / 3, size=(n, m))
    found = balance.ratios(log, batch, policy_NMK, seed=5)
    fold_N = np.random.default_rng([5, 0xBA1A]).permutation(20)[user_N] % 5
    for policy in range(m):
        best, expected = np.inf, np.empty(n)
        for penalty in balance.PENALTIES:
            loss, weight_N = 0.0, np.empty(n)
            for row in range(n):
                theta_AD = np.zeros((arms, d))
                for arm in range(arms):
                    rest = [e for e in range(n) if fold_N[e] != fold_N[row]]
                    gram, mass = penalty * np.eye(d), np.zeros(d)
                    for e in rest:
                        if arm_BK[e, action_N[e]] == arm:
                            gram += np.outer(phi_BKD[e, action_N[e]], phi_BKD[e, action_N[e]])
                        mass += (policy_NMK[e, policy] * (arm_BK[e] == arm)) @ phi_BKD[e]
                    theta_AD[arm] = np.linalg.solve(gram, mass)
                weight_K = np.einsum("kd,kd->k", phi_BKD[row], theta_AD[arm_BK[row]])
                weight_N[row] = weight_K[action_N[row]]
                loss += weight_N[row] ** 2 - 2 * policy_NMK[row, policy] @ weight_K
            if loss < best:
                best, expected = loss, weight_N
        np.testing.assert_allclose(found[:, policy], expected, atol=1e-8)


def test_a_reward_model_of_noise_does_not_pass_for_evidence() -> None:
    """Rewards that no item moves: one policy is found better than another in one log of twenty, not in half."""
    passed = {"model alone": 0, "balanced": 0}
    policy_MK = np.array([[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]])
    logs = 200
    for seed in range(logs):
        log = logged(np.random.default_rng(seed), 60, np.full(ITEMS, 0.3), np.array([0.4, 0.3, 0.2, 0.1]))
        batch = one_hots(ITEMS, len(log), False)
        policy_NMK = np.broadcast_to(policy_MK, (len(log), 2, ITEMS))
        q_NK = estimators.cross_fit(log, batch, 1, seed=seed).q_NK
        direct_N = np.einsum("nmk,nk->nm", policy_NMK, q_NK) @ [1, -1]
        residual_N = log.reward_N - q_NK[np.arange(len(log)), log.action_N]
        whole_N = direct_N + balance.ratios(log, batch, policy_NMK, seed) @ [1, -1] * residual_N
        for name, score_N in (("model alone", direct_N), ("balanced", whole_N)):
            passed[name] += stats.ttest_1samp(estimators.by_user(log, score_N), 0, alternative="greater").pvalue < 0.05
    assert passed["model alone"] > 0.3 * logs
    assert passed["balanced"] <= stats.binom.isf(0.001, logs, 0.05)


def test_a_true_difference_is_still_found() -> None:
    """0.97 · 0.5 + ... against 0.97 · 0.2 + ...: by hand 0.96 · 0.3, with an interval that holds it."""
    policy_MK = np.array([[0.97, 0.01, 0.01, 0.01], [0.01, 0.01, 0.01, 0.97]])
    log = logged(np.random.default_rng(3), 400, np.array([0.5, 0.3, 0.3, 0.2]), np.array([0.4, 0.3, 0.2, 0.1]))
    batch = one_hots(ITEMS, len(log), False)
    policy_NMK = np.broadcast_to(policy_MK, (len(log), 2, ITEMS))
    q_NK = estimators.cross_fit(log, batch, 1).q_NK
    residual_N = log.reward_N - q_NK[np.arange(len(log)), log.action_N]
    whole_N = np.einsum("nmk,nk->nm", policy_NMK, q_NK) @ [1, -1]
    whole_N = whole_N + balance.ratios(log, batch, policy_NMK) @ [1, -1] * residual_N
    low, high = stats.ttest_1samp(estimators.by_user(log, whole_N) / 5, 0).confidence_interval(0.99)
    assert 0 < low < 0.96 * 0.3 < high
