"""Rank-one updates against factorisations from nothing."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from actors.bandits.posterior import Statistics
from tests import lockstep_cases
from tune.lockstep.beliefs import Beliefs, Setting


@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(1, 3), st.floats(-3, 3), st.floats(-3, 2))
@examples(max_examples=40, deadline=None)
def test_the_updated_factor_is_that_of_the_whole_data(seed: int, d: int, arms: int, noise: float, size: float) -> None:
    """Features of any size against any noise; candidates learn different outcomes, some of which fade."""
    rng = np.random.default_rng(seed)
    prior = lockstep_cases.prior(rng, d, arms)
    settings = [
        Setting(noise=10**noise),
        Setting(noise=10**noise, prior_strength=3.0, half_life=20.0),
        Setting(prior_strength=0.01),
    ]
    beliefs = Beliefs(settings, prior, "cpu")
    alone = [
        Statistics.start(
            s.prior_strength * prior.precision_ADD, s.prior_strength * prior.shift_AD, s.noise or prior.noise
        )
        for s in settings
    ]
    rows = len(prior.shift_AD)
    for step in range(12):
        phi, arm, reward = 10**size * rng.normal(size=(3, d)), rng.integers(0, max(1, rows - 1), 3), rng.random(3)
        beliefs.learn(torch.tensor(phi), torch.tensor(arm), torch.tensor(reward))
        for c, statistics in enumerate(alone):
            statistics.learn(phi[c], int(arm[c]), float(reward[c]))
        if step == 5:
            beliefs.forget(10)
            alone[1].forget(0.5**0.5)
    for c, statistics in enumerate(alone):
        expected = statistics.gaussian()
        for found, wanted in (
            (beliefs.factor_CADD[c], expected.factor_ADD),
            (beliefs.mean_CAD[c], expected.mean_AD),
        ):
            np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max())


def test_one_update_by_hand() -> None:
    """Λ = [[1, 0], [0, 1]], φ = (1, 1), σ² = 1: Λ' = [[2, 1], [1, 2]], Σ' = [[2, −1], [−1, 2]]/3 = LLᵀ with
    L = [[√(1/2), −√(1/6)], [0, √(2/3)]], and with r = 1 the mean is Σ'φ = (1/3, 1/3)."""
    prior = lockstep_cases.prior(np.random.default_rng(0), 2)
    prior.precision_ADD[:], prior.shift_AD[:] = np.eye(2), 0
    beliefs = Beliefs([Setting(noise=1.0)], prior, "cpu")
    beliefs.learn(torch.ones(1, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.int64), torch.ones(1))
    by_hand = [[np.sqrt(1 / 2), -np.sqrt(1 / 6)], [0, np.sqrt(2 / 3)]]
    np.testing.assert_allclose(beliefs.factor_CADD[0, 0].numpy(), by_hand, atol=1e-15)
    np.testing.assert_allclose(beliefs.mean_CAD[0, 0].numpy(), [1 / 3, 1 / 3], atol=1e-15)
