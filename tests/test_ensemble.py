import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits import law, learn
from actors.bandits.ensemble import Admission, Ensemble
from actors.bandits.members import Uniform, custom
from actors.bandits.residual import Residual
from actors.bandits.shares import ItemWeights
from cluster.errors import ModelError
from tests import bandit_cases as cases


def through_json(ensemble: Ensemble) -> Ensemble:
    return Ensemble.load(ensemble.arrays(), json.loads(json.dumps(ensemble.facts())))


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 6]), st.integers(0, 3))
def test_what_is_loaded_decides_as_what_was_saved(seed: int, arms: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    own = custom("tests.test_members:Counts", (arms, 4, 5), name="mine", predefined=False)
    own.model.learn(np.ones(4), 0, 2, 1.0)
    histories = {f"user {u}": cases.history(rng, int(rng.integers(0, 7)), arms, 4) for u in range(users)}
    ensemble = cases.ensemble(rng, arms=arms, low=-1.0, high=4.0, histories=histories)
    ensemble = replace(ensemble, members=(*ensemble.members, own), values_M=np.append(ensemble.values_M, 0.2))
    ensemble = replace(ensemble, errors_M=rng.uniform(0.01, 0.1, len(ensemble.names)) if users else None)
    again = through_json(ensemble)
    assert again.facts() == ensemble.facts()
    assert {n: a.tobytes() for n, a in again.arrays().items()} == {n: a.tobytes() for n, a in ensemble.arrays().items()}
    decision = cases.features(rng, 5, 4, arms > 1)
    for user in (None, *histories):
        one, two = (
            law.probabilities(learn.publish(learn.start(e)), decision, e.histories.get(user or ""), 5)
            for e in (ensemble, again)
        )
        assert np.array_equal(one.pi_K, two.pi_K)
        assert np.array_equal(one.mean_K, two.mean_K)


def test_a_version_from_before_worth_asks_each_member_for_all_of_its_part_of_delta() -> None:
    """F/M = 0.1/5 at least; but uniform, the first, by its worth, since ε asks it anyway."""
    ensemble = cases.ensemble(np.random.default_rng(0), values_M=np.array([0.1, 0.2, 0.6, 0.5, 0.7]))
    facts = ensemble.facts()
    del facts["law"]["least_worth"]
    before = learn.publish(learn.start(Ensemble.load(ensemble.arrays(), facts)))
    assert before.alternatives_M[1:].sum() == pytest.approx(1 - 0.1 / 5, abs=1e-6)
    assert before.alternatives_M[1:].min() >= 0.1 / 5
    assert before.alternatives_M[0] < 1e-6
    now = learn.publish(learn.start(ensemble))
    np.testing.assert_allclose(now.alternatives_M[1], 0.5 * before.alternatives_M[1])
    assert now.alternatives_M[0] == before.alternatives_M[0]
    assert now.alternatives_M[-1] == before.alternatives_M[-1]


def test_only_keeps_members_with_their_values() -> None:
    ensemble = cases.ensemble(np.random.default_rng(0))
    some = ensemble.only("forgetting", "popularity")
    assert some.names == ("popularity", "forgetting")
    assert some.values_M.tolist() == [0.5, 0.5]
    assert ensemble.only("linear").values_M.tolist() == [0.6]
    with pytest.raises(ModelError, match=r"no member \['linaer'\]; there are \['uniform'"):
        ensemble.only("linear", "linaer")


def test_a_member_decides_where_it_is_admitted() -> None:
    ensemble = cases.ensemble(np.random.default_rng(0))
    name = ensemble.names[-1]
    some = replace(ensemble, admissions={name: Admission(False, {"shop": True, "store": False})})
    assert ensemble.of("shop") is ensemble
    assert some.of("shop") is some
    assert some.of("store").names == some.of("new").names == ensemble.names[:-1]
    assert some.of("store").values_M.tolist() == ensemble.values_M[:-1].tolist()
    assert some.of("store").admissions == {}
    again = through_json(some)
    assert again.admissions == some.admissions
    facts = ensemble.facts()
    del facts["admissions"]
    assert Ensemble.load(ensemble.arrays(), facts).admissions == {}, "a version from before admissions"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": (), "values_M": np.zeros(0)}, "different names"),
        ({"members": (Uniform(), Uniform()), "values_M": np.zeros(2)}, "different names"),
        ({"values_M": np.zeros(2)}, "5 members need as many finite starting values"),
        ({"values_M": np.array([0.1, np.nan, 0, 0, 0])}, "finite starting values"),
        ({"errors_M": np.array([0.1, np.nan, 0, 0, 0])}, "standard errors, of 0 or more"),
        ({"errors_M": np.full(4, 0.1)}, "standard errors, of 0 or more"),
        ({"low": 1.0, "high": 1.0}, "declare low < high"),
        ({"dimension": 7}, "member 'linear' of 4 features does not fit 7"),
        ({"low": float("nan")}, "declare low < high"),
    ],
)
def test_an_ensemble_that_cannot_decide_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(cases.ensemble(np.random.default_rng(0)), **changes)


def test_a_member_of_a_later_release_is_named() -> None:
    ensemble = cases.ensemble(np.random.default_rng(0))
    facts = ensemble.facts()
    facts["members"][2]["kind"] = "quantum"
    with pytest.raises(ModelError, match="'linear' is of unknown kind 'quantum'"):
        Ensemble.load(ensemble.arrays(), facts)


def test_models_of_clusters_and_providers_are_saved_and_fit_the_feature_map() -> None:
    rng = np.random.default_rng(1)
    ensemble = cases.ensemble(rng)
    ensemble = replace(ensemble, members=(*ensemble.members, *cases.content(rng, 4)), values_M=np.full(7, 0.5))
    again = through_json(ensemble)
    assert again.facts() == ensemble.facts()
    assert {n: a.tobytes() for n, a in again.arrays().items()} == {n: a.tobytes() for n, a in ensemble.arrays().items()}
    with pytest.raises(ModelError, match="member 'cluster' of 3 features does not fit 4"):
        replace(ensemble, members=(*cases.content(rng, 3), *ensemble.members[2:5]), values_M=np.full(5, 0.5))


def residual(rng: np.random.Generator, names: tuple[str, ...], reduced: int = 2, neighbours: int = 2) -> Residual:
    inputs, members = reduced + neighbours + 4 * len(names), len(names)
    shapes = ((8, inputs), (8,), (8, 8), (8,), (members, 8), (members,))
    layers = [rng.normal(size=shape) for shape in shapes]
    return Residual(names, reduced, neighbours, np.zeros(inputs), np.ones(inputs), *layers)


def test_what_items_say_and_the_residual_are_saved() -> None:
    rng = np.random.default_rng(2)
    ensemble = cases.ensemble(rng)
    items = ItemWeights(np.array([0, 3]), rng.dirichlet(np.ones(5), 2))
    ensemble = replace(ensemble, items=items, residual=residual(rng, ensemble.names))
    again = through_json(ensemble)
    assert again.facts() == ensemble.facts()
    assert {n: a.tobytes() for n, a in again.arrays().items()} == {n: a.tobytes() for n, a in ensemble.arrays().items()}
    decision = replace(cases.features(rng, 5, 4), kin=cases.kin(rng, 5))
    one, two = (law.probabilities(learn.publish(learn.start(e)), decision, None, 5) for e in (ensemble, again))
    assert np.array_equal(one.pi_K, two.pi_K)
    plain = replace(ensemble, items=None, residual=None)
    assert not np.array_equal(
        one.mean_K, law.probabilities(learn.publish(learn.start(plain)), decision, None, 5).mean_K
    )


def test_some_members_have_what_items_say_of_them_and_no_residual_of_all() -> None:
    """0.1 and 0.3 of five weights are one and three quarters."""
    rng = np.random.default_rng(3)
    ensemble = cases.ensemble(rng)
    items = ItemWeights(np.array([3]), np.array([[0.2, 0.1, 0.3, 0.2, 0.2]]))
    ensemble = replace(ensemble, items=items, residual=residual(rng, ensemble.names))
    some = ensemble.only("popularity", "linear")
    assert some.items is not None
    np.testing.assert_allclose(some.items.weights_NM, [[0.25, 0.75]])
    assert some.residual is None
    assert ensemble.only(*ensemble.names).residual is ensemble.residual
    learn.publish(learn.start(some))


def test_weights_of_items_and_residuals_of_other_members_are_refused() -> None:
    rng = np.random.default_rng(4)
    ensemble = cases.ensemble(rng)
    with pytest.raises(ModelError, match="for 4 members do not fit"):
        replace(ensemble, items=ItemWeights(np.array([3]), np.full((1, 4), 0.25)))
    with pytest.raises(ModelError, match="train it anew"):
        replace(ensemble, residual=residual(rng, ensemble.names[::-1]))
