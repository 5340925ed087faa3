"""The evidence of a Gaussian kernel's scales: against scipy's normal density, its gradient, and planted worlds."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal

from actors.features.features import Floats
from actors.features.relevance import TIGHT, _evidence, relevance


def drawn(rows: int, features: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Rows, their arms and noise."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, features)), rng.integers(0, 2, rows), 0.3 * rng.normal(size=rows)


def test_evidence_is_the_density_of_the_rewards_and_the_prior() -> None:
    x_NR, arm_N, reward_N = drawn(12, 3, 0)
    alike_NN = np.where(arm_N[:, None] == arm_N, 1.0, -1.0)
    place = np.array([0.4, -0.3, 0.1, -0.5, -1.0])
    kernel_NN = np.exp(-0.5 * (np.exp(place[:3]) * (x_NR[:, None] - x_NR) ** 2).sum(axis=2)) * alike_NN
    covariance_NN = np.exp(-0.5) * (kernel_NN + np.exp(-1.0) * np.eye(12))
    density = multivariate_normal(np.zeros(12), covariance_NN).logpdf(reward_N) + 6 * np.log(2 * np.pi)
    value, slope = _evidence(place, x_NR, reward_N, alike_NN)
    assert value == pytest.approx(density - 0.5 * TIGHT * (place[:3] ** 2).sum(), abs=1e-9)
    by_steps = approx_fprime(place, lambda at: _evidence(at, x_NR, reward_N, alike_NN)[0], 1e-6)
    np.testing.assert_allclose(slope, by_steps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opposite", [True, False])
def test_the_features_that_decide_are_found(opposite: bool) -> None:
    """Two of ten decide by their product, in each of five worlds: they have the two greatest factors."""
    for seed in range(5):
        x_NR, arm_N, noise_N = drawn(250, 10, seed)
        sign_N = np.where(arm_N == 0, 1.0, -1.0)
        reward_N = sign_N * np.sign(x_NR[:, 3] * x_NR[:, 7]) + noise_N
        same_NN = arm_N[:, None] == arm_N
        found_R = relevance(x_NR / 2, reward_N, np.where(same_NN, 1.0, -1.0 if opposite else 0.0))
        assert set(np.argsort(found_R)[-2:].tolist()) == {3, 7}


def test_where_nothing_decides_all_matter_alike() -> None:
    """Rewards of noise alone move no factor by more than a half, in each of five draws."""
    for seed in range(5):
        x_NR, _, reward_N = drawn(250, 10, seed)
        found_R = relevance(x_NR / 2, reward_N - reward_N.mean(), np.ones((250, 250)))
        assert np.abs(np.log(found_R)).max() < np.log(1.5)
