"""Features of landmark rows, against kernel matrices and another library's kernel regression."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from actors.features.features import Floats, Ints
from actors.features.fourier import bandwidth
from actors.features.kernel import ENOUGH, POOL, Kernel, fit_kernel

READ_R = np.array([1, 2, 4])
RNG = np.random.default_rng(0)
BASE_ND = np.column_stack([np.ones(80), RNG.normal(size=(80, 4))])


def fitted(base_ND: Floats, read_R: Ints, width: int, seed: int) -> Kernel | None:
    """Without rewards, hence without relevances."""
    none_N = np.full(len(base_ND), np.nan)
    return fit_kernel(base_ND, read_R, np.zeros(len(base_ND), np.int64), none_N, False, width, seed)


def gaussian(x_NR: Floats, y_MR: Floats, sigma: float) -> Floats:
    return np.asarray(np.exp(-((x_NR[:, None] - y_MR[None]) ** 2).sum(axis=2) / (2 * sigma**2)))


def sigma_of(seed: int) -> float:
    """Of the same draws as the fit's, its first."""
    return bandwidth(BASE_ND[:, READ_R], np.random.default_rng(seed))


def test_where_every_row_is_a_landmark_the_kernel_is_exact() -> None:
    """Inner products are R·k(x, y) among the fit rows, and between one of them and any other row."""
    made = fitted(BASE_ND, READ_R, 200, 5)
    assert made is not None
    other_ND = np.random.default_rng(1).normal(size=(30, 5))
    lifted_NW, other_MW = made.rows(BASE_ND), made.rows(other_ND)
    own_NN = 3 * gaussian(BASE_ND[:, READ_R], BASE_ND[:, READ_R], sigma_of(5))
    across_NM = 3 * gaussian(BASE_ND[:, READ_R], other_ND[:, READ_R], sigma_of(5))
    np.testing.assert_allclose(lifted_NW @ lifted_NW.T, own_NN, rtol=0, atol=3e-3)
    np.testing.assert_allclose(lifted_NW @ other_MW.T, across_NM, rtol=0, atol=2e-2)


def test_ridge_on_the_features_is_kernel_ridge() -> None:
    """scikit-learn's KernelRidge on the same rows, at rows that neither has seen."""
    made = fitted(BASE_ND, READ_R, 200, 5)
    assert made is not None
    target_N = np.sin(BASE_ND[:, 1]) * BASE_ND[:, 4]
    other_ND = np.random.default_rng(1).normal(size=(30, 5))
    peer = KernelRidge(alpha=0.1 / 3, kernel="rbf", gamma=1 / (2 * sigma_of(5) ** 2))
    peer.fit(BASE_ND[:, READ_R], target_N)
    lifted_NW = made.rows(BASE_ND)
    theta_W = np.linalg.solve(lifted_NW.T @ lifted_NW + 0.1 * np.eye(made.size), lifted_NW.T @ target_N)
    np.testing.assert_allclose(made.rows(other_ND) @ theta_W, peer.predict(other_ND[:, READ_R]), rtol=0, atol=0.02)


def test_rows_that_repeat_are_one_landmark() -> None:
    made = fitted(np.repeat(BASE_ND[:7], 50, axis=0), READ_R, 200, 0)
    assert made is not None
    assert made.size == 7
    assert fitted(np.repeat(BASE_ND[:1], 50, axis=0), READ_R, 200, 0) is None


def test_few_landmarks_say_more_than_as_many_rows_by_chance() -> None:
    """Six clusters of 500 to 5 rows: of the worst row less of k(x, x) = 1 is left than in each of ten draws."""
    rng = np.random.default_rng(2)
    middle_NR = np.repeat(3 * rng.normal(size=(6, 3)), [500, 300, 150, 30, 15, 5], axis=0)
    x_NR = middle_NR + 0.3 * rng.normal(size=(1_000, 3))
    base_ND, read_R = np.column_stack([np.ones(1_000), x_NR]), np.arange(1, 4)
    made = fitted(base_ND, read_R, 25, 0)
    assert made is not None
    sigma = bandwidth(x_NR, np.random.default_rng(0))
    left = 1 - (made.rows(base_ND) ** 2).sum(axis=1).min() / 3
    for seed in range(10):
        drawn = x_NR[np.random.default_rng(seed).permutation(1_000)[:25]]
        solved = np.linalg.solve(gaussian(drawn, drawn, sigma) + 1e-9 * np.eye(25), gaussian(drawn, x_NR, sigma))
        assert left < 1 - (solved * gaussian(drawn, x_NR, sigma)).sum(axis=0).min()


def test_of_enough_rewarded_rows_half_of_the_kernel_is_scaled_by_relevance() -> None:
    """Only the first of three features matters: the kernel among fit rows is the mean of one that is as if all did and
    one that tells rows apart by the first alone, more or less."""
    rng = np.random.default_rng(4)
    base_ND = np.column_stack([np.ones(ENOUGH), rng.normal(size=(ENOUGH, 3))])
    arm_N, read_R = rng.integers(0, 2, ENOUGH), np.arange(1, 4)
    reward_N = np.where(arm_N == 0, 1.0, -1.0) * np.sin(3 * base_ND[:, 1])
    made = fit_kernel(base_ND, read_R, arm_N, reward_N, True, ENOUGH, 0)
    assert made is not None
    sigma = bandwidth(base_ND[:, 1:], np.random.default_rng(0))
    equal_NN = gaussian(base_ND[:, 1:], base_ND[:, 1:], sigma)
    lifted_NW = made.rows(base_ND)
    other_NN = 2 * lifted_NW @ lifted_NW.T / 3 - equal_NN
    other_NN = np.where(other_NN > 0.05, other_NN, np.nan)
    pairs = np.argwhere(np.isfinite(other_NN) & (np.eye(ENOUGH) == 0))
    apart = (base_ND[pairs[:, 0], 1:] - base_ND[pairs[:, 1], 1:]) ** 2
    weight_R = np.linalg.lstsq(apart, -2 * np.log(other_NN[tuple(pairs.T)]), rcond=None)[0] * sigma**2
    assert weight_R[0] > 1.2
    assert (weight_R[1:] < 0.6).all()
    alone = fit_kernel(base_ND, read_R, arm_N, np.append(reward_N[1:], np.nan), True, ENOUGH, 0)
    assert alone is not None
    assert (len(made.inner_SRW), len(alone.inner_SRW)) == (2, 1)


@pytest.mark.parametrize("rows", [2, POOL + 500])
def test_a_row_has_the_same_bits_alone(rows: int) -> None:
    base_ND = np.column_stack([np.ones(rows), np.random.default_rng(3).normal(size=(rows, 4))])
    made = fitted(base_ND, READ_R, 40, 1)
    assert made is not None
    whole = made.rows(base_ND)
    for n in (0, rows // 2, rows - 1):
        np.testing.assert_array_equal(made.rows(base_ND[n : n + 1])[0], whole[n])
