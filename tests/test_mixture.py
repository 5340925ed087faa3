"""The reference works with parameters: one long vector θ of all arms with covariance Σ_c = blockdiag(LLᵀ) + VVᵀ."""

import copy
import gc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import multivariate_normal

from actors.bandits.conditioned import systematic
from actors.bandits.history import History
from actors.bandits.mixture import Mixture
from actors.bandits.noise import Noise
from actors.features.features import Features
from cluster.errors import ModelError
from tests import bandit_cases as cases


def rows(phi_ND: np.ndarray, arm_N: np.ndarray, arms: int) -> np.ndarray:
    """Each row at its arm's place in the long vector, (N, A·D)."""
    long_NAD = np.zeros((len(phi_ND), arms, phi_ND.shape[1]))
    long_NAD[np.arange(len(phi_ND)), arm_N] = phi_ND
    return long_NAD.reshape(len(phi_ND), arms * phi_ND.shape[1])


def prior(model: Mixture, c: int) -> tuple[np.ndarray, np.ndarray]:
    arms, dimension = model.factor_ADD.shape[:2]
    covariance = model.ranks_CADR[c].reshape(arms * dimension, -1)
    covariance = covariance @ covariance.T
    for a in range(arms):
        block = slice(a * dimension, (a + 1) * dimension)
        covariance[block, block] += model.factor_ADD[a] @ model.factor_ADD[a].T
    return model.means_CAD[c].ravel(), covariance


def noises(model: Mixture, past: History) -> np.ndarray:
    """The variance of each row's reward: σ², or the dispersion times m(1 − m), at least 0.01, with m in [0, 1]."""
    if model.base_AD is None:
        return np.full(len(past), model.noise)
    means = [
        min(max(float(phi @ model.base_AD[arm]), 0.0), 1.0) for phi, arm in zip(past.phi_ND, past.arm_N, strict=True)
    ]
    return model.noise * np.array([max(m * (1 - m), 0.01) for m in means])


def conditioned(model: Mixture, c: int, past: History) -> tuple[np.ndarray, np.ndarray]:
    """Bayesian linear regression in information form."""
    mean, covariance = prior(model, c)
    design = rows(past.phi_ND, past.arm_N, len(model.factor_ADD))
    weighted = design.T / noises(model, past)
    total = np.linalg.inv(covariance) + weighted @ design
    shift = np.linalg.solve(covariance, mean) + weighted @ past.reward_N
    return np.linalg.solve(total, shift), np.linalg.inv(total)


def responsibilities(model: Mixture, past: History, context_X: np.ndarray) -> np.ndarray:
    code = model.encoder_HX @ context_X
    logits = []
    for c, prototype in enumerate(model.prototypes_CH):
        logit = code @ prototype / np.linalg.norm(code) / np.linalg.norm(prototype) / model.temperature
        if len(past):
            mean, covariance = prior(model, c)
            design = rows(past.phi_ND, past.arm_N, len(model.factor_ADD))
            total = design @ covariance @ design.T + np.diag(noises(model, past))
            logit += multivariate_normal(design @ mean, total).logpdf(past.reward_N)
        logits.append(logit)
    return np.asarray(softmax(logits))


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3]), st.integers(0, 9), st.integers(1, 4), st.booleans())
def test_responsibilities_and_means_are_those_of_direct_regression(
    seed: int, arms: int, n: int, count: int, binomial: bool
) -> None:
    rng = np.random.default_rng(seed)
    model, past = cases.mixture(rng, count, arms, 3), cases.history(rng, n, arms, 3)
    if binomial:
        model = replace(model, base_AD=0.3 * rng.normal(size=(arms, 3)))
    decision = replace(cases.features(rng, 4, 3), arm_K=rng.integers(0, arms, 4))
    found = model.condition(past, decision.context_X)
    np.testing.assert_allclose(found.responsibilities_C, responsibilities(model, past, decision.context_X), atol=1e-9)
    design = rows(decision.phi_KD, decision.arm_K, arms)
    expected = [design @ conditioned(model, c, past)[0] for c in range(count)]
    np.testing.assert_allclose(found.means(decision), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("binomial", [False, True])
@pytest.mark.parametrize("arms", [1, 3])
@pytest.mark.parametrize("n", [0, 6])
def test_draws_have_the_exact_posterior_covariance(arms: int, n: int, binomial: bool) -> None:
    """One candidate, 200,000 particles, Matheron's rule against the direct posterior; 5 standard errors."""
    rng, particles, scale = np.random.default_rng(arms + n), 200_000, 0.8
    model, past = cases.mixture(rng, 1, arms, 3), cases.history(rng, n, arms, 3)
    if binomial:
        model = replace(model, base_AD=0.3 * rng.normal(size=(arms, 3)))
    decision = replace(cases.features(rng, 4, 3), arm_K=rng.integers(0, arms, 4))
    found = model.condition(past, decision.context_X, scale).scores(decision, Noise(9, particles))
    mean, covariance = conditioned(model, 0, past)
    design = rows(decision.phi_KD, decision.arm_K, arms)
    covariance_KK = scale**2 * design @ covariance @ design.T
    variance_K = np.diagonal(covariance_KK)
    np.testing.assert_allclose(found.mean_K, design @ mean, rtol=1e-8)
    assert (abs(found.deviation_PK.mean(0)) < 5 * np.sqrt(variance_K / particles)).all()
    error_KK = np.sqrt((np.outer(variance_K, variance_K) + covariance_KK**2) / particles)
    assert (abs(found.deviation_PK.T @ found.deviation_PK / particles - covariance_KK) < 5 * error_KK).all()


def test_particles_are_shared_out_by_responsibility() -> None:
    """Without variance inside candidates a particle is its candidate's mean: counts of pairs within one of H·share."""
    rng = np.random.default_rng(3)
    model = cases.mixture(rng, 3, 1, 3)
    model = replace(model, factor_ADD=0 * model.factor_ADD, ranks_CADR=0 * model.ranks_CADR)
    decision = cases.features(rng, 2, 3)
    found = model.condition(History.empty(3), decision.context_X).scores(decision, Noise(1, 500))
    shares = responsibilities(model, History.empty(3), decision.context_X)
    means_CK = model.means_CAD[:, 0] @ decision.phi_KD.T
    np.testing.assert_allclose(found.mean_K, shares @ means_CK)
    score_PK = found.mean_K + found.deviation_PK
    counts = [np.isclose(score_PK, mean_K).all(1).sum() for mean_K in means_CK]
    assert sum(counts) == 500
    assert (abs(np.array(counts) / 2 - 250 * shares) <= 1).all()


def test_exploration_scales_all_that_is_unknown() -> None:
    """Which candidate and what it draws alike: deviations are proportional to α, means do not depend on it."""
    rng = np.random.default_rng(4)
    model, decision = cases.mixture(rng, 3, 1, 3), cases.features(rng, 4, 3)
    past = cases.history(rng, 5, 1, 3)
    none, one, two = (
        model.condition(past, decision.context_X, scale).scores(decision, Noise(1, 64)) for scale in (0.0, 1.0, 2.0)
    )
    half = replace(model, exploration=0.5).condition(past, decision.context_X, 2.0).scores(decision, Noise(1, 64))
    np.testing.assert_allclose(half.deviation_PK, one.deviation_PK)
    assert not none.deviation_PK.any()
    assert one.deviation_PK.any()
    np.testing.assert_allclose(two.deviation_PK, 2 * one.deviation_PK, atol=1e-12)
    np.testing.assert_allclose(two.mean_K, none.mean_K)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_systematic_counts_are_within_one(weights: list[float], draws: int, offset: float) -> None:
    shares = np.array(weights) + 1e-3
    shares /= shares.sum()
    drawn = systematic(shares, draws, offset)
    assert len(drawn) == draws
    assert (np.diff(drawn) >= 0).all()
    assert (abs(np.bincount(drawn, minlength=len(shares)) - draws * shares) <= 1 + 1e-9).all()


def test_evidence_is_kept_as_long_as_its_history() -> None:
    rng = np.random.default_rng(5)
    model, past = cases.mixture(rng, 2, 1, 3), cases.history(rng, 4, 1, 3)
    assert model.evidence(past) is model.evidence(past)
    assert len(model._evidence) == 1
    assert "_evidence" not in copy.deepcopy(model).__dict__
    del past
    gc.collect()
    assert len(model._evidence) == 0


def test_a_history_changes_a_users_decisions_alone() -> None:
    rng = np.random.default_rng(6)
    model, decision = cases.mixture(rng, 2, 1, 3), cases.features(rng, 3, 3)
    before = model.condition(History.empty(3), decision.context_X).means(decision)
    model.condition(cases.history(rng, 9, 1, 3), decision.context_X).means(decision)
    assert np.array_equal(before, model.condition(History.empty(3), decision.context_X).means(decision))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"factor_ADD": np.eye(2)[None]}, "do not fit factor"),
        ({"names_C": ("one",)}, "as many names"),
        ({"prototypes_CH": np.ones((1, 2))}, "prototypes"),
        ({"noise": 0.0}, "noise, temperature and least variance above 0"),
        ({"temperature": 0.0}, "noise, temperature and least variance above 0"),
        ({"encoder_HX": np.full((2, 3), np.inf)}, "must be finite"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(cases.mixture(np.random.default_rng(0), 2, 1, 3), **changes)


def test_a_context_without_length_is_similar_to_none() -> None:
    model = cases.mixture(np.random.default_rng(0), 4, 1, 3)
    np.testing.assert_allclose(model.condition(History.empty(3), np.zeros(3)).responsibilities_C, 0.25)


def test_unknown_items_use_the_last_parameter_row() -> None:
    rng = np.random.default_rng(7)
    model, decision = cases.mixture(rng, 2, 3, 3), cases.features(rng, 2, 3)
    unknown, last = (
        Features(decision.phi_KD, np.full(2, arm), decision.item_K, decision.key_K, decision.context_X)
        for arm in (-1, 2)
    )
    one, two = (model.condition(History.empty(3), d.context_X).scores(d, Noise(1, 16)) for d in (unknown, last))
    assert np.array_equal(one.mean_K, two.mean_K)
    assert np.array_equal(one.deviation_PK, two.deviation_PK)
