"""The resampling part of cluster.statistics."""

import numpy as np
import pytest

from cluster import statistics


def test_holm_on_worked_numbers() -> None:
    """p = .01, .04, .03, .005: steps 4·.005, 3·.01, 2·.03, 1·.04, made monotone."""
    adjusted = statistics.holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, 0.06, 0.06, 0.02])
    assert statistics.holm(np.array([0.6, 0.7])).max() == 1.0


def test_the_error_of_a_ratio_on_worked_numbers() -> None:
    """Totals 2, 0, 1, counts 2, 1, 1: value .75, residuals .5, −.75, .25, variance 1.5 · .875 / 16."""
    value, error = statistics.ratio_error(np.array([2.0, 0.0, 1.0]), np.array([2.0, 1.0, 1.0]))
    assert value == 0.75
    assert error == pytest.approx(np.sqrt(1.5 * 0.875 / 16))
    assert statistics.ratio_error(np.array([1.0]), np.array([2.0])) == (0.5, float("inf"))
    assert statistics.ratio_error(np.zeros(3), np.zeros(3)) == (0.0, float("inf"))


def test_resamples_are_of_users_paired_over_quantities_and_seeded() -> None:
    totals = np.random.default_rng(0).normal(size=(50, 1))
    both = np.hstack([totals, 2 * totals])
    drawn = statistics.bootstrap_by_user(both, np.ones((50, 1)), 200, seed=4)
    assert drawn.shape == (200, 2)
    np.testing.assert_allclose(drawn[:, 1], 2 * drawn[:, 0])
    np.testing.assert_array_equal(drawn, statistics.bootstrap_by_user(both, np.ones((50, 1)), 200, seed=4))
    assert not np.array_equal(drawn, statistics.bootstrap_by_user(both, np.ones((50, 1)), 200, seed=5))


def test_resamples_in_blocks_have_the_right_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of 30 values resampled: variance (n − 1)/n · s²/n, within 4 standard errors of 20,000 draws."""
    monkeypatch.setattr(statistics, "_CHUNK", 1_000)
    values = np.random.default_rng(1).exponential(size=(30, 1))
    drawn = statistics.bootstrap_by_user(values, np.ones((30, 1)), 20_000, seed=0)
    assert len(drawn) == 20_000
    assert drawn.var() == pytest.approx(values.var() / 30, rel=4 * np.sqrt(2 / 20_000))
