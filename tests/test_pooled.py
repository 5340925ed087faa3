import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from actors.bandits import pooled
from actors.bandits.posterior import gaussian
from cluster.errors import EvidenceError


def case(seed: int, rows: int, dimension: int, arms: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    phi_ND = rng.normal(size=(rows, dimension))
    phi_ND[:, 0] = 1
    theta_AD = 0.5 * rng.normal(size=(arms, dimension))
    theta_AD[:, 0] += 0.4
    arm_N = rng.integers(0, arms, rows)
    return phi_ND, arm_N, np.einsum("nd,nd->n", phi_ND, theta_AD[arm_N]) + 0.3 * rng.normal(size=rows)


@pytest.mark.parametrize("arms", [1, 3])
def test_scales_maximise_the_evidence(arms: int) -> None:
    """log N(r; Φm, σ²I + ΦΦᵀ/λ), arms apart, maximised by scipy over log λ and log σ²."""
    phi_ND, arm_N, reward_N = case(arms, 120, 5, arms)
    same_NN = arm_N[:, None] == arm_N
    gram_NN = np.where(same_NN, phi_ND @ phi_ND.T, 0)

    def loss(logs: np.ndarray) -> float:
        ridge, noise = np.exp(logs)
        covariance = gram_NN / ridge + noise * np.eye(len(reward_N))
        return -float(multivariate_normal(np.full(len(reward_N), reward_N.mean()), covariance).logpdf(reward_N))

    best = minimize(loss, [0.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    found = pooled.fit(phi_ND, arm_N, reward_N, arms + 1)
    np.testing.assert_allclose([found.ridge, found.noise], np.exp(best.x), rtol=1e-3)


def test_scales_of_groups_maximise_the_evidence_together() -> None:
    """Features of two sizes of coefficients, two arms: log N(r; Φm, σ²I + Φ diag(1/λ) Φᵀ) by scipy."""
    rng = np.random.default_rng(3)
    phi_ND, arm_N, groups_D = rng.normal(size=(200, 9)), rng.integers(0, 2, 200), np.repeat([0, 1], [4, 5])
    phi_ND[:, 0] = 1
    theta_AD = rng.normal(size=(2, 9)) * np.where(groups_D == 0, 0.8, 0.15)
    reward_N = np.einsum("nd,nd->n", phi_ND, theta_AD[arm_N]) + 0.3 * rng.normal(size=200)
    same_NN, mean_D = arm_N[:, None] == arm_N, np.zeros(9)
    mean_D[0] = reward_N.mean()

    def loss(logs: np.ndarray) -> float:
        scale_D, noise = np.exp(-logs[groups_D]), np.exp(logs[2])
        covariance = np.where(same_NN, phi_ND * scale_D @ phi_ND.T, 0) + noise * np.eye(200)
        return -float(multivariate_normal(phi_ND @ mean_D, covariance).logpdf(reward_N))

    best = minimize(loss, [0.0, 2.0, -2.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    found = pooled.fit(phi_ND, arm_N, reward_N, 3, groups_D)
    ridge_D = np.diagonal(found.precision_ADD[2])[1:]
    np.testing.assert_allclose([ridge_D[0], ridge_D[-1], found.noise], np.exp(best.x), rtol=0.05)
    assert ridge_D[-1] > 5 * ridge_D[0]


def test_posterior_is_ridge_with_the_fitted_scales() -> None:
    phi_ND, arm_N, reward_N = case(4, 90, 4, 2)
    found = pooled.fit(phi_ND, arm_N, reward_N, 3)
    belief = gaussian(found.precision_ADD, found.shift_AD)
    ridge_DD = np.diag([pooled.INTERCEPT_PRECISION, *[found.ridge] * 3])
    start_D = np.array([reward_N.mean(), 0, 0, 0])
    for arm in range(2):
        rows_ND, mine_N = phi_ND[arm_N == arm], reward_N[arm_N == arm]
        total_DD = ridge_DD + rows_ND.T @ rows_ND / found.noise
        mean_D = np.linalg.solve(total_DD, ridge_DD @ start_D + rows_ND.T @ mine_N / found.noise)
        np.testing.assert_allclose(belief.mean_AD[arm], mean_D, rtol=1e-9)
    np.testing.assert_allclose(belief.mean_AD[2], start_D, atol=1e-12)
    np.testing.assert_allclose(np.diagonal(found.precision_ADD[2]), np.diagonal(ridge_DD))


def test_rows_of_unknown_items_teach_no_arm() -> None:
    phi_ND, arm_N, reward_N = case(5, 60, 3, 2)
    arm_N[:10] = -1
    found = pooled.fit(phi_ND, arm_N, reward_N, 3)
    np.testing.assert_allclose(found.precision_ADD[2], np.diag([1.0, found.ridge, found.ridge]))


@pytest.mark.parametrize("reward", [0.0, 1.0])
def test_rewards_that_never_vary_give_a_proper_posterior(reward: float) -> None:
    phi_ND, arm_N, _ = case(6, 30, 3, 1)
    found = pooled.fit(phi_ND, arm_N, np.full(30, reward), 2)
    belief = gaussian(found.precision_ADD, found.shift_AD)
    assert found.noise > 0
    assert np.isfinite(found.ridge)
    np.testing.assert_allclose(phi_ND @ belief.mean_AD[0], reward, atol=1e-6)


def test_popularity_by_hand() -> None:
    """Items with rewards (1, 1, 1, 0), (0, 0, 0, 0), none; overall mean 3/8, variance 15/64.

    Item means 3/4 and 0: weighted variance between (4·9/64 + 4·9/64)/8 = 9/64, less noise·2/8 = 15/256: 21/256.
    Precision of an item: 256/21 + 4·64/15; mean of the first: (256/21·3/8 + 3·64/15)/precision.
    """
    item_N, reward_N = np.array([0, 0, 0, 0, 1, 1, 1, 1]), np.array([1.0, 1, 1, 0, 0, 0, 0, 0])
    found = pooled.popularity(item_N, reward_N, 3)
    belief = gaussian(found.precision_ADD, found.shift_AD)
    precision = 256 / 21 + 256 / 15
    assert found.noise == pytest.approx(15 / 64)
    np.testing.assert_allclose(found.precision_ADD[:, 0, 0], [precision, precision, 256 / 21, 256 / 21])
    first, second = (256 / 21 * 3 / 8 + 64 / 5) / precision, 256 / 21 * 3 / 8 / precision
    np.testing.assert_allclose(belief.mean_AD[:, 0], [first, second, 3 / 8, 3 / 8])
    assert 3 / 8 < first < 3 / 4
    assert 0 < second < 3 / 8


def test_popularity_without_rows_is_flat() -> None:
    found = pooled.popularity(np.array([], np.int64), np.array([]), 2)
    belief = gaussian(found.precision_ADD, found.shift_AD)
    np.testing.assert_allclose(belief.mean_AD, 0.5)
    assert np.isfinite(belief.factor_ADD).all()


def test_with_forgetting_the_pool_counts_no_more_than_the_steady_state() -> None:
    """Outcomes that fade by half in h weigh Σ 2^(−t/h) ≈ h/ln 2 together; fewer rows than that stay whole."""
    phi_ND, arm_N, reward_N = case(7, 400, 3, 1)
    found = pooled.fit(phi_ND, arm_N, reward_N, 2)
    keep = 100 / np.log(2) / 400
    faded, whole = found.prior("forgetting", "features", 100.0), found.prior("forgetting", "features", 1e6)
    np.testing.assert_allclose(faded.precision_ADD, keep * found.precision_ADD)
    np.testing.assert_allclose(faded.shift_AD, keep * found.shift_AD)
    np.testing.assert_allclose(whole.precision_ADD, found.precision_ADD)
    assert (faded.half_life, found.prior("linear", "features").half_life) == (100.0, None)


def test_strength_tempers_the_posterior() -> None:
    """N(μ, Σ)^s is N(μ, Σ/s) up to its constant."""
    phi_ND, arm_N, reward_N = case(7, 400, 3, 1)
    found = pooled.fit(phi_ND, arm_N, reward_N, 2)
    whole, weak = found.prior("linear", "features"), found.prior("linear", "features", strength=0.25)
    one, other = gaussian(whole.precision_ADD, whole.shift_AD), gaussian(weak.precision_ADD, weak.shift_AD)
    np.testing.assert_allclose(other.mean_AD, one.mean_AD)
    np.testing.assert_allclose(other.factor_ADD, 2 * one.factor_ADD)
    both = found.prior("forgetting", "features", 100.0, 0.25)
    np.testing.assert_allclose(both.precision_ADD, 0.25 * found.prior("forgetting", "features", 100.0).precision_ADD)


def test_no_rows_and_bad_rows_are_refused() -> None:
    phi_ND, arm_N, reward_N = case(8, 10, 3, 1)
    with pytest.raises(EvidenceError, match="no rewarded events"):
        pooled.fit(phi_ND[:0], arm_N[:0], reward_N[:0], 2)
    reward_N[3] = np.nan
    with pytest.raises(EvidenceError, match="not finite"):
        pooled.fit(phi_ND, arm_N, reward_N, 2)
