"""The predefined members against direct solves and numbers by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.members import Custom, Shared, Uniform
from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import BanditSettings, FeatureSettings, LawSettings, RewardKind, WeightSettings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tests.compose_cases import changed
from tests.features_samples import labelled, shop
from tune.predefined import Design, Predefined


class Means:
    """A user's own model: the mean reward of each item so far."""

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        self.shape = (arms, dimension, items)
        self.sum_I, self.count_I = np.zeros(items), np.zeros(items)

    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return self.sum_I[item_K] / np.maximum(self.count_I[item_K], 1), np.full(len(item_K), 0.1)

    def learn(self, phi_D: Floats, arm: int, item: int, reward: float) -> None:
        self.sum_I[item] += reward
        self.count_I[item] += 1

    def arrays(self) -> dict[str, Any]:
        return {"sum": self.sum_I, "count": self.count_I}

    def load(self, arrays: dict[str, Any]) -> None:
        self.sum_I, self.count_I = arrays["sum"], arrays["count"]


def fitted(dataset: Dataset, kind: RewardKind | None = None, **bandits: Any) -> Predefined:
    feature_map = FeatureMap.fit(dataset, np.arange(400), FeatureSettings(), 0)
    design = Design.of(feature_map, dataset.events.slice(0, 400), kind or RewardKind())
    return Predefined(design, feature_map, BanditSettings(**bandits))


def mean_of(prior: Prior) -> Floats:
    """The posterior mean with which a learner starts to decide."""
    ensemble = Ensemble((prior,), np.array([0.5]), LawSettings(), WeightSettings(), prior.shift_AD.shape[1], "")
    (member,) = learn.publish(learn.start(ensemble)).members
    assert isinstance(member, Shared)
    return member.posterior.mean_AD


@pytest.mark.parametrize("make", [shop, labelled], ids=["joint", "arms"])
def test_linear_is_the_ridge_solution_of_the_fit_rows(make: Any) -> None:
    """As least squares with the prior as extra rows: sqrt(λ)(θ_i − m_i), sqrt(1)(θ_0 − mean reward)."""
    dataset = make()
    own = fitted(dataset)
    member = next(m for m in own.members() if m.name == "linear")
    assert isinstance(member, Prior)
    acted = actions(own.feature_map, dataset.events.slice(0, 400))
    reward_N = dataset.events["reward"].to_numpy()[:400]
    ridge, noise = own.linear.ridge, own.linear.noise
    d = own.feature_map.dimension
    weight_D = np.sqrt([1.0, *[ridge] * (d - 1)])
    target_D = np.array([reward_N.mean(), *[0.0] * (d - 1)])
    found_AD = mean_of(member)
    assert len(found_AD) == own.feature_map.arms
    for arm in range(own.feature_map.arms):
        mine = acted.arm_N == arm
        rows = np.concatenate([acted.phi_ND[mine] / np.sqrt(noise), np.diag(weight_D)])
        goal = np.concatenate([reward_N[mine] / np.sqrt(noise), weight_D * target_D])
        np.testing.assert_allclose(found_AD[arm], np.linalg.lstsq(rows, goal, rcond=None)[0], atol=1e-8)


def test_popularity_by_hand() -> None:
    """a: 4 of 4, b: 0 of 4, c never seen. Mean 1/2, noise 1/4; between items 1/4 − 1/4·2/8 = 3/16.

    Precision a: 16/3 + 4·4 = 64/3; shift a: 8/3 + 16 = 56/3; mean a 7/8. b: (8/3)/(64/3) = 1/8. c and unknown: 1/2.
    """
    own = fitted(labelled())
    design = Design(
        np.ones((8, 1)), np.zeros(8, np.int64), np.repeat([0, 1], 4), np.repeat([1.0, 0.0], 4), np.full(8, -1)
    )
    popularity = next(m for m in replace(own, design=design).members() if m.name == "popularity")
    assert isinstance(popularity, Prior)
    assert popularity.view == "items"
    np.testing.assert_allclose(popularity.precision_ADD.ravel(), [64 / 3, 64 / 3, 16 / 3, 16 / 3])
    np.testing.assert_allclose(mean_of(popularity).ravel(), [7 / 8, 1 / 8, 1 / 2, 1 / 2])


def test_forgetting_starts_from_as_many_rows_as_it_will_ever_remember() -> None:
    own = fitted(shop(), forgetting_half_life=100.0)
    linear, forgetting = (next(m for m in own.members() if m.name == n) for n in ("linear", "forgetting"))
    assert isinstance(linear, Prior)
    assert isinstance(forgetting, Prior)
    share = 100 / np.log(2) / 400  # Σ 0.5^(i/100) of an endless past, over the 400 rows there are
    assert sum(0.5 ** (i / 100) for i in range(100_000)) / 400 == pytest.approx(share, rel=0.01)
    np.testing.assert_allclose(forgetting.precision_ADD, share * linear.precision_ADD)
    np.testing.assert_allclose(mean_of(forgetting), mean_of(linear), atol=1e-8)
    assert (linear.half_life, forgetting.half_life) == (None, 100.0)
    untempered = next(m for m in fitted(shop()).members() if m.name == "forgetting")
    assert isinstance(untempered, Prior)
    np.testing.assert_array_equal(untempered.precision_ADD, linear.precision_ADD)


def test_the_users_own_model_comes_last_with_the_shape_of_the_data() -> None:
    own = fitted(shop(), predefined=("uniform", "linear"), custom=("tests.test_predefined:Means",))
    uniform, linear, custom = own.members()
    assert isinstance(uniform, Uniform)
    assert linear.name == "linear"
    assert isinstance(custom, Custom)
    assert (custom.name, custom.predefined) == ("means", True)
    assert custom.shape == custom.model.shape == (1, own.feature_map.dimension, 30)  # type: ignore[attr-defined]


def test_rewards_are_scaled_by_their_declared_range_and_absent_ones_are_the_default() -> None:
    dataset = shop()
    rewards = [None, -1.0, 3.0, 1.0, *[0.0] * 596]
    design = fitted(changed(dataset, reward=rewards), RewardKind(low=-1, high=3, default=2)).design
    assert len(design) == 400
    np.testing.assert_allclose(design.reward_N[:5], [0.75, 0, 1, 0.5, 0.25])


def test_no_events_is_one_clear_error() -> None:
    own = fitted(shop())
    nothing = Design.of(own.feature_map, shop().events.slice(0, 0), RewardKind())
    with pytest.raises(EvidenceError, match="no rewarded events"):
        replace(own, design=nothing).members()


def test_prior_strength_reaches_every_fitted_member() -> None:
    plain, weak = fitted(shop()).members(), fitted(shop(), prior_strength=0.5).members()
    scaled = [(one, two) for one, two in zip(plain, weak, strict=True) if isinstance(one, Prior)]
    assert [one.name for one, _ in scaled] == ["popularity", "linear", "forgetting"]
    for one, two in scaled:
        assert isinstance(two, Prior)
        np.testing.assert_allclose(two.precision_ADD, 0.5 * one.precision_ADD)
        np.testing.assert_allclose(two.shift_AD, 0.5 * one.shift_AD)
