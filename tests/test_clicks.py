"""How the variance of clicks follows their mean."""

import numpy as np
import pytest
from scipy import optimize, stats

from actors.features.features import Floats
from actors.generator.clicks import LEAST, least_variance


def clicks(chance_N: Floats, seed: int) -> Floats:
    return (np.random.default_rng(seed).random(len(chance_N)) < chance_N).astype(np.float64)


def direct(mean_N: Floats, reward_N: Floats) -> float:
    """The loss of every least variance with σ² found by a search, by SciPy's normal density."""

    def loss(least: float) -> float:
        variance_N = np.maximum(np.clip(mean_N, 0, 1) * (1 - np.clip(mean_N, 0, 1)), least)

        def of(log_noise: float) -> float:
            return -float(stats.norm.logpdf(reward_N, mean_N, np.sqrt(np.exp(log_noise) * variance_N)).sum())

        return float(optimize.minimize_scalar(of, bounds=(-9, 9), method="bounded", options={"xatol": 1e-9}).fun)

    return min(LEAST, key=loss)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_most_likely_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chance_N = rng.uniform(0.005, 0.4, 800)
    mean_N = chance_N + 0.05 * rng.normal(size=800)
    reward_N = clicks(chance_N, seed)
    assert least_variance(mean_N, reward_N) == pytest.approx(direct(mean_N, reward_N))


def test_means_below_what_does_happen_have_the_variance_of_what_happens() -> None:
    """Half of the rows click with 0.04 and are predicted as 0.002, so their squares are 0.04 and not 0.002."""
    chance_N, mean_N = (np.repeat(pair, 20_000) for pair in ((0.04, 0.3), (0.002, 0.3)))
    assert least_variance(mean_N, clicks(chance_N, 0)) == pytest.approx(0.04, rel=0.3)


def test_right_means_need_none() -> None:
    chance_N = np.repeat((0.02, 0.1, 0.5), 20_000)
    assert least_variance(chance_N, clicks(chance_N, 1)) <= 0.02 * 0.98 * 1.1


def test_rewards_told_without_error_are_no_fault() -> None:
    assert least_variance(np.ones(9), np.ones(9)) == LEAST[0]
