from dataclasses import replace

import numpy as np
import pytest

from actors.features.features import FeatureBatch, Floats
from cluster.errors import EvidenceError
from tune import estimators
from tune.log import Log


def make(action: list[int], reward: list[float], propensity: list[float] | None, user: list[int], k: int = 2) -> Log:
    n = len(action)
    given = None if propensity is None else np.array(propensity)
    return Log(np.array(action), np.array(reward), given, np.array(user), np.ones((n, k), dtype=bool))


LOG = make([0, 1, 0, 1], [1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.25, 0.8], [0, 0, 1, 2])
POLICY = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4]])
Q = np.array([[0.8, 0.2], [0.4, 0.4], [0.1, 0.9], [0.5, 0.5]])


def test_values_worked_by_hand() -> None:
    """ρ = 1/.5, .5/.5, .2/.25, .4/.8 = 2, 1, 0.8, 0.5."""
    assert estimators.ips(LOG, POLICY).value == pytest.approx((2 + 0 + 0 + 0.5) / 4)
    assert estimators.snips(LOG, POLICY).value == pytest.approx(2.5 / 4.3)
    # Σπq = .8, .4, .02 + .72, .3 + .2
    assert estimators.dm(LOG, POLICY, Q).value == pytest.approx((0.8 + 0.4 + 0.74 + 0.5) / 4)
    # + ρ(r − q) = 2(.2), 1(−.4), .8(−.1), .5(.5)
    assert estimators.dr(LOG, POLICY, Q).value == pytest.approx((2.44 + 0.4 - 0.4 - 0.08 + 0.25) / 4)


def test_what_an_estimate_rests_on() -> None:
    found = estimators.ips(LOG, POLICY)
    assert (found.events, found.users) == (4, 3)
    assert found.effective_events == pytest.approx(4.3**2 / (4 + 1 + 0.64 + 0.25))
    assert found.unsupported_share == 0.0  # mean ρ is 1.075
    narrow = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.8], [0.6, 0.4]])
    assert estimators.ips(LOG, narrow).unsupported_share == pytest.approx(1 - 1.3 / 4)
    assert estimators.dm(LOG, POLICY, Q).model_based
    assert not estimators.dr(LOG, POLICY, Q).model_based


def test_the_normal_interval_is_by_user() -> None:
    """Terms 2, 0, 0, .5 of users 0, 0, 1, 2: sums 2, 0, .5, counts 2, 1, 1, value .625;
    residuals .75, −.625, −.125; variance = 3/2 · Σ² / 4²."""
    found = estimators.ips(LOG, POLICY)
    error = np.sqrt(1.5 * (0.75**2 + 0.625**2 + 0.125**2)) / 4
    assert found.normal_high - found.value == pytest.approx(1.95996 * error, rel=1e-4)
    assert found.value - found.normal_low == pytest.approx(1.95996 * error, rel=1e-4)


def test_the_bootstrap_agrees_with_a_loop() -> None:
    """Every resample of 3 users, all 27 of them, against many drawn ones."""
    above, below = np.array([2.0, 0.0, 0.5]), np.array([2.0, 1.0, 1.0])
    every = [above[[i, j, k]].sum() / below[[i, j, k]].sum() for i in range(3) for j in range(3) for k in range(3)]
    drawn = estimators.bootstrap_by_user(above[:, None], below[:, None], 40_000, 1)[:, 0]
    assert drawn.mean() == pytest.approx(np.mean(every), abs=4 * np.std(every) / 200)
    assert drawn.std() == pytest.approx(np.std(every), rel=0.02)


def test_the_expectation_of_ips_and_dr_is_the_value_by_brute_force() -> None:
    """One context, three items, every possible log of one event weighted by its probability."""
    p, policy, mean = np.array([0.2, 0.5, 0.3]), np.array([[0.1, 0.2, 0.7]]), np.array([0.9, 0.1, 0.4])
    q = np.array([[0.3, 0.6, 0.2]])
    expected = {"ips": 0.0, "dr": 0.0}
    for action in range(3):
        for reward in (0.0, 1.0):
            log = make([action], [reward], [p[action]], [0], k=3)
            chance = p[action] * (mean[action] if reward else 1 - mean[action])
            expected["ips"] += chance * estimators.terms("ips", log, policy).above_N[0]
            expected["dr"] += chance * estimators.terms("dr", log, policy, q).above_N[0]
    truth = float(policy[0] @ mean)
    assert expected == pytest.approx({"ips": truth, "dr": truth})


def simulated(rng: np.random.Generator, users: int) -> tuple[Log, Floats, Floats, float]:
    """Users with their own click rates, five events each; the true value is exact."""
    n, k = users * 5, 4
    user_N = np.repeat(np.arange(users), 5)
    mean_K = np.array([0.1, 0.2, 0.3, 0.4])
    shift_N = rng.uniform(-0.1, 0.1, users)[user_N]
    p_NK = rng.dirichlet(np.full(k, 3.0), n) * 0.8 + 0.05
    policy_NK = rng.dirichlet(np.ones(k), n)
    action_N = (rng.random((n, 1)) > np.cumsum(p_NK, 1)).sum(1)
    reward_N = (rng.random(n) < mean_K[action_N] + shift_N).astype(float)
    rows = np.arange(n)
    log = Log(action_N, reward_N, p_NK[rows, action_N], user_N, np.ones((n, k), dtype=bool))
    return log, policy_NK, np.broadcast_to(mean_K, (n, k)), 0.25


@pytest.mark.parametrize("method", ["ips", "snips", "dr", "dm"])
def test_intervals_cover_the_truth(method: str) -> None:
    """400 logs of 200 users. At 95 % coverage the number of misses exceeds 34 with probability 0.002
    (binomial), and is below 8 with 0.001; the policy's own value varies little around 0.25."""
    rng = np.random.default_rng(5)
    misses = normal_misses = 0
    for _ in range(400):
        log, policy, q, truth = simulated(rng, 200)
        parts = estimators.terms(method, log, policy, q)  # type: ignore[arg-type]
        found = estimators.estimate(log, parts, resamples=300)
        misses += not found.low <= truth <= found.high
        normal_misses += not found.normal_low <= truth <= found.normal_high
    assert misses <= 36
    assert 6 <= normal_misses <= 36


def test_doubly_robust_is_narrower_than_ips() -> None:
    log, policy, q, _ = simulated(np.random.default_rng(1), 400)
    log = replace(log, reward_N=1 - log.reward_N)
    ips, dr = estimators.ips(log, policy), estimators.dr(log, policy, 1 - q)
    assert dr.high - dr.low < 0.8 * (ips.high - ips.low)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (POLICY[:2], "shape"),
        (np.where(POLICY == 0.8, np.nan, POLICY), "event 2: policy has NaN"),
        (POLICY * 0.5, "event 0: policy's probabilities sum to, 0.5, not to 1"),
        (np.array([[1.0, 0.0], [1.5, -0.5], [0.2, 0.8], [0.6, 0.4]]), "event 1: policy has probability below"),
    ],
)
def test_a_policy_that_is_no_distribution_is_refused(policy: Floats, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        estimators.ips(LOG, policy)


def test_missing_propensities_are_not_invented() -> None:
    without = LOG.without_propensities()
    for method in (estimators.ips, estimators.snips):
        with pytest.raises(EvidenceError, match="map the column that holds them"):
            method(without, POLICY)
    with pytest.raises(EvidenceError, match="needs the propensity"):
        estimators.dr(without, POLICY, Q)
    assert estimators.dm(without, POLICY, Q).value == pytest.approx(0.61)


def test_no_overlap_no_events_and_no_model_are_errors() -> None:
    never = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(EvidenceError, match="takes none of the 4 logged actions"):
        estimators.snips(LOG, never)
    with pytest.raises(EvidenceError, match="no event"):
        estimators.ips(LOG.take(np.empty(0, np.int64)), np.empty((0, 2)))
    with pytest.raises(EvidenceError, match="reward model of shape"):
        estimators.dm(LOG, POLICY, Q[:, :1])
    with pytest.raises(EvidenceError, match="not finite"):
        estimators.dr(LOG, POLICY, np.full((4, 2), np.nan))


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
