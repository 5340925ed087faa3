"""The content models: against a Gaussian process solved by brute force, at the edges, and in planted worlds."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from actors.bandits import pooled
from actors.content.models import ContentModel, by_cluster, by_provider, fit, log_likelihood
from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError, ModelError
from tests.provider_worlds import WORLDS, Rows, World, held_out

CLUSTER_P = np.array([0, 0, 1, 1, 1])
GROUP_D = np.array([0, 0, 0, 1])


def some(seed: int = 5, rows: int = 60) -> Rows:
    """Rows of the first four of five providers, in clusters that differ."""
    rng = np.random.default_rng(seed)
    provider_N = rng.integers(0, 4, rows)
    phi_ND = np.column_stack([np.ones(rows), rng.standard_normal((rows, 3))])
    theta_PD = np.array([[0.5, 0.2, 0.0, 0.1], [0.4, 0.3, 0.1, 0.0], [0.6, -0.3, 0.2, 0.1], [0.5, -0.2, 0.0, 0.3]])
    mean_N = (phi_ND * theta_PD[provider_N]).sum(axis=1)
    return Rows(phi_ND, provider_N, mean_N + 0.2 * rng.standard_normal(rows))


def covariance(phi_ND: Floats, nodes_LN: Sequence[Ints], precision_LG: Floats) -> Floats:
    """Of the rewards' means: two rows share the parameters of each level where they are of one node."""
    group_D = np.array([0, 1, 1, 2])  # the intercept alone
    levels = zip(nodes_LN, precision_LG, strict=True)
    found: Floats = sum((n[:, None] == n) * ((phi_ND / precision_G[group_D]) @ phi_ND.T) for n, precision_G in levels)
    return found


def nodes(provider_N: Ints) -> list[Ints]:
    """Of each row in each level: everyone, the cluster, the provider."""
    return [np.zeros_like(provider_N), CLUSTER_P[provider_N], provider_N]


def evidence(rows: Rows, precision_LG: Floats, noise: float) -> float:
    covariance_NN = covariance(rows.phi_ND, nodes(rows.provider_N), precision_LG)
    level_N = np.full(len(rows.reward_N), rows.reward_N.mean())
    return float(multivariate_normal(level_N, covariance_NN + noise * np.eye(len(level_N))).logpdf(rows.reward_N))


def fitted(rows: Rows) -> ContentModel:
    return by_provider(rows.phi_ND, rows.provider_N, rows.reward_N, CLUSTER_P, GROUP_D)


@pytest.mark.parametrize(("learn", "level"), [(by_provider, 2), (by_cluster, 1)])
def test_the_posteriors_are_those_of_the_joint_gaussian(learn: Callable[..., ContentModel], level: int) -> None:
    """θ itself integrated out: the predictions of a Gaussian process with the tree's covariance."""
    rows, new = some(), some(6, 20)
    new.provider_N[:6] = 4  # whom there are no rows of
    model = learn(rows.phi_ND, rows.provider_N, rows.reward_N, CLUSTER_P, GROUP_D)
    nodes_LN = nodes(np.append(rows.provider_N, new.provider_N))[: level + 1]
    both = covariance(np.vstack([rows.phi_ND, new.phi_ND]), nodes_LN, model.precision_LG)
    gain = both[60:, :60] @ np.linalg.inv(both[:60, :60] + model.posterior.noise * np.eye(60))
    mean = rows.reward_N.mean()
    found_N, spread_N = model.posterior.gaussian().moments(new.phi_ND, nodes_LN[-1][60:])
    assert found_N == pytest.approx(mean + gain @ (rows.reward_N - mean), abs=1e-9)
    assert spread_N**2 == pytest.approx(np.diagonal(both[60:, 60:] - gain @ both[:60, 60:]), abs=1e-9)


def test_spreads_and_noise_maximise_the_evidence() -> None:
    rows = some(rows=200)
    model = fitted(rows)
    best = evidence(rows, model.precision_LG, model.posterior.noise)
    for factor in (0.5, 2.0):
        assert evidence(rows, model.precision_LG, factor * model.posterior.noise) < best
        for level, group in np.ndindex(3, 3):
            other_LG = model.precision_LG.copy()
            other_LG[level, group] *= factor
            # The root's intercept is given. The fixed point ends 2 % from the maximum, which costs less than this.
            assert (level, group) == (0, 0) or evidence(rows, other_LG, model.posterior.noise) < best + 0.01


def test_a_tree_of_one_node_is_the_pooled_prior() -> None:
    rows = some(rows=200)
    zero_N = np.zeros(200, np.int64)
    found = fit(rows.phi_ND, zero_N, rows.reward_N, []).posterior
    expected = pooled.fit(rows.phi_ND, zero_N, rows.reward_N, 1, np.array([0, 1, 1, 1]))
    assert found.noise == pytest.approx(expected.noise, rel=1e-2)
    mean_D = np.linalg.solve(expected.precision_ADD[0], expected.shift_AD[0])
    assert found.gaussian().mean_AD[0] == pytest.approx(mean_D, abs=1e-3)


def test_an_unknown_provider_is_drawn_around_everyone() -> None:
    """The last row: as a provider without rows in a cluster without providers that have any."""
    rows = some()
    model = fitted(rows)
    alone = by_provider(rows.phi_ND, rows.provider_N, rows.reward_N, np.append(CLUSTER_P, 2), GROUP_D)
    belief, other = model.posterior.gaussian(), alone.posterior.gaussian()
    assert other.mean_AD[5] == pytest.approx(belief.mean_AD[-1], abs=1e-9)
    assert belief.mean_AD[6] == pytest.approx(belief.mean_AD[4], abs=1e-9)  # both new, of the second cluster
    spread_AD = (belief.factor_ADD**2).sum(axis=2)
    assert (spread_AD[-1] > spread_AD[4]).all()  # of a known cluster more is known
    assert (spread_AD[4] > spread_AD[:4].max(axis=0)).all()
    assert spread_AD[6] == pytest.approx(spread_AD[4], abs=1e-9)
    assert not model.posterior.data_precision_ADD[4:].any()


def test_rows_of_unknown_providers_teach_nothing_and_order_says_nothing() -> None:
    rows = some()
    order_N = np.random.default_rng(0).permutation(70)
    phi_ND = np.vstack([rows.phi_ND, np.ones((10, 4))])[order_N]
    provider_N, reward_N = (
        np.append(rows.provider_N, np.full(10, -1))[order_N],
        np.append(rows.reward_N, np.zeros(10))[order_N],
    )
    for learn in (by_cluster, by_provider):
        found, same = (
            learn(phi_ND, provider_N, reward_N, CLUSTER_P),
            learn(rows.phi_ND, rows.provider_N, rows.reward_N, CLUSTER_P),
        )
        assert found.posterior.gaussian().mean_AD == pytest.approx(same.posterior.gaussian().mean_AD, abs=1e-9)


def test_after_a_change_other_rows_are_learned_at_the_same_scales() -> None:
    """Of a new provider of the second cluster too, who is its cluster's row 5 + 1."""
    rows, other = some(), some(9)
    model = fitted(rows)
    assert model.again(rows.phi_ND, rows.provider_N, rows.reward_N, GROUP_D).posterior.gaussian().mean_AD == (
        pytest.approx(model.posterior.gaussian().mean_AD, abs=1e-12)
    )
    row_N = np.where(other.provider_N == 3, 6, other.provider_N)
    again = model.again(other.phi_ND, row_N, other.reward_N, GROUP_D)
    assert (again.precision_LG == model.precision_LG).all()
    leaves_N = np.where(row_N == 6, 3, row_N)  # to the tree the same place: a leaf of the second cluster
    nodes_LN = nodes(leaves_N)
    covariance_NN = covariance(other.phi_ND, nodes_LN, model.precision_LG)
    mean = other.reward_N.mean()
    gain = covariance_NN @ np.linalg.inv(covariance_NN + model.posterior.noise * np.eye(60))
    found_N, _ = again.posterior.gaussian().moments(other.phi_ND, row_N)
    assert found_N == pytest.approx(mean + gain @ (other.reward_N - mean), abs=1e-9)


def test_the_likelihood_of_rows() -> None:
    rows = some()
    posterior = fitted(rows).posterior
    belief = posterior.gaussian()
    arm_N = np.where(np.arange(60) < 5, -1, rows.provider_N)
    mean_N, spread_N = belief.moments(rows.phi_ND, arm_N)
    expected_N = norm(mean_N, np.sqrt(spread_N**2 + posterior.noise)).logpdf(rows.reward_N)
    found_N = log_likelihood(belief, posterior.noise, rows.phi_ND, arm_N, rows.reward_N)
    assert found_N == pytest.approx(expected_N)


def test_what_cannot_be_fitted() -> None:
    rows = some()
    with pytest.raises(EvidenceError, match="known providers"):
        by_provider(rows.phi_ND, np.full(60, -1), rows.reward_N, CLUSTER_P)
    with pytest.raises(EvidenceError, match="known providers"):
        by_cluster(rows.phi_ND, np.full(60, -1), rows.reward_N, np.empty(0, np.int64))
    with pytest.raises(EvidenceError, match="finite"):
        by_provider(rows.phi_ND, rows.provider_N, np.where(rows.provider_N == 2, np.nan, 0.5), CLUSTER_P)
    for learn in (by_cluster, by_provider):
        with pytest.raises(ModelError, match="provider 3"):
            learn(rows.phi_ND, rows.provider_N, rows.reward_N, CLUSTER_P[:1])
        with pytest.raises(ModelError, match="from -1"):
            learn(rows.phi_ND, rows.provider_N, rows.reward_N, CLUSTER_P - 1)


def test_with_little_data_the_provider_in_its_cluster_predicts_best() -> None:
    """Twenty worlds of 24 providers with 15 rows: 17 are won by chance with a probability of 0.0013."""
    found = [held_out(World.draw(seed, *WORLDS["clusters"]), 15, 100 + 2 * seed) for seed in range(20)]
    for other in ("everyone", "own", "flat"):
        assert sum(run["provider"] > run[other] for run in found) >= 17, other


def test_where_providers_are_equal_a_model_of_each_costs_little() -> None:
    """Mean over twenty worlds; the limit is a tenth of what a model of its own costs there."""
    found = [held_out(World.draw(seed, *WORLDS["equal"]), 15, 100 + 2 * seed) for seed in range(20)]
    loss, own = (np.mean([run["everyone"] - run[name] for run in found]) for name in ("provider", "own"))
    assert loss < 0.1 * own
