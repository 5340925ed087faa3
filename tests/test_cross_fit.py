"""Cross-fitted reward models against a plain loop."""

import numpy as np
import pytest

from actors.features.features import FeatureBatch, Floats
from cluster.errors import EvidenceError
from tune import estimators
from tune.log import Log


def batch_of(phi_BKD: Floats, arm_BK: Floats) -> FeatureBatch:
    b, k, _ = phi_BKD.shape
    shape = (b, k)
    return FeatureBatch(
        phi_BKD,
        arm_BK.astype(np.int64),
        arm_BK.astype(np.int64),
        np.zeros(shape, np.uint64),
        np.ones(shape, dtype=bool),
        np.empty((b, 0)),
    )


@pytest.mark.parametrize("arms", [1, 3])
def test_cross_fitting_is_ridge_on_the_other_folds(arms: int) -> None:
    """Against a plain loop: same folds by leaving one user out (as many folds as users)."""
    rng = np.random.default_rng(2)
    users, each, k, d, penalty = 6, 7, 3, 4, 2.0
    n = users * each
    phi = rng.normal(size=(n, k, d)) * 0.2
    arm = np.tile(np.arange(k), (n, 1)) % arms
    action, user = rng.integers(0, k, n), np.repeat(np.arange(users), each)
    reward = rng.random(n)
    log = Log(action, reward, None, user, np.ones((n, k), dtype=bool))
    found = estimators.cross_fit(log, batch_of(phi, arm), arms, folds=users, penalties=(penalty,))
    for u in range(users):
        others = user != u
        centre = reward[others].mean()
        for a in range(arms):
            taken = others & (arm[np.arange(n), action] == a)
            x = phi[np.arange(n), action][taken]
            theta = np.linalg.inv(x.T @ x + penalty * np.eye(d)) @ x.T @ (reward[taken] - centre)
            mine = (user == u)[:, None] & (arm == a)
            np.testing.assert_allclose(found.q_NK[mine], np.clip(centre + phi[mine] @ theta, 0, 1), atol=1e-10)


def test_cross_fitting_chooses_the_penalty_and_needs_two_users() -> None:
    rng = np.random.default_rng(3)
    phi = rng.normal(size=(2_000, 1, 5))
    reward = np.clip(0.5 + 0.3 * phi[:, 0, 0], 0, 1)
    log = Log(np.zeros(2_000, np.int64), reward, None, np.arange(2_000) // 4, np.ones((2_000, 1), bool))
    strong = estimators.cross_fit(log, batch_of(phi, np.zeros((2_000, 1))), 1)
    noise = Log(log.action_N, rng.permutation(reward), None, log.user_N, log.mask_NK)
    weak = estimators.cross_fit(noise, batch_of(phi, np.zeros((2_000, 1))), 1)
    assert strong.penalty < weak.penalty
    assert strong.error < 0.1 * weak.error
    alone = Log(log.action_N, reward, None, np.zeros(2_000, np.int64), log.mask_NK)
    with pytest.raises(EvidenceError, match="at least 2 users"):
        estimators.cross_fit(alone, batch_of(phi, np.zeros((2_000, 1))), 1)
