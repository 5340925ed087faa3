"""Weights of items and neighbour shares: by hand, by brute force over sequences of experts, and their invariants."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.shares import FREE_NOISE, HALF_LIFE_OUTCOMES, UNIFORM, ItemLearner, ItemWeights

SHARE = 1 - 0.5 ** (1 / HALF_LIFE_OUTCOMES)
EVERY = np.array([True, True, True])
NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


def test_one_outcome_by_hand() -> None:
    """Three members, one without scores, σ² = ¼, r = 1 where 0.2 and 0.6 were foretold: e^(−0.64/0.5) = 0.278037 and
    e^(−0.16/0.5) = 0.726149 share out the two thirds that are theirs."""
    items = ItemLearner(np.array([True, True, False]), 0.25)
    items.learn(7, np.array([0.2, 0.6, 0.0]), 1.0)
    np.testing.assert_allclose(items.weights(7), [0.184585, 0.482082, 1 / 3], atol=1e-6)
    assert items.sums(7) == (1.0, 1.0, 1.0)
    np.testing.assert_array_equal(items.weights(3), np.full(3, 1 / 3))
    assert items.sums(3) == (0.0, 0.0, 0.0)


def test_weights_are_the_posterior_of_an_expert_that_may_change() -> None:
    """Fixed share is Bayes over all sequences of experts that stay with 1 − h and else start anew among all M
    (Herbster and Warmuth 1998): 3⁵ sequences, each with its probability and the likelihood of its forecasts."""
    rng = np.random.default_rng(0)
    mean_TM, reward_T = rng.random((5, 3)), rng.random(5)
    items = ItemLearner(EVERY, 0.1)
    for mean_M, reward in zip(mean_TM, reward_T, strict=True):
        items.learn(0, mean_M, reward)
    expected_M = np.zeros(3)
    for path in itertools.product(range(3), repeat=5):
        chance = 1 / 3
        for before, after in itertools.pairwise(path):
            chance *= (1 - SHARE) * (before == after) + SHARE / 3
        for t, m in enumerate(path):
            chance *= math.exp(-((reward_T[t] - mean_TM[t, m]) ** 2) / 0.2)
        expected_M[path[-1]] += chance
    np.testing.assert_allclose(items.weights(0), expected_M / expected_M.sum(), rtol=1e-12)


def test_what_was_learned_is_half_forgotten_after_the_half_life() -> None:
    """Outcomes that all foretold alike move nothing but the fixed share."""
    items = ItemLearner(EVERY, 0.1)
    items.learn(0, np.array([0.1, 0.5, 0.9]), 1.0)
    above_M = items.weights(0) - 1 / 3
    for _ in range(int(HALF_LIFE_OUTCOMES)):
        items.learn(0, np.full(3, 0.4), 1.0)
    np.testing.assert_allclose(items.weights(0) - 1 / 3, above_M / 2, rtol=1e-9)


def test_the_member_that_foretells_best_wins_and_can_lose_again() -> None:
    """Rewards of chance 0.6, then 0.2, against members that say 0.2, 0.6 and 0.4; odds of the wrong one after 500 are
    e^(−500·0.16/0.48) but for the fixed share, so that a seed in 10¹⁰ would fail."""
    rng, items = np.random.default_rng(1), ItemLearner(EVERY, 0.24)
    for chance, best in ((0.6, 1), (0.2, 0)):
        for reward in (rng.random(500) < chance).astype(float):
            items.learn(0, np.array([0.2, 0.6, 0.4]), reward)
        assert items.weights(0)[best] > 0.9


def test_a_member_whose_mean_is_no_number_keeps_its_weight_but_for_the_fixed_share() -> None:
    items = ItemLearner(EVERY, 0.1)
    items.learn(0, np.array([0.1, 0.9, 0.5]), 1.0)
    before = items.weights(0)
    items.learn(0, np.array([0.1, 0.9, np.nan]), 1.0)
    assert items.weights(0)[2] == pytest.approx((1 - SHARE) * before[2] + SHARE / 3, rel=1e-12)
    items.learn(0, np.full(3, np.nan), 1.0)
    assert items.sums(0)[0] == 2  # nobody had a mean: nothing is learned


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.tuples(NUMBERS, NUMBERS, NUMBERS), st.floats(0, 1)), max_size=30),
    st.lists(st.booleans(), min_size=3, max_size=3),
    st.floats(1e-3, 10),
)
def test_weights_are_finite_sum_to_one_and_keep_the_fixed_share(
    outcomes: list[tuple[int, tuple[float, float, float], float]], scored: list[bool], noise: float
) -> None:
    items = ItemLearner(np.array(scored), noise)
    for item, means, reward in outcomes:
        items.learn(item, np.array(means), reward)
        weight_M = items.weights(item)
        assert np.isfinite(weight_M).all()
        assert (weight_M >= 0).all()
        assert weight_M.sum() == pytest.approx(1, abs=1e-12)
    for item in range(4):
        items.learn(item, np.full(3, 0.5), 0.5)  # all foretell alike: what is seen is the share alone
        if any(scored):
            assert items.weights(item).min() >= SHARE / 3 * (1 - 1e-9)


def test_a_reward_beyond_all_numbers_is_left_out() -> None:
    items = ItemLearner(EVERY, 0.1)
    items.learn(0, np.zeros(3), 1e200)
    assert len(items) == 0


def by_loops(known: ItemWeights, near: list[int], alpha: list[float]) -> list[float]:
    """share_m by the formula of the module."""
    members = known.weights_NM.shape[1]
    weights = dict(zip(known.rows_N.tolist(), known.weights_NM.tolist(), strict=True))
    out = []
    for m in range(members):
        told = sum(a * weights.get(j, [1 / members] * members)[m] for j, a in zip(near, alpha, strict=True))
        out.append((1 - UNIFORM) * (told + (1 - sum(alpha)) / members) + UNIFORM / members)
    return out


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.integers(0, 4), st.integers(1, 5))
def test_shares_follow_the_formula_and_sum_to_one(seed: int, known: int, neighbours: int, members: int) -> None:
    """Some neighbours have said nothing, some places are empty (−1, α = 0)."""
    rng = np.random.default_rng(seed)
    weights = ItemWeights(np.sort(rng.choice(9, known, replace=False)), rng.dirichlet(np.ones(members), known))
    near_KJ = rng.integers(-1, 9, (7, neighbours))
    alpha_KJ = np.where(near_KJ >= 0, rng.random((7, neighbours)) / max(neighbours, 1), 0.0)
    share_KM = (1 + weights.tilts(near_KJ, alpha_KJ)) / members
    expected = [by_loops(weights, *row) for row in zip(near_KJ.tolist(), alpha_KJ.tolist(), strict=True)]
    np.testing.assert_allclose(share_KM, expected, atol=1e-14)
    np.testing.assert_allclose(share_KM.sum(1), 1, atol=1e-12)
    assert (share_KM >= UNIFORM / members * (1 - 1e-12)).all()


def test_neighbours_that_have_said_nothing_tilt_nothing_at_all() -> None:
    weights = ItemWeights(np.array([2, 5]), np.array([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]]))
    near_KJ, alpha_KJ = np.array([[0, 9], [-1, -1], [5, 3]]), np.array([[0.3, 0.7], [0.0, 0.0], [0.6, 0.4]])
    assert not weights.tilts(near_KJ, alpha_KJ).any()
    assert weights.tilts(np.array([[2, 5]]), np.array([[0.5, 0.5]])).any()


def test_weights_of_some_members_alone() -> None:
    """0.3 and 0.1 of three members are three quarters and one; who said nothing of them is uniform."""
    weights = ItemWeights(np.array([4, 6]), np.array([[0.3, 0.6, 0.1], [0.0, 1.0, 0.0]])).only(np.array([0, 2]))
    np.testing.assert_allclose(weights.weights_NM, [[0.75, 0.25], [0.5, 0.5]])


def test_further_members_are_told_nothing_of_and_the_others_odds_stay() -> None:
    known = ItemWeights(np.array([3]), np.array([[0.5, 0.3, 0.2]]))
    more = known.among(5)
    assert more.weights_NM[0] == pytest.approx([0.3, 0.18, 0.12, 0.2, 0.2])
    tilt = more.tilts(np.array([[3]]), np.ones((1, 1)))[0]
    assert tilt == pytest.approx([*known.tilts(np.array([[3]]), np.ones((1, 1)))[0], 0, 0])
    assert known.among(3).weights_NM == pytest.approx(known.weights_NM)


def test_learning_goes_on_from_what_was_saved_with_the_same_bits() -> None:
    rng = np.random.default_rng(2)
    start = ItemWeights(np.array([1, 30]), rng.dirichlet(np.ones(3), 2))
    outcomes = [(int(rng.integers(40)), rng.random(3), float(rng.random())) for _ in range(200)]
    whole, first = ItemLearner(EVERY, 0.1, start), ItemLearner(EVERY, 0.1, start)
    for n, (item, mean_M, reward) in enumerate(outcomes):
        if n == 90:
            again = ItemLearner(EVERY, 0.1, start)
            again.load({name: array.copy() for name, array in first.arrays().items()})
            first = again
        for items in (whole, first):
            items.learn(item, mean_M, reward)
    for name, array in whole.arrays().items():
        np.testing.assert_array_equal(first.arrays()[name], array)
    assert (np.diff(whole.arrays()["rows"]) > 0).all()


def test_saved_weights_of_other_members_are_refused() -> None:
    items = ItemLearner(EVERY, 0.1)
    items.learn(0, np.zeros(3), 1.0)
    with pytest.raises(ValueError, match=r"\(1, 3\)"):
        ItemLearner(np.ones(2, np.bool_), 0.1).load(items.arrays())


def test_what_is_published_never_changes_and_says_what_did() -> None:
    items = ItemLearner(EVERY, FREE_NOISE)
    assert items.published() is None
    items.learn(3, np.array([0.1, 0.2, 0.3]), 1.0)
    items.learn(1, np.array([0.1, 0.2, 0.3]), 0.0)
    published = items.published()
    assert published is not None
    before, rows = published.weights_NM.copy(), published.rows_N.tolist()
    assert (rows, sorted(items.changed)) == ([1, 3], [1, 3])
    assert items.published() is published
    items.changed.clear()
    items.learn(3, np.array([0.1, 0.2, 0.3]), 1.0)
    assert items.changed == {3}
    np.testing.assert_array_equal(published.weights_NM, before)
    again = items.published()
    assert again is not None
    assert not np.array_equal(again.weights_NM, before)
