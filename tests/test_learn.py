import copy
from dataclasses import replace

import numpy as np
import pytest

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.learn import Outcome, State
from actors.bandits.members import Custom, Shared, Uniform, custom
from actors.bandits.mixture import Follow, Mixture
from cluster.errors import ModelError
from tests import bandit_cases as cases

ITEMS = 5


def learned(ensemble: Ensemble, outcomes: list[Outcome], publish_every: int = 10**9) -> State:
    state = learn.start(ensemble)
    for n, outcome in enumerate(outcomes, 1):
        state = learn.step(state, outcome)
        if n % publish_every == 0:
            learn.publish(state)
    return state


def numbers(state: State) -> list[np.ndarray]:
    """Everything that was learned, in one order."""
    found = [state.performance.sums_5M]
    for name in sorted(state.statistics):
        found += [state.statistics[name].data_precision_ADD, state.statistics[name].data_shift_AD]
    for user in sorted(state.histories):
        past = state.histories[user]
        found += [past.phi_ND, past.arm_N, past.reward_N]
    return found


def case(seed: int = 0, count: int = 600, **changes: object) -> tuple[Ensemble, list[Outcome]]:
    rng = np.random.default_rng(seed)
    return cases.ensemble(rng, items=ITEMS, **changes), cases.outcomes(rng, count, items=ITEMS)


def test_how_outcomes_arrive_changes_no_bit() -> None:
    """One run, a run with a publication after every seventh outcome, and one that was stopped half way."""
    ensemble, outcomes = case()
    whole, published = learned(ensemble, outcomes), learned(ensemble, outcomes, publish_every=7)
    halves = copy.deepcopy(learned(ensemble, outcomes[:301]))
    for outcome in outcomes[301:]:
        halves = learn.step(halves, outcome)
    for other in (published, halves):
        assert len(numbers(whole)) == len(numbers(other))
        assert all(np.array_equal(a, b) for a, b in zip(numbers(whole), numbers(other), strict=True))
    decision = cases.features(np.random.default_rng(9), ITEMS, 4)
    one, two, three = (
        law.probabilities(learn.publish(state), decision, state.histories["u1"], 5).pi_K
        for state in (whole, published, halves)
    )
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_shared_members_are_regressions_on_all_outcomes() -> None:
    """Rewards scaled by hand from [-1, 3]; popularity against counts, linear against a direct solve."""
    ensemble, outcomes = case(1, 200, low=-1.0, high=3.0)
    state = learned(ensemble, outcomes)
    posterior = learn.publish(state).members[2].posterior
    prior = ensemble.members[2]
    phi_ND = np.stack([o.phi_D for o in outcomes])
    reward_N = np.array([(o.reward + 1) / 4 for o in outcomes])
    total = prior.precision_ADD[0] + phi_ND.T @ phi_ND / 0.2
    np.testing.assert_allclose(
        posterior.mean_AD[0], np.linalg.solve(total, prior.shift_AD[0] + phi_ND.T @ reward_N / 0.2)
    )
    popularity = learn.publish(state).members[1].posterior
    for item in range(ITEMS):
        mine = [(o.reward + 1) / 4 for o in outcomes if o.item == item]
        shift = ensemble.members[1].shift_AD[item, 0]
        assert popularity.mean_AD[item, 0] == pytest.approx((shift + sum(mine) / 0.2) / (4 + len(mine) / 0.2))


def test_an_unknown_items_outcome_teaches_popularity_nothing() -> None:
    ensemble, outcomes = case(2, 1)
    state = learned(ensemble, [replace(outcomes[0], item=-1)])
    assert not state.statistics["popularity"].data_precision_ADD.any()
    assert state.statistics["linear"].data_precision_ADD.any()


def test_arms_learn_apart_and_the_last_never() -> None:
    rng = np.random.default_rng(3)
    ensemble = cases.ensemble(rng, arms=4, items=3)
    outcomes = [replace(o, arm=o.item, user=None) for o in cases.outcomes(rng, 60, items=3)]
    state = learned(ensemble, outcomes)
    data_ADD = state.statistics["linear"].data_precision_ADD
    assert not data_ADD[-1].any()
    for arm in range(3):
        phi_ND = np.stack([o.phi_D for o in outcomes if o.arm == arm])
        np.testing.assert_allclose(data_ADD[arm], phi_ND.T @ phi_ND / 0.2)


def test_forgetting_every_256_outcomes_by_half_life() -> None:
    """256 equal outcomes (φ = e₁, σ² = 0.2: 1280 in all), then γ²⁵⁶ = ½^(256/300) of them; one more adds 5."""
    ensemble, outcomes = case(4, 1)
    same = [replace(outcomes[0], phi_D=np.array([1.0, 0, 0, 0]), user=None)] * 257
    keep = 0.5 ** (256 / 300)
    for count, expected in ((255, 1275.0), (256, 1280 * keep), (257, 1280 * keep + 5)):
        state = learned(ensemble, same[:count])
        assert state.statistics["forgetting"].data_precision_ADD[0, 0, 0] == pytest.approx(expected)
        assert state.statistics["linear"].data_precision_ADD[0, 0, 0] == pytest.approx(5 * count)


def test_what_is_published_never_changes() -> None:
    rng = np.random.default_rng(5)
    ensemble, outcomes = case(5, 300)
    own = custom("tests.test_members:Counts", (1, 4, ITEMS))
    ensemble = replace(ensemble, members=(*ensemble.members[:4], own))
    state = learned(ensemble, outcomes[:100])
    published, past = learn.publish(state), state.histories["u1"]
    decision = cases.features(rng, ITEMS, 4)
    before = law.probabilities(published, decision, past, 5)
    weights = published.weights_M.copy()
    for outcome in outcomes[100:]:
        state = learn.step(state, outcome)
    later = learn.publish(state)
    after = law.probabilities(published, decision, past, 5)
    assert np.array_equal(before.pi_K, after.pi_K)
    assert np.array_equal(before.mean_K, after.mean_K)
    assert np.array_equal(weights, published.weights_M)
    assert (published.epoch, later.epoch) == (1, 2)
    assert not np.array_equal(law.probabilities(later, decision, past, 5).mean_K, before.mean_K)


def test_a_version_is_not_changed_by_its_learner() -> None:
    ensemble, outcomes = case(6, 300)
    before = copy.deepcopy({name: array.copy() for name, array in ensemble.arrays().items()})
    learned(ensemble, outcomes, publish_every=50)
    assert all(np.array_equal(array, before[name]) for name, array in ensemble.arrays().items())
    assert not ensemble.histories


def test_publication_factors_only_what_changed() -> None:
    ensemble, outcomes = case(7, 2)
    state = learned(ensemble, [])
    first = learn.publish(state)
    state = learn.step(state, replace(outcomes[0], item=-1))
    second = learn.publish(state)
    kept = [
        a.posterior is b.posterior for a, b in zip(first.members, second.members, strict=True) if isinstance(a, Shared)
    ]
    assert kept == [True, False, False]


def test_histories_are_bounded_and_name_who_changed() -> None:
    ensemble, outcomes = case(8)
    state = learned(ensemble, outcomes)
    assert {len(past) for past in state.histories.values()} == {6}
    for user, past in state.histories.items():
        mine = [o for o in outcomes if o.user == user][-6:]
        assert past.reward_N.tolist() == [o.reward for o in mine]
        np.testing.assert_array_equal(past.phi_ND, [o.phi_D for o in mine])
    assert state.changed == {"u0", "u1", "u2"}
    learn.publish(state)
    assert not state.changed
    assert not learned(replace(ensemble, history=0), outcomes).histories


def test_weights_follow_performance() -> None:
    """Member 2 takes all the chosen items' rewards of 1, member 4 those of 0."""
    ensemble, outcomes = case(9, 2)
    ensemble = replace(ensemble, values_M=np.full(5, 0.5))
    good, bad = np.array([0.2, 0.2, 0.9, 0.2, 0.05]), np.array([0.2, 0.2, 0.05, 0.2, 0.9])
    win = replace(outcomes[0], reward=1.0, propensity=0.5, member_propensities_M=good)
    lose = replace(outcomes[0], reward=0.0, propensity=0.5, member_propensities_M=bad)
    published = learn.publish(learned(ensemble, [win, lose] * 200))
    assert published.weights_M.sum() == pytest.approx(1)
    assert published.weights_M.argmax() == 2
    assert published.weights_M.argmin() == 4
    predefined_M = np.array([True, True, True, True, False])
    assert (published.weights_M[predefined_M] >= 0.01 / 1.04).all()
    assert published.alternatives_M[1:].min() >= 0.5 * 0.1 / 5
    assert published.alternatives_M.argmax() == 2, "it is not behind the blend, and is asked as often as its odds say"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": 0.0}, "must be above 0"),
        ({"propensity": 1.5}, "at most 1"),
        ({"propensity": float("nan")}, "must be above 0"),
        ({"reward": float("inf")}, "must be finite"),
        ({"phi_D": np.array([1.0, np.nan, 0, 0])}, "must be finite"),
        ({"phi_D": np.ones(3)}, "do not fit"),
        ({"member_propensities_M": np.ones(2)}, "do not fit"),
    ],
)
def test_a_bad_outcome_is_refused_before_anything_changes(changes: dict[str, object], message: str) -> None:
    ensemble, outcomes = case(10, 20)
    state = learned(ensemble, outcomes)
    before = copy.deepcopy(numbers(state))
    with pytest.raises(ModelError, match=message):
        learn.step(state, replace(outcomes[0], **changes))
    assert all(np.array_equal(a, b) for a, b in zip(before, numbers(state), strict=True))
    assert state.count == 20


def test_uniform_alone_can_learn_and_publish() -> None:
    ensemble = cases.ensemble(np.random.default_rng(0), members=(Uniform(),), values_M=np.array([0.5]))
    state = learned(ensemble, cases.outcomes(np.random.default_rng(0), 5, members=1))
    assert learn.publish(state).weights_M.tolist() == [1.0]


def test_members_come_out_in_the_ensembles_order() -> None:
    ensemble, _ = case(11, 0)
    published = learn.publish(learn.start(ensemble))
    assert published.names == ensemble.names
    kinds = {Prior: Shared, Custom: Custom}
    assert all(
        type(out) is kinds.get(type(into), type(into))
        for into, out in zip(ensemble.members, published.members, strict=True)
    )


def test_a_mixture_follows_what_the_pooled_member_learns() -> None:
    """m_c + a(μ_t − μ₀), a = 0.9, with μ₀ and μ_t by direct solves; without the pooled member it stays."""
    ensemble, outcomes = case(3, 40)
    prior = next(m for m in ensemble.members if m.name == "linear")
    mixture = next(m for m in ensemble.members if isinstance(m, Mixture))
    assert isinstance(prior, Prior)
    start_AD = np.linalg.solve(prior.precision_ADD, prior.shift_AD[..., None])[..., 0]
    moving = replace(mixture, follow=Follow("linear", start_AD, 0.9), base_AD=0.9 * start_AD)
    members = tuple(moving if m is mixture else m for m in ensemble.members)
    state = learned(replace(ensemble, members=members), outcomes)
    statistics = state.statistics["linear"]
    now_AD = np.linalg.solve(statistics.precision_ADD, statistics.shift_AD[..., None])[..., 0]
    found = next(m for m in learn.publish(state).members if isinstance(m, Mixture))
    np.testing.assert_allclose(found.means_CAD, mixture.means_CAD + 0.9 * (now_AD - start_AD), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.base_AD, 0.9 * now_AD, rtol=1e-9, atol=1e-12)
    alone = replace(ensemble, members=members).only(mixture.name)
    (still,) = learn.publish(learn.start(alone)).members
    assert isinstance(still, Mixture)
    np.testing.assert_array_equal(still.means_CAD, mixture.means_CAD)


class Broken:
    """An own model that can neither learn nor score."""

    def __init__(self, arms: int, dimension: int, items: int) -> None: ...

    def scores(self, phi_KD: object, arm_K: object, item_K: object) -> tuple[np.ndarray, np.ndarray]:
        raise KeyError("no such item")

    def learn(self, phi_D: object, arm: int, item: int, reward: float) -> None:
        raise ValueError("cannot learn")

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def load(self, arrays: dict[str, np.ndarray]) -> None: ...


def test_an_own_model_that_raises_stops_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    ensemble, outcomes = case(5, 20)
    broken = custom("tests.test_learn:Broken", (1, ensemble.dimension, ITEMS))
    values_M = np.append(ensemble.values_M, 0.5)
    wider = replace(ensemble, members=(*ensemble.members, broken), values_M=values_M)
    longer = [replace(o, member_propensities_M=np.append(o.member_propensities_M, 0.1)) for o in outcomes]
    state, plain = learned(wider, longer), learned(ensemble, outcomes)
    assert caplog.text.count("could not learn outcome") == 20
    for name, statistics in plain.statistics.items():
        np.testing.assert_array_equal(state.statistics[name].data_shift_AD, statistics.data_shift_AD)
    decision = cases.features(np.random.default_rng(0), ITEMS, ensemble.dimension)
    with pytest.raises(ModelError, match="scores: KeyError"):
        law.probabilities(learn.publish(state), decision, None, 1)


def test_models_of_clusters_and_providers_learn_from_their_own_rows() -> None:
    """By hand: Λ₀ + Σφφᵀ/σ² and b₀ + Σφr/σ² over the outcomes of each row; unknown ones teach nobody."""
    rng = np.random.default_rng(8)
    ensemble = cases.ensemble(rng)
    members = cases.content(rng, 4)
    ensemble = replace(
        ensemble, members=(*ensemble.members, *members), values_M=np.append(ensemble.values_M, [0.5, 0.5])
    )
    outcomes = []
    for outcome in cases.outcomes(rng, 200, members=7):
        kin = cases.kin(rng, ITEMS)
        index = int(rng.integers(ITEMS))
        features = replace(cases.features(rng, ITEMS, 4), kin=kin)
        outcomes.append(
            Outcome.of(features, index, user=outcome.user, reward=outcome.reward, propensity=outcome.propensity,
                       member_propensities_M=outcome.member_propensities_M)
        )  # fmt: skip
        assert (outcomes[-1].provider, outcomes[-1].cluster) == (kin.provider_K[index], kin.cluster_K[index])
        assert outcomes[-1].item == index
    state = learned(ensemble, outcomes)
    for prior, rows in zip(members, ([o.cluster for o in outcomes], [o.provider for o in outcomes]), strict=True):
        belief = learn.publish(state).members[ensemble.names.index(prior.name)]
        assert isinstance(belief, Shared)
        for row in range(len(prior.shift_AD)):
            phi_ND = np.array([o.phi_D for o, own in zip(outcomes, rows, strict=True) if own == row]).reshape(-1, 4)
            reward_N = np.array([o.reward for o, own in zip(outcomes, rows, strict=True) if own == row])
            precision_DD = prior.precision_ADD[row] + phi_ND.T @ phi_ND / prior.noise
            mean_D = np.linalg.solve(precision_DD, prior.shift_AD[row] + phi_ND.T @ reward_N / prior.noise)
            np.testing.assert_allclose(belief.posterior.mean_AD[row], mean_D, rtol=1e-9)
        assert -1 in rows


@pytest.mark.parametrize("half_life", [None, 40.0])
def test_only_providers_that_learned_are_factored_again_with_the_same_bits(half_life: float | None) -> None:
    """Publications after every third outcome, one at the end, and a learner that begins at what was learned."""
    rng = np.random.default_rng(9)
    members = tuple(replace(prior, half_life=half_life) for prior in cases.content(rng, 4))
    ensemble = replace(cases.ensemble(rng), members=(Uniform(), *members), values_M=np.full(3, 0.5))
    outcomes = [
        replace(outcome, provider=int(rng.integers(-1, 5)), cluster=int(rng.integers(-1, 2)))
        for outcome in cases.outcomes(rng, 600, members=3)
    ]
    often, once, late = (learned(ensemble, outcomes, publish_every=n) for n in (3, 10**9, 10**9))
    late.posteriors.clear()
    made = [learn.publish(state) for state in (often, once, late)]
    for m in (1, 2):
        beliefs = [published.members[m] for published in made]
        assert isinstance(beliefs[0], Shared)
        first, whole = beliefs[0].posterior, often.statistics[members[m - 1].name].gaussian()
        for belief in beliefs:
            assert isinstance(belief, Shared)
            assert np.array_equal(belief.posterior.mean_AD, first.mean_AD)
            assert np.array_equal(belief.posterior.factor_ADD, first.factor_ADD)
            np.testing.assert_allclose(belief.posterior.mean_AD, whole.mean_AD, rtol=1e-12)
            np.testing.assert_allclose(belief.posterior.factor_ADD, whole.factor_ADD, rtol=1e-12)


def test_what_was_published_does_not_change_when_more_is_learned() -> None:
    rng = np.random.default_rng(10)
    members = cases.content(rng, 4)
    ensemble = replace(cases.ensemble(rng), members=(Uniform(), *members), values_M=np.full(3, 0.5))
    outcomes = [replace(outcome, provider=1) for outcome in cases.outcomes(rng, 20, members=3)]
    state = learned(ensemble, outcomes[:10])
    before = learn.publish(state).members[2]
    assert isinstance(before, Shared)
    kept = copy.deepcopy(before.posterior.mean_AD)
    for outcome in outcomes[10:]:
        state = learn.step(state, outcome)
    after = learn.publish(state).members[2]
    assert isinstance(after, Shared)
    assert np.array_equal(before.posterior.mean_AD, kept)
    moved = (after.posterior.mean_AD != kept).any(axis=1)
    assert moved.tolist() == [False, True, False, False, False, False]
