from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from actors.bandits.history import History
from actors.bandits.mixture import Mixture
from actors.features.features import FeatureBatch, Floats, Ints
from tests import bandit_cases
from tune import progressive
from tune.log import Log
from tune.progressive import Draws

BUDGET = 32 * 2**20


def logged(
    rng: np.random.Generator, users: list[int], items: int, dimension: int, arms: int
) -> tuple[FeatureBatch, Log]:
    """Events of these users, in this order; the last item is padding in every third event."""
    n = len(users)
    phi = rng.normal(size=(n, items, dimension))
    arm = rng.integers(0, arms, (n, items)) if arms > 1 else np.zeros((n, items), np.int64)
    if arms > 1:
        arm[rng.random((n, items)) < 0.2] = -1
    mask = np.ones((n, items), dtype=bool)
    mask[::3, -1] = items == 1
    action = rng.integers(0, max(1, items - 1), n)
    keys = rng.integers(0, 2**63, (n, items)).astype(np.uint64)
    batch = FeatureBatch(phi, arm, arm, keys, mask, rng.normal(size=(n, bandit_cases.CONTEXT)))
    return batch, Log(action, rng.random(n), np.full(n, 0.5), np.array(users, np.int64), mask)


def one_at_a_time(mixture: Mixture, batch: FeatureBatch, log: Log, limit: int) -> Floats:
    """Posterior means by the mixture that serves, event by event, (N, K, C)."""
    n, k = log.mask_NK.shape
    found = np.full((n, k, len(mixture.means_CAD)), np.nan)
    pasts: dict[int, History] = {}
    for row in range(n):
        user, features, a = int(log.user_N[row]), batch.row(row), int(log.action_N[row])
        past = pasts.get(user, History.empty(batch.phi_BKD.shape[2]))
        found[row, : len(features)] = mixture.condition(past, features.context_X).means(features).T
        if limit:
            pasts[user] = past.append(features.phi_KD[a], int(features.arm_K[a]), float(log.reward_N[row]), limit)
    return found


def together(mixture: Mixture, batch: FeatureBatch, log: Log, limit: int, draws: Draws, budget: int) -> Floats:
    k, c = log.mask_NK.shape[1], len(mixture.means_CAD)
    found = np.full((len(log), k, c, draws.width), np.nan)
    seen: list[Ints] = []
    for rows, scores in progressive.scores(mixture, batch, log, limit, draws, budget):
        found[rows] = scores
        seen.append(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), np.arange(len(log)))
    return found


@examples(max_examples=25, deadline=None)
@given(
    users=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    items=st.integers(1, 4),
    arms=st.sampled_from([1, 4]),
    limit=st.sampled_from([0, 1, 3, 64]),
    seed=st.integers(0, 100),
    binomial=st.booleans(),
)
def test_one_pass_agrees_with_one_at_a_time(
    users: list[int], items: int, arms: int, limit: int, seed: int, binomial: bool
) -> None:
    rng = np.random.default_rng(seed)
    mixture = bandit_cases.mixture(rng, 3, arms, 4)
    if binomial:
        mixture = replace(mixture, base_AD=0.3 * rng.normal(size=(arms, 4)))
    batch, log = logged(rng, users, items, 4, arms)
    expected = one_at_a_time(mixture, batch, log, limit)
    for budget in (1, BUDGET):
        found = together(mixture, batch, log, limit, Draws(), budget)[..., 0]
        np.testing.assert_allclose(np.where(log.mask_NK[..., None], found, np.nan), expected, atol=1e-9)


def test_long_sequences_have_a_window_of_the_last_rows() -> None:
    """150 events of one user and a few of others, histories of 64 rows."""
    rng = np.random.default_rng(0)
    users = [0] * 150 + [1, 2, 1, 1]
    mixture = bandit_cases.mixture(rng, 2, 1, 5)
    batch, log = logged(rng, users, 3, 5, 1)
    found = together(mixture, batch, log, 64, Draws(), BUDGET)[..., 0]
    expected = one_at_a_time(mixture, batch, log, 64)
    np.testing.assert_allclose(np.where(log.mask_NK[..., None], found, np.nan), expected, atol=1e-9)


@pytest.mark.parametrize("arms", [1, 3])
def test_particles_have_the_posterior_law(arms: int) -> None:
    """20,000 draws of the scores of 3 items after 4 rewards, against the posterior in weight space: means
    within 4.5 standard errors, covariances within 6 %."""
    rng = np.random.default_rng(1)
    d, alpha, particles = 3, 1.5, 20_000
    mixture = bandit_cases.mixture(rng, 2, arms, d)
    batch, log = logged(rng, [0] * 5, 3, d, arms)
    drawn = together(mixture, batch, log, 64, Draws(particles, alpha, 7), BUDGET)[4]
    rows = np.arange(4)
    phi, arm = batch.phi_BKD[rows, log.action_N[:4]], batch.arm_BK[rows, log.action_N[:4]] % arms
    items, item_arm = batch.phi_BKD[4], batch.arm_BK[4] % arms
    for c in range(2):
        prior = np.zeros((arms * d, arms * d))
        for a in range(arms):
            prior[a * d : a * d + d, a * d : a * d + d] = mixture.factor_ADD[a] @ mixture.factor_ADD[a].T
        flat = mixture.ranks_CADR[c].reshape(arms * d, -1)
        prior += flat @ flat.T
        x, z = np.zeros((4, arms * d)), np.zeros((3, arms * d))
        for i in range(4):
            x[i, arm[i] * d : arm[i] * d + d] = phi[i]
        for i in range(3):
            z[i, item_arm[i] * d : item_arm[i] * d + d] = items[i]
        precision = np.linalg.inv(prior) + x.T @ x / mixture.noise
        start = np.linalg.solve(prior, mixture.means_CAD[c].ravel())
        mean = z @ np.linalg.solve(precision, start + x.T @ log.reward_N[:4] / mixture.noise)
        covariance = alpha**2 * z @ np.linalg.solve(precision, z.T)
        error = np.sqrt(np.diag(covariance) / particles)
        assert (np.abs(drawn[:, c].mean(1) - mean) < 4.5 * error).all()
        scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        assert (np.abs(np.cov(drawn[:, c]) - covariance) < 0.06 * scale).all()


def test_particles_do_not_depend_on_the_blocks() -> None:
    rng = np.random.default_rng(2)
    mixture = bandit_cases.mixture(rng, 3, 1, 4)
    batch, log = logged(rng, [0, 1, 0, 2, 1, 0, 3, 4, 4], 3, 4, 1)
    small = together(mixture, batch, log, 2, Draws(5), 1)
    np.testing.assert_allclose(small, together(mixture, batch, log, 2, Draws(5), BUDGET), atol=1e-10)
    part = progressive.take(mixture, np.array([2, 0]))
    assert part.names_C == ("c2", "c0")
    np.testing.assert_allclose(together(part, batch, log, 2, Draws(5), BUDGET), small[:, :, [2, 0]], atol=1e-10)
