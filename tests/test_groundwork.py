"""What a composition stands on sees the fit part and nothing else."""

import numpy as np
import pytest

from actors.bandits.members import Uniform
from cluster.config import Settings
from cluster.errors import EvidenceError, ModelError
from tests.compose_cases import changed, two_kinds
from tests.features_samples import shop
from tune.groundwork import Groundwork
from tune.split import parts


def test_nothing_outside_fit_reaches_the_feature_map_or_the_members() -> None:
    dataset = shop()
    work = Groundwork.of(dataset, Settings())
    reward_N = dataset.events["reward"].to_numpy().copy()
    item_N = np.array(dataset.events["item_id"].to_pylist(), object)
    outside = np.setdiff1d(np.arange(len(reward_N)), work.split.fit)
    reward_N[outside] = 1 - reward_N[outside]
    item_N[outside] = "i0"
    other = Groundwork.of(changed(dataset, reward=reward_N, item_id=item_N.tolist()), Settings())
    assert other.feature_map.fingerprint == work.feature_map.fingerprint
    for one, two in zip(work.predefined.members(), other.predefined.members(), strict=True):
        assert one.name == two.name
        if not isinstance(one, Uniform):
            np.testing.assert_array_equal(one.shift_AD, two.shift_AD)  # type: ignore[union-attr]
    wider = other.fitted(np.concatenate([work.split.fit, work.split.stop]))
    assert len(wider.design) == len(work.split.fit) + len(work.split.stop)


def test_events_come_in_time_order_and_members_on_equal_terms() -> None:
    settings = Settings.model_validate({"rewards": {"reward": {"low": -1, "high": 3}}, "bandits": {"history": 5}})
    work = Groundwork.of(two_kinds(users=60), settings)
    shuffled = np.random.default_rng(0).permutation(work.split.select)
    assert work.events(shuffled).equals(work.events(work.split.select))
    ensemble = work.ensemble(*work.predefined.members())
    assert ensemble.values_M.tolist() == [0.5] * 4
    assert (ensemble.low, ensemble.high, ensemble.history) == (-1, 3, 5)
    assert ensemble.fingerprint == work.feature_map.fingerprint


def test_facts_by_hand() -> None:
    dataset = two_kinds(users=60, rows=10)
    work = Groundwork.of(dataset, Settings())
    facts = work.facts()
    counted = [facts[name] for name in ("format", "events", "items", "users", "clients")]
    assert counted == ["feedback", 600, 6, 60, 1]
    assert facts["parts"]["world"] == 120
    mean = dataset.events["reward"].to_numpy()[work.split.fit].mean()
    assert facts["reward_mean"] == pytest.approx(mean)


def test_too_little_data_is_one_clear_error() -> None:
    lonely = two_kinds(users=1, rows=4)
    seed = next(seed for seed in range(20) if not len(parts(lonely, seed).fit))
    with pytest.raises(ModelError, match="found 0 rows and 6 items: import more events"):
        Groundwork.of(lonely, Settings(seed=seed))


def test_rewards_outside_the_declared_range_name_the_settings() -> None:
    dataset = two_kinds(users=60)
    reward_N = dataset.events["reward"].to_numpy()
    stars = changed(dataset, reward=5 * reward_N - 1)
    with pytest.raises(
        EvidenceError, match=r"from -1 to 4, outside \[0, 1\].*rewards.reward.low and rewards.reward.high"
    ):
        Groundwork.of(stars, Settings())
    work = Groundwork.of(stars, Settings.model_validate({"rewards": {"reward": {"low": -1, "high": 4}}}))
    plain = Groundwork.of(dataset, Settings())
    np.testing.assert_allclose(work.predefined.design.reward_N, plain.predefined.design.reward_N)


def test_rewards_of_several_kinds_are_not_learned_as_one() -> None:
    dataset = two_kinds(users=60)
    kinds = np.where(np.arange(len(dataset.events)) % 2, "click", "purchase").tolist()
    with pytest.raises(EvidenceError, match=r"2 kinds \(click, purchase\), and models learn from one"):
        Groundwork.of(changed(dataset, reward_kind=kinds), Settings())
    assert len(Groundwork.of(changed(dataset, reward_kind=["click"] * len(kinds)), Settings()).predefined.design)
