import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from actors.bandits.noise import Noise
from actors.bandits.posterior import Gaussian, Statistics, gaussian
from cluster.errors import ModelError
from tests import bandit_cases as cases

KEYS = np.array([3, 5, 9], np.uint64)


def solved(precision_DD: np.ndarray, shift_D: np.ndarray, phi_ND: np.ndarray, reward_N: np.ndarray, noise: float):
    """Ridge regression by a direct solve: mean and covariance."""
    total_DD = precision_DD + phi_ND.T @ phi_ND / noise
    return np.linalg.solve(total_DD, shift_D + phi_ND.T @ reward_N / noise), np.linalg.inv(total_DD)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4), st.integers(0, 40))
def test_posterior_is_the_direct_solve(seed: int, dimension: int, arms: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    prior_ADD, shift_AD = cases.precision(rng, arms, dimension), rng.normal(size=(arms, dimension))
    phi_ND, arm_N, reward_N = rng.normal(size=(rows, dimension)), rng.integers(0, arms, rows), rng.random(rows)
    one_by_one, batch = (Statistics.start(prior_ADD, shift_AD, 0.25) for _ in range(2))
    for phi_D, arm, reward in zip(phi_ND, arm_N, reward_N, strict=True):
        one_by_one.learn(phi_D, int(arm), float(reward))
    batch.learn_batch(phi_ND, arm_N, reward_N)
    for found in (one_by_one.gaussian(), batch.gaussian()):
        for arm in range(arms):
            mine = arm_N == arm
            mean_D, covariance_DD = solved(prior_ADD[arm], shift_AD[arm], phi_ND[mine], reward_N[mine], 0.25)
            np.testing.assert_allclose(found.mean_AD[arm], mean_D, rtol=1e-8, atol=1e-10)
            np.testing.assert_allclose(
                found.factor_ADD[arm] @ found.factor_ADD[arm].T, covariance_DD, rtol=1e-8, atol=1e-10
            )


def test_sound_after_a_million_rank_one_updates() -> None:
    """Badly scaled features; the reference sums in extended precision."""
    rng = np.random.default_rng(0)
    scale_D = np.array([1.0, 1e-2, 30.0, 1.0])
    phi_ND = rng.normal(size=(1_000_000, 4)) * scale_D
    reward_N = (rng.random(1_000_000) < 0.05).astype(float)
    statistics = Statistics.start(np.eye(4)[None], np.zeros((1, 4)), 0.04)
    for phi_D, reward in zip(phi_ND, reward_N.tolist(), strict=True):
        statistics.learn(phi_D, 0, reward)
    long_ND = phi_ND.astype(np.longdouble)
    gram_DD = np.stack([(long_ND * long_ND[:, [d]]).sum(0) for d in range(4)])
    total_DD = np.eye(4) + (gram_DD / 0.04).astype(float)
    mean_D = np.linalg.solve(total_DD, ((long_ND * reward_N[:, None]).sum(0) / 0.04).astype(float))
    found = statistics.gaussian()
    np.testing.assert_allclose(found.mean_AD[0], mean_D, rtol=1e-8)
    np.testing.assert_allclose(found.factor_ADD[0] @ found.factor_ADD[0].T @ total_DD, np.eye(4), atol=1e-8)


def test_joint_scores_have_the_exact_mean_and_covariance() -> None:
    """200,000 particles; entries of a sample covariance within 5 standard errors (Isserlis)."""
    rng = np.random.default_rng(1)
    belief, phi_KD, particles, scale = cases.posterior(rng, 1, 5), rng.normal(size=(3, 5)), 200_000, 0.7
    found = belief.scores(phi_KD, np.zeros(3, np.int64), KEYS, Noise(4, particles), scale)
    covariance_KK = scale**2 * phi_KD @ belief.factor_ADD[0] @ belief.factor_ADD[0].T @ phi_KD.T
    variance_K = np.diagonal(covariance_KK)
    np.testing.assert_allclose(found.mean_K, phi_KD @ belief.mean_AD[0], rtol=1e-12)
    assert (abs(found.deviation_PK.mean(0)) < 5 * np.sqrt(variance_K / particles)).all()
    error_KK = np.sqrt((np.outer(variance_K, variance_K) + covariance_KK**2) / particles)
    assert (abs(found.deviation_PK.T @ found.deviation_PK / particles - covariance_KK) < 5 * error_KK).all()


def test_scores_of_independent_arms_have_the_law_of_drawn_parameters() -> None:
    """Scores drawn directly against θ drawn by numpy, two-sample Kolmogorov-Smirnov, error rate 0.001 each;
    correlations between arms within 4.5/√n."""
    rng = np.random.default_rng(2)
    belief, phi_D, particles = cases.posterior(rng, 4, 5), rng.normal(size=5), 50_000
    arm_K = np.array([2, 0, 3])
    found = belief.scores(np.broadcast_to(phi_D, (3, 5)), arm_K, KEYS, Noise(4, particles), 1.0)
    drawn_PK = found.mean_K + found.deviation_PK
    for k, arm in enumerate(arm_K):
        covariance_DD = belief.factor_ADD[arm] @ belief.factor_ADD[arm].T
        theta_ND = rng.multivariate_normal(belief.mean_AD[arm], covariance_DD, particles)
        assert stats.ks_2samp(drawn_PK[:, k], theta_ND @ phi_D).pvalue > 1e-3
    correlation_KK = np.corrcoef(drawn_PK.T) - np.eye(3)
    assert (abs(correlation_KK) < 4.5 / np.sqrt(particles)).all()


def test_batched_draws_have_the_law_of_drawn_parameters() -> None:
    """Each of two contexts 30,000 times, each arm against θ drawn by numpy: six tests at 0.001 each."""
    rng, draws = np.random.default_rng(12), 30_000
    belief, phi_BD = cases.posterior(rng, 3, 20), rng.normal(size=(2, 20))
    score_AN = belief.draw(np.repeat(phi_BD, draws, axis=0), rng)
    for b in range(2):
        for arm in range(3):
            covariance_DD = belief.factor_ADD[arm] @ belief.factor_ADD[arm].T
            theta_ND = rng.multivariate_normal(belief.mean_AD[arm], covariance_DD, draws)
            drawn = score_AN[arm, b * draws : (b + 1) * draws]
            assert stats.ks_2samp(drawn, theta_ND @ phi_BD[b]).pvalue > 1e-3


def test_batched_draws_without_variance_are_the_means() -> None:
    rng = np.random.default_rng(13)
    belief, phi_BD = cases.posterior(rng, 3, 20), rng.normal(size=(700, 20))
    certain = Gaussian(belief.mean_AD, np.zeros_like(belief.factor_ADD))
    np.testing.assert_allclose(certain.draw(phi_BD, rng), belief.mean_AD @ phi_BD.T, rtol=1e-12)


def test_one_context_for_all_items_gives_the_moments_of_separate_rows() -> None:
    rng = np.random.default_rng(3)
    belief, phi_D, arm_K = cases.posterior(rng, 4, 5), rng.normal(size=5), np.array([1, -1, 0])
    view_KD = np.broadcast_to(phi_D, (3, 5))
    for mine, theirs in zip(belief.moments(view_KD, arm_K), belief.moments(view_KD.copy(), arm_K), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


def test_an_unknown_item_has_the_prior() -> None:
    rng = np.random.default_rng(4)
    statistics = Statistics.start(np.tile(2 * np.eye(2), (3, 1, 1)), np.ones((3, 2)), 0.1)
    statistics.learn_batch(rng.normal(size=(50, 2)), rng.integers(0, 2, 50), rng.random(50))
    phi_KD, arm_K = np.ones((2, 2)), np.array([0, -1])
    mean_K, spread_K = statistics.gaussian().moments(phi_KD, arm_K)
    # N(Λ⁻¹b, Λ⁻¹) with Λ = 2I, b = 1: mean 0.5 + 0.5, variance 0.5 + 0.5.
    assert (mean_K[1], spread_K[1]) == pytest.approx((1.0, 1.0))
    assert spread_K[0] < 0.2


def test_forgetting_shrinks_to_the_prior() -> None:
    """By hand: Λ₀ = 1, b₀ = 1; one row φ = 2, r = 1, σ² = 0.5 adds 8 and 4; a quarter of that is 2 and 1."""
    statistics = Statistics.start(np.ones((1, 1, 1)), np.ones((1, 1)), 0.5)
    statistics.learn(np.array([2.0]), 0, 1.0)
    assert (statistics.precision_ADD.item(), statistics.shift_AD.item()) == (9.0, 5.0)
    statistics.forget(0.25)
    assert (statistics.precision_ADD.item(), statistics.shift_AD.item()) == (3.0, 2.0)
    assert statistics.gaussian().mean_AD.item() == pytest.approx(2 / 3)
    for _ in range(600):
        statistics.forget(0.25)
    assert (statistics.precision_ADD.item(), statistics.shift_AD.item()) == (1.0, 1.0)


def test_a_posterior_without_variance_draws_its_mean() -> None:
    belief = Gaussian(np.ones((1, 2)), np.zeros((1, 2, 2)))
    found = belief.scores(np.ones((3, 2)), np.zeros(3, np.int64), KEYS, Noise(1, 8), 1.0)
    assert (found.mean_K == 2).all()
    assert not found.deviation_PK.any()


@pytest.mark.parametrize(
    ("precision_ADD", "shift_AD", "noise", "message"),
    [
        (np.eye(3)[None], np.zeros((1, 2)), 1.0, "does not fit"),
        (np.full((1, 2, 2), np.nan), np.zeros((1, 2)), 1.0, "finite"),
        (np.eye(2)[None], np.zeros((1, 2)), 0.0, "above zero"),
    ],
)
def test_a_bad_prior_is_refused(precision_ADD: np.ndarray, shift_AD: np.ndarray, noise: float, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Statistics.start(precision_ADD, shift_AD, noise)


def test_an_indefinite_precision_is_refused() -> None:
    with pytest.raises(ModelError, match="positive definite"):
        gaussian(-np.eye(2)[None], np.zeros((1, 2)))
