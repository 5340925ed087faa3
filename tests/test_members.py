from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from scipy import stats

from actors.bandits import law, members
from actors.bandits.history import History
from actors.bandits.members import Model, Shared, Uniform, View, custom
from actors.bandits.noise import Noise
from actors.bandits.posterior import Gaussian
from actors.features.features import Features, Floats, Ints
from actors.features.kin import Kin
from cluster.errors import ModelError
from tests import bandit_cases as cases

HERE = "tests.test_members"
SHAPE = (1, 3, 2)


class Counts:
    """A user's own model: mean reward per item with a Beta(1, 1)."""

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        self.hits_I, self.tries_I = np.zeros(items + 1), np.zeros(items + 1)

    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        belief = stats.beta(1 + self.hits_I[item_K], 1 + self.tries_I[item_K] - self.hits_I[item_K])
        return belief.mean(), belief.std()

    def learn(self, phi_D: Floats, arm: int, item: int, reward: float) -> None:
        self.hits_I[item] += reward
        self.tries_I[item] += 1

    def arrays(self) -> dict[str, Floats]:
        return {"hits": self.hits_I, "tries": self.tries_I}

    def load(self, arrays: dict[str, Floats]) -> None:
        self.hits_I, self.tries_I = arrays["hits"].copy(), arrays["tries"].copy()


class Nothing:
    def __init__(self, arms: int, dimension: int, items: int) -> None:
        pass


class Raises(Nothing):
    def __init__(self, arms: int, dimension: int, items: int) -> None:
        raise KeyError("no licence")


class Narrow(Counts):
    def __init__(self, arms: int) -> None:
        pass


class Wrong(Counts):
    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return np.zeros(len(arm_K) + 1), np.zeros(len(arm_K) + 1)


class Negative(Counts):
    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return np.zeros(len(arm_K)), -np.ones(len(arm_K))


def test_uniform_has_no_scores() -> None:
    with pytest.raises(ModelError, match="uniform has no scores"):
        members.scores(Uniform(), cases.features(np.random.default_rng(0), 2, 3), History.empty(3), Noise(1, 4), 1.0)


def test_popularity_sees_items_and_nothing_else() -> None:
    """Two items of known mean; the third is unknown and gets the last row."""
    rng = np.random.default_rng(0)
    belief = cases.posterior(rng, 3, 1)
    decision = cases.features(rng, 3, 4)
    decision.item_K[2] = -1
    found = members.scores(Shared("popularity", belief, "items"), decision, History.empty(4), Noise(1, 4), 0.0)
    np.testing.assert_allclose(found.mean_K, belief.mean_AD[[0, 1, -1], 0])
    assert not found.deviation_PK.any()


def test_an_own_model_scores_learns_and_is_loaded() -> None:
    own = custom(f"{HERE}:Counts", SHAPE)
    assert own.name == "counts"
    assert own.predefined
    assert isinstance(own.model, Model)
    for reward in (1.0, 1.0, 0.0):
        own.model.learn(np.ones(3), 0, 1, reward)
    decision = cases.features(np.random.default_rng(0), 2, 3)
    again = custom(f"{HERE}:Counts", SHAPE, own.model.arrays(), name="mine", predefined=False)
    assert (again.name, again.predefined) == ("mine", False)
    found = members.scores(again, decision, History.empty(3), Noise(1, 50_000), 2.0)
    # Beta(1, 1) and Beta(3, 2): means 1/2 and 3/5, variances 1/12 and 1/25; twice the deviation.
    np.testing.assert_allclose(found.mean_K, [0.5, 0.6])
    np.testing.assert_allclose(found.deviation_PK.std(0), [2 / 12**0.5, 0.4], rtol=0.02)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("no_such_module:Model", "No module named"),
        (f"{HERE}:Absent", "Absent"),
        (HERE, "expected an importable module:Class"),
        ("", "expected an importable module:Class"),
        (":Counts", "expected an importable module:Class"),
        (f"{HERE}:Nothing", r"lacks \['scores', 'learn', 'arrays', 'load'\]"),
        (f"{HERE}:Narrow", "TypeError"),
        (f"{HERE}:Raises", "KeyError: 'no licence'"),
        (f"{HERE}:SHAPE", "not callable"),
    ],
)
def test_a_bad_own_model_is_named(source: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        custom(source, SHAPE)


@pytest.mark.parametrize("name", ["Wrong", "Negative"])
def test_scores_that_break_the_protocol_are_refused(name: str) -> None:
    decision = cases.features(np.random.default_rng(0), 2, 3)
    with pytest.raises(ModelError, match="expected 2 means and as many standard deviations"):
        members.scores(custom(f"{HERE}:{name}", SHAPE), decision, History.empty(3), Noise(1, 4), 1.0)


def kindred(providers: Ints, clusters: Ints, dimension: int, seed: int = 0) -> Features:
    """Items of these rows of parameters."""
    count = len(providers)
    none = np.zeros((count, 0))
    kin = Kin(providers, clusters, none.astype(np.int64), none, none, np.zeros(count, np.int64), none)
    return replace(cases.features(np.random.default_rng(seed), count, dimension), kin=kin)


def covariance(belief: Gaussian, phi_KD: Floats, row_K: Ints) -> Floats:
    """Of the K scores: φᵀLLᵀφ' where two items share their parameters, else 0."""
    found = np.zeros((len(row_K), len(row_K)))
    for k, phi_D in enumerate(phi_KD):
        for j, other_D in enumerate(phi_KD):
            if row_K[k] % len(belief.mean_AD) == row_K[j] % len(belief.mean_AD):
                factor_DD = belief.factor_ADD[row_K[k]]
                found[k, j] = phi_D @ factor_DD @ factor_DD.T @ other_D
    return found


def test_items_of_one_provider_share_its_parameters() -> None:
    """Means are exact. The covariance of 2^17 draws, standardised: an entry's error has a deviation of at most
    √(2/2^17) = 0.0039, so that none of 400 pairs passes 5.5 deviations but once in 60,000 tries."""
    rng = np.random.default_rng(3)
    belief, particles, scale = cases.posterior(rng, 5, 3), 2**17, 0.8
    row_K = np.array([2, 0, -1, 2, 0, 0, 3, 2, -1, 4] * 2)
    for view, decision in (("provider", kindred(row_K, row_K - 1, 3)), ("cluster", kindred(row_K - 1, row_K, 3))):
        found = members.scores(
            Shared("member", belief, cast(View, view)), decision, History.empty(3), Noise(9, particles), scale
        )
        mean_K = np.einsum("kd,kd->k", decision.phi_KD, belief.mean_AD[row_K])
        np.testing.assert_allclose(found.mean_K, mean_K, rtol=1e-12)
        wanted_KK = scale**2 * covariance(belief, decision.phi_KD, row_K)
        size_K = np.sqrt(np.diag(wanted_KK))
        drawn_KK = found.deviation_PK.T.astype(np.float64) @ found.deviation_PK / particles
        away_KK = (drawn_KK - wanted_KK) / np.outer(size_K, size_K)
        assert np.abs(away_KK).max() < 5.5 * np.sqrt(2 / particles)


def test_parameters_are_drawn_where_many_items_share_them() -> None:
    """40 items of row 1 (above BLOCK), 3 of row 0 and one alone: the same law."""
    rng = np.random.default_rng(4)
    belief, particles = cases.posterior(rng, 3, 4), 2**17
    row_K = np.array([1] * 40 + [0, 0, 0, 2])[rng.permutation(44)]
    decision = kindred(row_K, row_K, 4)
    found = members.scores(Shared("provider", belief, "provider"), decision, History.empty(4), Noise(2, particles), 1.0)
    wanted_KK = covariance(belief, decision.phi_KD, row_K)
    size_K = np.sqrt(np.diag(wanted_KK))
    drawn_KK = found.deviation_PK.T.astype(np.float64) @ found.deviation_PK / particles
    assert np.abs((drawn_KK - wanted_KK) / np.outer(size_K, size_K)).max() < 6 * np.sqrt(2 / particles)


def test_items_that_say_the_same_have_the_same_score() -> None:
    """Parameters of each provider and one context for all: the covariance is singular."""
    rng = np.random.default_rng(5)
    belief, row_K = cases.posterior(rng, 4, 6), np.array([0, 1, 0, 1, 1, 3, 0])
    decision = kindred(row_K, row_K, 6)
    alike = replace(decision, phi_KD=np.broadcast_to(decision.phi_KD[0], decision.phi_KD.shape))
    found = members.scores(Shared("provider", belief, "provider"), alike, History.empty(6), Noise(2, 64), 1.0)
    for row in (0, 1):
        same_PK = found.deviation_PK[:, row_K == row]
        np.testing.assert_allclose(same_PK, same_PK[:, :1].repeat(same_PK.shape[1], 1), atol=1e-3)
    zero = replace(decision, phi_KD=np.zeros_like(decision.phi_KD))
    nothing = members.scores(Shared("provider", belief, "provider"), zero, History.empty(6), Noise(2, 64), 1.0)
    assert not nothing.deviation_PK.any()


def test_without_kin_an_item_is_of_nobody() -> None:
    """The last row of parameters; independent draws are those of a member with parameters per item."""
    rng = np.random.default_rng(6)
    belief, decision = cases.posterior(rng, 3, 4), cases.features(rng, 1, 4)
    found = members.scores(Shared("cluster", belief, "cluster"), decision, History.empty(4), Noise(1, 64), 1.0)
    arms = replace(decision, arm_K=np.array([-1]))
    alone = members.scores(Shared("linear", belief, "features"), arms, History.empty(4), Noise(1, 64), 1.0)
    np.testing.assert_allclose(found.mean_K, alone.mean_K, rtol=1e-12)
    np.testing.assert_allclose(found.deviation_PK, alone.deviation_PK, rtol=1e-5)


def test_what_is_not_finite_of_a_provider_chooses_nothing() -> None:
    rng = np.random.default_rng(7)
    belief, row_K = cases.posterior(rng, 3, 4), np.array([0, 1, 0])
    decision = kindred(row_K, row_K, 4)
    published = cases.published(Shared("provider", belief, "provider"), cases.shared(rng, 1, 4), dimension=4)
    law.probabilities(published, decision, None, 1)
    belief.factor_ADD[1] = np.nan
    broken = replace(
        published, members=(replace(published.members[0], posterior=replace(belief)), published.members[1])
    )
    with pytest.raises(ModelError, match="not finite"):
        law.probabilities(broken, decision, None, 1)
