"""The head on users of planted kinds: kinds are found, contexts are used, errors are as large as it says."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score

from actors.bandits import pooled
from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.checkpoint import Checkpoint
from actors.generator.fitting import HeadTraining, fit_head
from actors.generator.head import Head
from actors.generator.likelihood import Rows, Whitened
from actors.generator.losses import mean_loss, responsibilities, spread
from actors.generator.priors import Priors, crossfit, fold_of
from actors.generator.tasks import Tasks
from cluster.clock import Clock

KINDS, D, NOISE = 4, 6, 0.3


@dataclass(frozen=True)
class World:
    head: Head
    training: HeadTraining
    stop: Rows
    priors: Priors
    kind_U: Ints
    theta_TD: Floats


def draw(theta_TD: Floats, users: int, rng: np.random.Generator, informative: bool) -> tuple[Tasks, Ints, Floats]:
    kind_U = rng.integers(len(theta_TD), size=users)
    sizes = rng.integers(10, 25, size=users)
    start = np.concatenate([[0], np.cumsum(sizes)])
    phi = rng.normal(size=(start[-1], D))
    phi[:, 0] = 1.0
    mean = np.einsum("nd,nd->n", phi, theta_TD[np.repeat(kind_U, sizes)])
    reward = mean + NOISE * rng.normal(size=len(mean))
    code = rng.normal(size=(users, 6))
    if informative:
        code[:, : len(theta_TD)] += 4 * np.eye(len(theta_TD))[kind_U]
    keys = tuple(f"{rng.integers(1 << 60)}" for _ in range(users))
    return Tasks(keys, keys, keys, code, start, phi, np.zeros(len(phi), np.int64), reward), kind_U, code


def world(informative: bool, kinds: int = KINDS, steps: int = 400, checkpoint: Checkpoint | None = None) -> World:
    rng = np.random.default_rng(0)
    theta = 0.5 * rng.normal(size=(kinds, D))
    fit, _, fit_code = draw(theta, 200, rng, informative)
    stop, kind_U, stop_code = draw(theta, 120, rng, informative)
    fold_U = np.array([fold_of(key, 3) for key in fit.keys])
    whole = pooled.fit(fit.phi_ND, fit.arm_N, fit.reward_N, 1)
    fold_N = np.repeat(fold_U, fit.sizes_U)
    priors = crossfit(fit.phi_ND, fit.arm_N, fit.reward_N, fold_N, 1, 3, whole)
    whitened = Whitened.of(priors)
    fit_rows = Rows(fit, fit_code, fold_U, priors, whitened)
    stop_rows = Rows(stop, stop_code, np.full(120, priors.whole), priors, whitened)
    head = Head(6, KINDS, 4, 1, D, priors.noise, seed=0)
    training = fit_head(
        head, fit_rows, stop_rows, Clock(600, steps), patience=8, seed=0, progress=False, checkpoint=checkpoint
    )
    return World(head, training, stop_rows, priors, kind_U, theta)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def blind() -> World:
    return world(informative=False)


def test_codes_become_the_kinds_that_contexts_do_not_tell(blind: World) -> None:
    shares_US = responsibilities(blind.head, blind.stop)
    np.testing.assert_allclose(shares_US.sum(1), 1.0)
    assert adjusted_rand_score(blind.kind_U, shares_US.argmax(1)) >= 0.8
    planted = np.sqrt((blind.stop.tasks.phi_ND @ blind.theta_TD.T).var(1).mean())
    assert blind.training.spread == pytest.approx(planted, rel=0.15)
    assert blind.training.gain > 0.2


def test_held_out_loss_is_that_of_the_kept_weights(blind: World) -> None:
    assert mean_loss(blind.head, blind.stop) == pytest.approx(blind.training.head_loss, abs=1e-9)
    assert blind.training.best_step <= blind.training.steps <= 400


def test_standardised_errors_of_held_out_users_have_variance_one(blind: World) -> None:
    """Each user's last reward, predicted from the ones before by dense formulas; checked on all rows of the
    second half of each history: about 1,000 errors, whose mean square has a standard error of 0.045."""
    errors = []
    mean_D = blind.head.mean_scale.item() * blind.priors.mean_FAD[-1, 0]
    base = blind.head.base_covariance(blind.stop)[0]
    shift, spread_DR = (p.detach().numpy()[0] for p in (blind.head.shift_ADR, blind.head.spread_ADR))
    noise, data = blind.head.noise.item(), blind.stop.tasks
    for u in range(len(data)):
        h_SR, g_SR = (
            x.detach().numpy()[0] for x in blind.head.outputs(torch.from_numpy(blind.stop.code_UQ[u : u + 1]))
        )
        mine = slice(data.start_U[u], data.start_U[u + 1])
        phi, reward = data.phi_ND[mine], data.reward_N[mine]
        for n in range(len(phi) // 2, len(phi)):
            logs, means, variances = [], [], []
            for h_R, g_R in zip(h_SR, g_SR, strict=True):
                sigma = base + spread_DR @ np.diag(np.exp(2 * g_R)) @ spread_DR.T
                m = mean_D + shift @ h_R
                gram = phi[:n] @ sigma @ phi[:n].T + noise * np.eye(n)
                left, cross = reward[:n] - phi[:n] @ m, phi[:n] @ sigma @ phi[n]
                solved = np.linalg.solve(gram, np.stack([left, cross], 1))
                logs.append(-0.5 * (left @ solved[:, 0] + np.linalg.slogdet(gram)[1]))
                means.append(phi[n] @ m + cross @ solved[:, 0])
                variances.append(phi[n] @ sigma @ phi[n] + noise - cross @ solved[:, 1])
            share = np.exp(np.array(logs) - logsumexp(logs))
            mean = share @ np.array(means)
            variance = share @ (np.array(variances) + (np.array(means) - mean) ** 2)
            errors.append((reward[n] - mean) / np.sqrt(variance))
    assert len(errors) > 900
    assert 0.9 <= float(np.mean(np.square(errors))) <= 1.1


def test_contexts_that_tell_the_kind_are_used() -> None:
    told = world(informative=True)
    apart = told.training
    assert apart.gain > 0.2
    means = np.zeros((KINDS, D))
    with torch.no_grad():
        h_USR, _ = told.head.outputs(torch.from_numpy(told.stop.code_UQ))
        shift_UD = h_USR.mean(1).numpy() @ told.head.shift_ADR.detach().numpy()[0].T
    for kind in range(KINDS):
        means[kind] = shift_UD[told.kind_U == kind].mean(0)
    wanted = told.theta_TD - told.theta_TD.mean(0)
    # The mean shift of each kind points where its θ lies from the pooled mean.
    assert np.corrcoef((means - means.mean(0)).ravel(), wanted.ravel())[0, 1] > 0.8


def test_where_users_are_alike_the_pooled_prior_is_kept() -> None:
    alike = world(informative=False, kinds=1, steps=200)
    assert 0.0 <= alike.training.gain < 0.005
    assert spread(alike.head, alike.stop, np.arange(120)) < 0.03


def unequal_clicks(least_variance: float | None) -> float:
    """Alike users click six items with chances from 0.02 to 0.8: the variance between users that a head finds."""
    rng = np.random.default_rng(1)
    chance_K, users, rows = np.array([0.02, 0.03, 0.05, 0.1, 0.4, 0.8]), 150, 20

    def clicks() -> Tasks:
        item = rng.integers(len(chance_K), size=users * rows)
        reward = (rng.random(len(item)) < chance_K[item]).astype(np.float64)
        keys = tuple(f"{rng.integers(1 << 60)}" for _ in range(users))
        start = rows * np.arange(users + 1)
        return Tasks(
            keys, keys, keys, np.zeros((users, 6)), start, np.eye(6)[item], np.zeros(len(item), np.int64), reward
        )

    fit, stop = clicks(), clicks()
    fold_U = np.array([fold_of(key, 3) for key in fit.keys])
    whole = pooled.fit(fit.phi_ND, fit.arm_N, fit.reward_N, 1)
    priors = crossfit(fit.phi_ND, fit.arm_N, fit.reward_N, np.repeat(fold_U, rows), 1, 3, whole)
    whitened = Whitened.of(priors)
    fit_rows = Rows(fit, np.zeros((users, 6)), fold_U, priors, whitened, least_variance)
    stop_rows = Rows(stop, np.zeros((users, 6)), np.full(users, priors.whole), priors, whitened, least_variance)
    head = Head(6, 2, 2, 1, 6, priors.noise / float(np.mean(fit_rows.scale_N**2)), seed=0)
    fit_head(head, fit_rows, stop_rows, Clock(600, 100), patience=8, seed=0, progress=False)
    return float(head.extra_AD.detach().mean())


def test_clicks_of_unequal_chance_are_no_difference_between_users() -> None:
    """One σ² for all clicks reads the larger variance of likelier ones as users who differ; a dispersion does not."""
    assert unequal_clicks(0.01) < 0.3 * unequal_clicks(None)


def test_equal_steps_give_equal_bits() -> None:
    one, two = (world(informative=True, steps=80) for _ in range(2))
    for name, value in one.head.state_dict().items():
        assert torch.equal(value, two.head.state_dict()[name]), name


def test_batches_hold_every_task_once_and_are_of_like_weight(blind: World) -> None:
    sizes = blind.stop.tasks.sizes_U
    for rng in (None, np.random.default_rng(1)):
        found = list(batches(blind.stop, np.arange(120), rng))
        assert sorted(np.concatenate(found)) == list(range(120))
        weights = [sizes[b].sum() for b in found]
        assert max(weights) < 1.1 * min(weights)
