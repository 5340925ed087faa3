"""The law where items have kin: weights of each item's own, by hand and by brute force, and old bits elsewhere."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from actors.bandits import law, learn, members
from actors.bandits.law import Decision, Part, Question
from actors.bandits.learn import Outcome
from actors.bandits.members import Shared, Uniform, custom
from actors.bandits.noise import Noise
from actors.bandits.posterior import Gaussian
from actors.bandits.published import Published
from actors.bandits.residual import Residual
from actors.bandits.shares import ItemWeights
from actors.features.features import Features
from actors.features.keys import item_keys
from actors.features.kin import Kin
from cluster.config import WeightSettings
from cluster.errors import ModelError
from tests import bandit_cases as cases
from tests.test_law import DIMENSION, ITEMS, every_kind

FREE = WeightSettings(predefined_floor=0.0)


def related(decision: Features, near: list[list[int]], alpha: list[list[float]]) -> Features:
    items, near_KJ, alpha_KJ = len(near), np.array(near), np.array(alpha)
    none_K = np.full(items, -1)
    kin = Kin(none_K, none_K, near_KJ, np.where(near_KJ >= 0, 0.9, 0.0), alpha_KJ, none_K + 2, np.zeros((items, 2)))
    return replace(decision, kin=kin)


def spoken(rng: np.random.Generator, arms: bool = False, **settings: float) -> Published:
    """`every_kind` with what four of seven items say of the members."""
    items = ItemWeights(np.array([0, 2, 3, 6]), rng.dirichlet(np.ones(5), 4))
    weights = WeightSettings.model_validate({"predefined_floor": 0.0} | settings)
    return replace(every_kind(rng, arms), items=items, weights=weights)


def with_kin(rng: np.random.Generator, arms: bool = False, items: int = ITEMS) -> Features:
    return replace(cases.features(rng, items, DIMENSION, arms), kin=cases.kin(rng, items))


def same(one: Decision, other: Decision) -> bool:
    """To the bit, but for what is told only where there is kin."""
    for a, b in zip(one.slots, other.slots, strict=True):
        for f in fields(a):
            if not np.array_equal(getattr(a, f.name), getattr(b, f.name)):
                return False
    return np.array_equal(one.first_K, other.first_K)


def three_items() -> tuple[Published, Features]:
    """Two members without variance and of equal weight, that say 0.5, 0.6, 0.1 and 0.5, 0.2, 0.1 of three items."""
    phi_KD = np.hstack([np.ones((3, 1)), np.eye(3)])
    zeros, places = np.zeros(3, np.int64), np.arange(3)
    decision = Features(phi_KD, zeros, places, item_keys(["a", "b", "c"]), np.zeros(1))
    means = ((0.5, 0.6, 0.1), (0.5, 0.2, 0.1))
    models = [
        Shared(name, Gaussian(np.array([[0.0, *mean]]), np.zeros((1, 4, 4))), "features")
        for name, mean in zip(("first", "second"), means, strict=True)
    ]
    state = cases.published(*models, dimension=4, epsilon=0.03, delta=0.0)
    return replace(state, weights=FREE, low=-1.0, high=3.0), decision


def test_three_items_by_hand() -> None:
    """b's nearest has (0.95, 0.05) to say with 0.8, and another that has said nothing 0.2: shares
    0.99·(0.8·0.95 + 0.2/2) + 0.005 = 0.8564 and 0.1436, which are its weights, since the members' own are equal.
    Its mean rises from 0.4 to 0.6·0.8564 + 0.2·0.1436 = 0.54256 and beats a's 0.5; score 4·0.54256 − 1."""
    state, decision = three_items()
    plain = law.probabilities(state, decision, None, 1)
    np.testing.assert_allclose(plain.mean_K, [0.5, 0.4, 0.1])
    np.testing.assert_allclose(plain.pi_K, [0.98, 0.01, 0.01])
    state = replace(state, items=ItemWeights(np.array([5]), np.array([[0.95, 0.05]])))
    near = related(decision, [[-1, -1], [5, 8], [-1, -1]], [[0, 0], [0.8, 0.2], [0, 0]])
    found = law.probabilities(state, near, None, 1)
    np.testing.assert_allclose(found.mean_K, [0.5, 0.54256, 0.1])
    np.testing.assert_allclose(found.pi_K, [0.01, 0.98, 0.01])
    np.testing.assert_allclose(found.member_means_MK, [[0.5, 0.6, 0.1], [0.5, 0.2, 0.1]])
    seen = {slot.index: slot for seed in range(300) for slot in law.decide(state, near, None, seed).slots}
    assert seen[1].score == pytest.approx(4 * 0.54256 - 1)
    assert seen[1].models == pytest.approx({"first": 0.8564, "second": 0.1436})
    assert seen[0].models == {"first": 0.5, "second": 0.5}
    assert {index: slot.explored for index, slot in seen.items()} == {0: True, 1: False, 2: True}


def test_half_of_the_scale_is_the_root_of_the_odds() -> None:
    """β = ½: odds (0.8564/0.1436)^½ = 2.442093, weights 0.709479 and 0.290521. A floor of 0.3 lifts the second, and
    they are scaled to one again: 0.709479/1.009479."""
    state, decision = three_items()
    items = ItemWeights(np.array([5]), np.array([[0.95, 0.05]]))
    near = related(decision, [[5, 8]] * 3, [[0.8, 0.2]] * 3)
    for floor, expected in ((0.0, 0.709479), (0.3, 0.702817)):
        weights = WeightSettings(neighbour_scale=0.5, predefined_floor=floor)
        slot = law.decide(replace(state, items=items, weights=weights), near, None, 1).slots[0]
        assert slot.models["first"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [30.0, 100.0])
def test_weights_are_finite_at_the_greatest_scale(scale: float) -> None:
    """A neighbour that is sure of one of five members, and one that is sure of another."""
    rng, sure = np.random.default_rng(0), 1 - 4e-12
    items = ItemWeights(np.array([0, 2]), np.full((2, 5), 1e-12) + (sure - 1e-12) * np.eye(5)[[1, 3]])
    state = replace(spoken(rng, neighbour_scale=scale), items=items)
    near = related(
        cases.features(rng, 3, DIMENSION, False), [[0, 2], [2, 0], [0, -1]], [[0.9, 0.1], [0.5, 0.5], [1, 0]]
    )
    found = law.probabilities(state, near, None, 1)
    assert np.isfinite(found.mean_K).all()
    assert found.pi_K.sum() == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(ValueError, match="less than or equal to 100"):
        WeightSettings(neighbour_scale=101.0)


def by_loops(state: Published, decision: Features, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights (K, M), blended means (K,) and scores (P, K) by the formulas of docs/law.md, item by item."""
    assert decision.kin is not None
    assert state.items is not None
    past, noise = cases.History.empty(state.dimension), Noise(seed, state.law.particles)
    scored = {
        m: members.scores(member, decision, past, noise, state.law.exploration_scale)
        for m, member in enumerate(state.members)
        if not isinstance(member, Uniform)
    }
    said = dict(zip(state.items.rows_N.tolist(), state.items.weights_NM, strict=True))
    count, weights, means, scores = len(state.members), [], [], []
    for k in range(len(decision)):
        pairs = list(zip(decision.kin.near_KJ[k].tolist(), decision.kin.alpha_KJ[k].tolist(), strict=True))
        told_M = sum(a * said.get(j, np.full(count, 1 / count)) for j, a in pairs)
        share_M = 0.99 * (told_M + (1 - sum(a for _, a in pairs)) / count) + 0.01 / count
        weight_M = state.weights_M * share_M**state.weights.neighbour_scale
        weight_M = weight_M / weight_M.sum()
        lifted_M = [max(w, state.weights.predefined_floor) for w in weight_M.tolist()]
        pairs_M = zip(state.members, weight_M.tolist(), lifted_M, strict=True)
        weight_M = np.array([high if member.predefined else low for member, low, high in pairs_M])
        weights.append(weight_M / weight_M.sum())
        total = sum(weights[-1][m] for m in scored)
        part = {m: weights[-1][m] / total for m in scored}
        means.append(sum(part[m] * scored[m].mean_K[k] for m in scored))
        draw_P = sum(part[m] * scored[m].deviation_PK[:, k].astype(float) for m in scored)
        wanted = sum(part[m] * np.sqrt((scored[m].deviation_PK[:, k].astype(float) ** 2).mean()) for m in scored)
        scores.append(means[-1] + draw_P * wanted / np.sqrt((draw_P**2).mean()))
    return np.array(weights), np.array(means), np.array(scores).T


@pytest.mark.parametrize("arms", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_each_item_is_blended_by_its_own_weights(seed: int, arms: bool) -> None:
    """Wherever the best of a particle is ahead by more than single precision can lose."""
    rng = np.random.default_rng(seed)
    state, decision = spoken(rng, arms, neighbour_scale=1.7, predefined_floor=0.05), with_kin(rng, arms)
    weight_KM, mean_K, score_PK = by_loops(state, decision, seed)
    found = law.probabilities(state, decision, None, seed)
    np.testing.assert_allclose(found.mean_K, mean_K, atol=1e-12)
    ahead_P = np.diff(np.partition(score_PK, -2, axis=1)[:, -2:], axis=1)[:, 0]
    assert ahead_P.min() > 1e-5
    blend_K = np.bincount(score_PK.argmax(1), minlength=ITEMS) / len(score_PK)
    members_K = state.alternatives_M @ found.member_MK
    alone = 0.3 * state.alternatives_M.sum()
    expected = 0.95 * ((1 - alone) * blend_K + 0.3 * members_K) + 0.05 / ITEMS
    np.testing.assert_allclose(found.pi_K, expected, atol=1e-12)
    for slot in law.decide(state, decision, None, seed, 3).slots:
        np.testing.assert_allclose(list(slot.models.values()), weight_KM[slot.index], atol=1e-12)
        shares_M = state.shares_M if slot.shares_M is None else slot.shares_M
        assert slot.score == pytest.approx(float(shares_M @ slot.member_means_M), abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 10_000), st.booleans(), st.integers(1, ITEMS), st.sampled_from(["unknown", "even", "scale", "none"])
)
def test_where_neighbours_say_nothing_the_bits_are_those_without_kin(
    seed: int, arms: bool, slots: int, why: str
) -> None:
    rng = np.random.default_rng(seed)
    state, decision = spoken(rng, arms), with_kin(rng, arms)
    assert state.items is not None
    rows = {"unknown": np.array([100, 101, 102, 103])}.get(why, state.items.rows_N)
    even = np.full((4, 5), 1 / 5) if why == "even" else state.items.weights_NM
    items = None if why == "none" else ItemWeights(rows, even)
    state = replace(state, items=items, weights=WeightSettings(neighbour_scale=0.0 if why == "scale" else 1.0))
    found = law.decide(state, decision, None, seed, slots)
    assert same(found, law.decide(state, replace(decision, kin=None), None, seed, slots))
    assert all(slot.models is state.models for slot in found.slots)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, ITEMS), st.booleans(), st.booleans(), st.booleans())
def test_decisions_together_have_the_bits_that_they_have_alone(
    seed: int, items: int, arms: bool, moved: bool, parts: bool
) -> None:
    """Some with kin, some without, of some of these nobody knows the neighbours."""
    rng = np.random.default_rng(seed)
    state = spoken(rng, arms)
    if moved:
        state = replace(state, residual=residual(rng), values_M=rng.random(5), errors_M=rng.random(5))
    asked = []
    for n in range(7):
        decision = cases.features(rng, items, DIMENSION, arms)
        kin = None if n % 3 == 0 else cases.kin(rng, len(decision))
        if kin is not None and n % 3 == 1:
            kin = replace(kin, near_KJ=np.where(kin.near_KJ >= 0, 1, -1))  # the second item has said nothing
        part = Part(50, items - 2) if parts and items > 3 else None
        asked.append(Question(replace(decision, kin=kin), None, seed + n, min(2, items), part))
    for question, found in zip(asked, law.decide_many(state, asked), strict=True):
        alone = law.decide(state, question.features, None, question.seed, question.slots, question.part)
        assert same(found, alone)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.permutations(range(ITEMS)), st.booleans())
def test_the_order_of_items_does_not_matter(seed: int, order: list[int], arms: bool) -> None:
    rng = np.random.default_rng(seed)
    state, decision = spoken(rng, arms), with_kin(rng, arms)
    found, moved = (law.probabilities(state, each, None, seed) for each in (decision, decision.take(np.array(order))))
    np.testing.assert_array_equal(moved.pi_K, found.pi_K[order])
    np.testing.assert_array_equal(moved.mean_K, found.mean_K[order])


def residual(rng: np.random.Generator, last: float = 1.0) -> Residual:
    """For the five members of `every_kind`, two neighbours and two content numbers."""
    inputs = 2 + 2 + 4 * 5
    layers = [rng.normal(size=shape) / 4 for shape in ((8, inputs), (8,), (8, 8), (8,))]
    ends = [last * rng.normal(size=shape) for shape in ((5, 8), (5,))]
    names = ("popularity", "linear", "uniform", "generated", "forgetting")
    return Residual(names, 2, 2, np.zeros(inputs), np.ones(inputs), *layers, *ends)


def test_shares_are_added_to_the_logits_before_the_floor() -> None:
    """By scipy: softmax of 3·v/rms(se) + β·log share, then 0.2 at least for all but the mixture, then normalised."""
    rng = np.random.default_rng(8)
    state, decision = spoken(rng, eta=3.0, predefined_floor=0.2, neighbour_scale=0.7), with_kin(rng)
    value_M, error_M = rng.random(5), rng.uniform(0.2, 0.4, 5)
    state = replace(state, values_M=value_M, errors_M=error_M)
    assert state.items is not None
    assert decision.kin is not None
    share_KM = (1 + state.items.tilts(decision.kin.near_KJ, decision.kin.alpha_KJ)) / 5
    logits_KM = 3 * value_M / np.sqrt((error_M**2).mean()) + 0.7 * np.log(share_KM)
    weight_KM = special.softmax(logits_KM, axis=1)
    weight_KM[:, [0, 1, 2, 4]] = np.maximum(weight_KM[:, [0, 1, 2, 4]], 0.2)
    weight_KM /= weight_KM.sum(1, keepdims=True)
    told = 0
    for slot in law.decide(state, decision, None, 5, ITEMS).slots:
        told += slot.shares_M is not None
        np.testing.assert_allclose(list(slot.models.values()), weight_KM[slot.index], atol=1e-12)
    assert told == ITEMS


def test_an_untrained_residual_changes_nothing() -> None:
    """Up to rounding: items have weights of their own then, which are all alike."""
    rng = np.random.default_rng(3)
    state, decision = replace(spoken(rng), items=None), with_kin(rng)
    valued = replace(state, values_M=np.log(state.weights_M) * 0.01, errors_M=np.zeros(5))
    valued = replace(valued, weights=WeightSettings(eta=1.0, predefined_floor=0.0))  # se_min = 0.01: logits log w
    moved = replace(valued, residual=residual(rng, last=0))
    one, other = (law.probabilities(each, decision, None, 5) for each in (state, moved))
    np.testing.assert_allclose(other.pi_K, one.pi_K, atol=1e-12)
    np.testing.assert_allclose(other.mean_K, one.mean_K, atol=1e-12)


def test_a_residual_is_added_to_the_logits() -> None:
    """One that gives 3·tanh(b/3) for any item, whatever it reads: weights ∝ share·w·e^g."""
    rng = np.random.default_rng(4)
    bias_M = np.array([0.5, -1.0, 0.0, 2.0, -9.0])
    constant = replace(residual(rng, last=0), last_M=bias_M)
    state, decision = spoken(rng), with_kin(rng)
    state = replace(state, values_M=np.log(state.weights_M) * 0.01, errors_M=np.zeros(5))
    state = replace(state, weights=WeightSettings(eta=1.0, predefined_floor=0.0))
    moved = replace(state, residual=constant)
    tilted_M = state.weights_M * np.exp(3 * np.tanh(bias_M / 3))
    expected = by_loops(replace(state, weights_M=tilted_M / tilted_M.sum(), weights=FREE), decision, 5)[0]
    for slot in law.decide(moved, decision, None, 5, 3).slots:
        np.testing.assert_allclose(list(slot.models.values()), expected[slot.index], atol=1e-12)
    plain = replace(decision, kin=None)
    assert same(law.decide(moved, plain, None, 5, 3), law.decide(state, plain, None, 5, 3))


def test_a_residual_needs_what_it_reads() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(ModelError, match="reads the members' values"):
        replace(spoken(rng), residual=residual(rng))


def test_one_member_alone_is_no_blend() -> None:
    rng = np.random.default_rng(6)
    decision = with_kin(rng)
    state = cases.published(cases.shared(rng, 1, DIMENSION), Uniform(), dimension=DIMENSION)
    spoken = replace(state, items=ItemWeights(np.arange(ITEMS), rng.dirichlet(np.ones(2), ITEMS)))
    assert same(law.decide(spoken, decision, None, 1, 3), law.decide(state, decision, None, 1, 3))


class High:
    """An own model that foretells 0.8 of every item, and learns nothing."""

    mean = 0.8

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        pass

    def scores(self, phi_KD: np.ndarray, arm_K: np.ndarray, item_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.full(len(phi_KD), self.mean), np.full(len(phi_KD), 0.01)

    def learn(self, phi_D: np.ndarray, arm: int, item: int, reward: float) -> None:
        pass

    def arrays(self) -> dict[str, Any]:
        return {}

    def load(self, arrays: dict[str, Any]) -> None:
        pass


class Low(High):
    mean = 0.2


def test_a_new_item_is_blended_as_those_like_it_have_taught() -> None:
    """Even items earn with chance 0.8, odd ones 0.2; two members foretell 0.8 and 0.2 of all. After 40 outcomes each,
    two new items, like the even and like the odd ones, are known by their neighbours alone: weights 0.995, means within
    0.02 of the truth. Log odds of an item are 28.8 ± 6.1, so that all six are above 3 but for a seed in 15,000."""
    rng = np.random.default_rng(7)
    names = ("tests.test_law_kin:High", "tests.test_law_kin:Low")
    members = tuple(custom(source, (1, DIMENSION, 6), predefined=False) for source in names)
    ensemble = cases.ensemble(rng, members=members, values_M=np.full(2, 0.5))
    state = learn.start(ensemble)
    for _ in range(40):
        known = with_kin(rng)
        for item in range(ITEMS):
            found = law.probabilities(learn.publish(state), known, None, 1)
            reward = float(rng.random() < (0.8, 0.2)[item % 2])
            said = found.member_MK[:, item], found.member_means_MK[:, item]
            about = {"user": None, "reward": reward, "propensity": float(found.pi_K[item])}
            outcome = Outcome.of(known, item, member_propensities_M=said[0], member_means_M=said[1], **about)
            state = learn.step(state, outcome)
    fresh = replace(cases.features(rng, 2, DIMENSION), item_K=np.full(2, -1))
    fresh = related(fresh, [[0, 2, 4], [1, 3, 5]], [[0.5, 0.3, 0.2]] * 2)
    published = learn.publish(state)
    np.testing.assert_allclose(law.probabilities(published, fresh, None, 1).mean_K, [0.8, 0.2], atol=0.02)
    plain = law.probabilities(published, replace(fresh, kin=None), None, 1).mean_K
    assert plain[0] == pytest.approx(plain[1])
