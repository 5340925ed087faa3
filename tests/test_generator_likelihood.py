"""The mixture marginal likelihood against scipy's multivariate normal with dense matrices, and its gradients."""

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from actors.bandits import pooled
from actors.features.features import Floats
from actors.generator.head import Head
from actors.generator.likelihood import Rows, Whitened
from actors.generator.priors import Priors, crossfit, fold_of
from actors.generator.tasks import Tasks

A, D, R, S, Q, FOLDS = 3, 4, 2, 3, 5, 2


def tasks(arms: int, sizes: list[int], seed: int) -> Tasks:
    rng = np.random.default_rng(seed)
    start, n = np.concatenate([[0], np.cumsum(sizes)]), sum(sizes)
    keys = tuple(f"u{u}" for u in range(len(sizes)))
    phi = rng.normal(size=(n, D))
    phi[:, 0] = 1.0
    arm = rng.integers(-1 if arms > 1 else 0, max(arms - 1, 1), n)
    return Tasks(keys, keys, keys, rng.normal(size=(len(sizes), 2)), start, phi, arm, rng.random(n))


def fitted(arms: int) -> tuple[Rows, Priors, Head, Floats]:
    data = tasks(arms, [4, 1, 7, 3, 5, 6, 2, 9], seed=arms)
    folds = np.array([fold_of(key, FOLDS) for key in data.keys])
    assert set(folds) == {0, 1}
    whole = pooled.fit(data.phi_ND, data.arm_N, data.reward_N, arms)
    priors = crossfit(data.phi_ND, data.arm_N, data.reward_N, np.repeat(folds, data.sizes_U), arms, FOLDS, whole)
    rng = np.random.default_rng(9)
    rows = Rows(data, rng.normal(size=(len(data), Q)), folds, priors, Whitened.of(priors))
    head = Head(Q, S, R, arms, D, noise=0.2, seed=1)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return rows, priors, head, folds


def dense(rows: Rows, priors: Priors, head: Head, folds: Floats, u: int) -> list[float]:
    """log N of each code from full (A·D)-dimensional matrices."""
    data, arms = rows.tasks, priors.mean_FAD.shape[1]
    mine, f = slice(data.start_U[u], data.start_U[u + 1]), int(folds[u])
    phi, arm = data.phi_ND[mine], data.arm_N[mine] % arms
    wide = np.zeros((len(phi), arms * D))
    for i, a in enumerate(arm):
        wide[i, a * D : (a + 1) * D] = phi[i]
    tau2 = head.log_tempering.exp().item()
    base = scipy.linalg.block_diag(*np.linalg.inv(priors.prior_FDD[f] + priors.data_FADD[f] / tau2))
    known = head.known_A.numpy()
    extra = np.exp(head.log_extra_AD.detach().numpy()) * known[:, None]
    shift = (head.shift_ADR.detach().numpy() * known[:, None, None]).reshape(arms * D, R)
    spread = (head.spread_ADR.detach().numpy() * known[:, None, None]).reshape(arms * D, R)
    h_SR, g_SR = (x.detach().numpy()[0] for x in head.outputs(torch.from_numpy(rows.code_UQ[u : u + 1])))
    found = []
    for h_R, g_R in zip(h_SR, g_SR, strict=True):
        mean = wide @ (head.mean_scale.item() * priors.mean_FAD[f].ravel() + shift @ h_R)
        sigma = base + np.diag(extra.ravel()) + spread @ np.diag(np.exp(2 * g_R)) @ spread.T
        cover = wide @ sigma @ wide.T + head.noise.item() * np.eye(len(phi))
        found.append(float(multivariate_normal.logpdf(data.reward_N[mine], mean, cover)))
    return found


@pytest.mark.parametrize("arms", [1, A])
def test_every_code_of_every_padded_user_agrees_with_scipy(arms: int) -> None:
    rows, priors, head, folds = fitted(arms)
    with torch.no_grad():
        log_US = head.log_normals(rows.batch(np.arange(8))).numpy()
        loss_U = head.loss(rows.batch(np.arange(8))).numpy()
    for u in range(8):
        expected = dense(rows, priors, head, folds, u)
        np.testing.assert_allclose(log_US[u], expected, rtol=1e-9)
        np.testing.assert_allclose(loss_U[u], np.log(S) - logsumexp(expected), rtol=1e-9)


@pytest.mark.parametrize("arms", [1, A])
def test_gradients_agree_with_finite_differences(arms: int) -> None:
    rows, _, head, _ = fitted(arms)
    batch = rows.batch(np.array([0, 2, 5]))
    head.loss(batch).sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all(), name
        k = int(parameter.grad.abs().argmax())
        with torch.no_grad():
            flat, ends = parameter.view(-1), []
            for step in (1e-5, -2e-5):
                flat[k] += step
                ends.append(head.loss(batch).sum().item())
            flat[k] += 1e-5
        assert parameter.grad.view(-1)[k].item() == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5), name


def test_silence_is_the_plain_prior() -> None:
    rows, _, head, _ = fitted(A)
    batch = rows.batch(np.arange(8))
    head.silence()
    with torch.no_grad():
        np.testing.assert_allclose(head.loss(batch).numpy(), head.loss(batch, plain=True).numpy(), rtol=1e-12)


def test_an_unknown_item_has_the_prior_whatever_the_tempering() -> None:
    rows, priors, head, _ = fitted(A)
    expected = np.linalg.inv(priors.prior_FDD[-1])
    for tempering in (0.0, 5.0):
        head.log_tempering.data.fill_(tempering)
        np.testing.assert_allclose(head.base_covariance(rows)[-1], expected, rtol=1e-9)


def test_the_tempered_covariance_grows_from_the_posterior_to_the_prior() -> None:
    _, priors, _, _ = fitted(1)
    whitened = Whitened.of(priors)
    exact = np.linalg.inv(priors.prior_FDD[-1] + priors.data_FADD[-1, 0])
    np.testing.assert_allclose(whitened.covariance(priors.whole, 1.0)[0], exact, rtol=1e-8, atol=1e-12)
    widest = whitened.covariance(priors.whole, 1e12)[0]
    np.testing.assert_allclose(widest, np.linalg.inv(priors.prior_FDD[-1]), rtol=1e-6, atol=1e-9)


def test_a_fold_is_fitted_without_its_own_users() -> None:
    data = tasks(1, [4, 1, 7, 3, 5, 6, 2, 9], seed=0)
    fold_N = np.repeat([fold_of(key, FOLDS) for key in data.keys], data.sizes_U)
    whole = pooled.fit(data.phi_ND, data.arm_N, data.reward_N, 1)
    priors = crossfit(data.phi_ND, data.arm_N, data.reward_N, fold_N, 1, FOLDS, whole)
    changed = np.where(fold_N == 0, 1 - data.reward_N, data.reward_N)
    other = crossfit(data.phi_ND, data.arm_N, changed, fold_N, 1, FOLDS, whole)
    np.testing.assert_array_equal(priors.mean_FAD[0], other.mean_FAD[0])
    assert np.abs(priors.mean_FAD[1] - other.mean_FAD[1]).max() > 1e-3
