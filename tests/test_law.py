"""Statistical tests have fixed seeds; each states the rate at which it would fail with another seed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from actors.bandits import law, members
from actors.bandits.blending import blend_deviations
from actors.bandits.history import History
from actors.bandits.members import Member, Shared, Uniform, custom
from actors.bandits.noise import CHOICE, Noise
from actors.bandits.posterior import Gaussian
from actors.bandits.published import Published
from actors.features.features import Features
from actors.features.keys import item_keys
from cluster.errors import ModelError
from tests import bandit_cases as cases

DIMENSION, ITEMS = 4, 6


def every_kind(rng: np.random.Generator, arms: bool = False) -> Published:
    """Uniform, popularity, two linear models and a mixture of unequal weights."""
    rows = ITEMS + 1 if arms else 1
    found: tuple[Member, ...] = (
        Shared("popularity", cases.posterior(rng, ITEMS + 1, 1), "items"),
        cases.shared(rng, rows, DIMENSION, "linear"),
        Uniform(),
        cases.mixture(rng, 3, rows, DIMENSION),
        cases.shared(rng, rows, DIMENSION, "forgetting"),
    )
    weights = np.array([0.1, 0.25, 0.2, 0.3, 0.15])
    alternatives = 0.8 * np.array([0.3, 0.1, 0.2, 0.25, 0.15])
    return replace(
        cases.published(*found, dimension=DIMENSION, weights=weights, delta=0.3, epsilon=0.05),
        alternatives_M=alternatives,
    )


def scores(state: Published, decision: Features, past: History, seed: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Scores (P, K) by the formulas of docs/law.md, written out in double precision: the blend's, each member's."""
    noise = Noise(seed, state.law.particles)
    weights, means, draws, own = [], [], [], {}
    for m, member in enumerate(state.members):
        if isinstance(member, Uniform):
            continue
        found = members.scores(member, decision, past, noise, state.law.exploration_scale)
        weights.append(state.weights_M[m])
        means.append(found.mean_K)
        draws.append(found.deviation_PK.astype(np.float64))
        own[m] = means[-1] + draws[-1]
    share = np.array(weights) / sum(weights)
    mean_K = sum(w * mean for w, mean in zip(share, means, strict=True))
    deviation_PK = sum(w * draw for w, draw in zip(share, draws, strict=True))
    wanted_K = sum(w * np.sqrt((draw**2).mean(0)) for w, draw in zip(share, draws, strict=True))
    return mean_K + deviation_PK * wanted_K / np.sqrt((deviation_PK**2).mean(0)), own


def particles(state: Published, decision: Features, past: History, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Best items: of the blend, (P,), of each member, (M, P)."""
    blend_PK, own = scores(state, decision, past, seed)
    best_MP = np.full((len(state.members), state.law.particles), -1)
    for m, score_PK in own.items():
        best_MP[m] = score_PK.argmax(1)
    return blend_PK.argmax(1), best_MP


def clear(state: Published, decision: Features, seed: int) -> bool:
    """Whether each particle's best item is ahead by more than single precision can lose.

    Scores are compared as differences to the greatest mean of the items that are there, rounded to single
    precision. Without that item they round otherwise, and two that differ by a rounding error may change places.
    """
    blend_PK, own = scores(state, decision, History.empty(state.dimension), seed)
    if len(decision) == 1:
        return True
    best = [np.partition(score_PK, -2, axis=1)[:, -2:] for score_PK in (blend_PK, *own.values())]
    return bool((np.diff(best) > 1e-5).all())


@pytest.mark.parametrize("arms", [False, True])
def test_pi_is_the_law_of_a_million_draws(arms: bool) -> None:
    """The choice as it is told (a coin for ε, one for δ, a member, a particle, its best item), a million times
    at one seed, against π: chi-square, error rate 0.001."""
    rng, draws = np.random.default_rng(1 + arms), 1_000_000
    state, decision = every_kind(rng, arms), cases.features(rng, ITEMS, DIMENSION, arms)
    past = cases.history(rng, 5, ITEMS if arms else 1, DIMENSION)
    found = law.probabilities(state, decision, past, 77)
    blend_P, best_MP = particles(state, decision, past, 77)
    particle = rng.integers(state.law.particles, size=draws)
    member = rng.choice(len(state.members), draws, p=state.alternatives_M / state.alternatives_M.sum())
    alone = best_MP[member, particle]
    anything = rng.integers(ITEMS, size=draws)
    alone = np.where(alone < 0, anything, alone)
    asked = rng.random(draws) < state.law.delta * state.alternatives_M.sum()
    chosen = np.where(asked, alone, blend_P[particle])
    chosen = np.where(rng.random(draws) < state.law.epsilon, anything, chosen)
    counts = np.bincount(chosen, minlength=ITEMS)
    assert stats.chisquare(counts, draws * found.pi_K).pvalue > 1e-3
    for m in range(len(state.members)):
        counts = np.bincount(best_MP[m][best_MP[m] >= 0], minlength=ITEMS)
        expected = counts / 64 if counts.any() else np.full(ITEMS, 1 / ITEMS)
        np.testing.assert_allclose(found.member_MK[m], expected, atol=1e-12)


def test_choices_follow_pi_at_a_fixed_seed() -> None:
    """A million numbers through the same inverse of the distribution function, error rate 0.001."""
    rng = np.random.default_rng(3)
    state, decision = every_kind(rng), cases.features(rng, ITEMS, DIMENSION)
    pi_K = law.probabilities(state, decision, None, 5).pi_K
    uniform = rng.random(1_000_000)
    counts = np.bincount(np.searchsorted(np.cumsum(pi_K), uniform, side="right"), minlength=ITEMS)
    assert stats.chisquare(counts, len(uniform) * pi_K).pvalue > 1e-3
    for u in uniform[:200]:
        assert law._pick(pi_K, u) == np.searchsorted(np.cumsum(pi_K), u, side="right")


def test_choices_over_seeds_follow_the_mean_of_pi() -> None:
    """20,000 decisions of one state: Σ(1[k chosen] − π_k) has variance Σπ_k(1 − π_k); six z-tests at 0.001 together."""
    rng, seeds = np.random.default_rng(4), 20_000
    state, decision = every_kind(rng), cases.features(rng, ITEMS, DIMENSION)
    excess_K, variance_K = np.zeros(ITEMS), np.zeros(ITEMS)
    for seed in range(seeds):
        pi_K = law.probabilities(state, decision, None, seed).pi_K
        excess_K[law._pick(pi_K, Noise(seed, 1).uniform(CHOICE, 0))] += 1
        excess_K -= pi_K
        variance_K += pi_K * (1 - pi_K)
    assert (abs(excess_K) < stats.norm.isf(0.0005 / ITEMS) * np.sqrt(variance_K)).all()


def test_decide_draws_from_the_law_that_it_logs() -> None:
    """3,000 decisions: hits of the likeliest item against Σπ, error rate 0.001."""
    rng = np.random.default_rng(5)
    state, decision = every_kind(rng), cases.features(rng, ITEMS, DIMENSION)
    hits = expected = variance = 0.0
    for seed in range(3000):
        slot, found = law.decide(state, decision, None, seed).slots[0], law.probabilities(state, decision, None, seed)
        assert slot.propensity == found.pi_K[slot.index]
        np.testing.assert_array_equal(slot.member_propensities_M, found.member_MK[:, slot.index])
        top = int(found.pi_K.argmax())
        hits, expected = hits + (slot.index == top), expected + found.pi_K[top]
        variance += found.pi_K[top] * (1 - found.pi_K[top])
    assert abs(hits - expected) < stats.norm.isf(0.0005) * variance**0.5


@pytest.mark.parametrize("arms", [False, True])
def test_the_mean_of_pi_is_thompson_sampling(arms: bool) -> None:
    """One linear member, no mixing: π averaged over 4,000 seeds against argmax shares of 400,000 draws of θ by
    numpy. Both have error; 5 standard errors, those of π from its own spread."""
    rng = np.random.default_rng(6)
    belief = cases.posterior(rng, ITEMS + 1 if arms else 1, DIMENSION)
    state = cases.published(Shared("linear", belief, "features"), dimension=DIMENSION, delta=0.0, epsilon=1e-9)
    decision = cases.features(rng, ITEMS, DIMENSION, arms)
    pi_NK = np.stack([law.probabilities(state, decision, None, seed).pi_K for seed in range(4000)])
    theta_KND = np.stack(
        [rng.normal(size=(400_000, DIMENSION)) @ belief.factor_ADD[k].T + belief.mean_AD[k] for k in range(ITEMS)]
        if arms
        else [rng.normal(size=(400_000, DIMENSION)) @ belief.factor_ADD[0].T + belief.mean_AD[0]] * ITEMS
    )
    score_KN = np.einsum("knd,kd->kn", theta_KND, decision.phi_KD)
    share_K = np.bincount(score_KN.argmax(0), minlength=ITEMS) / 400_000
    error_K = np.sqrt(pi_NK.var(0) / 4000 + share_K * (1 - share_K) / 400_000)
    assert (abs(pi_NK.mean(0) - share_K) <= 5 * error_K + 1e-6).all()


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.booleans(), st.floats(1e-3, 0.5), st.floats(0, 1))
def test_pi_sums_to_one_and_gives_each_item_its_floor(
    seed: int, items: int, arms: bool, epsilon: float, delta: float
) -> None:
    rng = np.random.default_rng(seed)
    rows = items + 1 if arms else 1
    state = cases.published(
        cases.shared(rng, rows, DIMENSION), Uniform(), dimension=DIMENSION, epsilon=epsilon, delta=delta
    )
    found = law.probabilities(state, cases.features(rng, items, DIMENSION, arms), None, seed)
    assert found.pi_K.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(found.member_MK.sum(1), 1, atol=1e-12)
    assert (found.pi_K >= epsilon / items * (1 - 1e-12)).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.permutations(range(ITEMS)), st.booleans())
def test_the_order_of_items_does_not_matter(seed: int, order: list[int], arms: bool) -> None:
    rng = np.random.default_rng(seed)
    state, decision = every_kind(rng, arms), cases.features(rng, ITEMS, DIMENSION, arms)
    found = law.probabilities(state, decision, None, seed)
    moved = law.probabilities(state, decision.take(np.array(order)), None, seed)
    np.testing.assert_array_equal(moved.pi_K, found.pi_K[order])
    np.testing.assert_array_equal(moved.member_MK, found.member_MK[:, order])


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(0, ITEMS - 1), st.booleans())
def test_without_an_item_the_others_keep_their_particles(seed: int, gone: int, arms: bool) -> None:
    """No item may lose share when another leaves the list."""
    rng = np.random.default_rng(seed)
    state, decision = every_kind(rng, arms), cases.features(rng, ITEMS, DIMENSION, arms)
    rest = np.delete(np.arange(ITEMS), gone)
    assume(clear(state, decision, seed) and clear(state, decision.take(rest), seed))
    before = law.probabilities(state, decision, None, seed)
    after = law.probabilities(state, decision.take(rest), None, seed)
    assert (after.member_MK >= before.member_MK[:, rest] - 1e-12).all()
    assert (after.pi_K >= before.pi_K[rest] - 1e-12).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, ITEMS), st.booleans())
def test_slots_are_conditional_and_without_repetition(seed: int, slots: int, arms: bool) -> None:
    """Each slot's propensity is that of a decision among the items that are left."""
    rng = np.random.default_rng(seed)
    state, decision = every_kind(rng, arms), cases.features(rng, ITEMS, DIMENSION, arms)
    found = law.decide(state, decision, None, seed, slots).slots
    rest = list(range(ITEMS))
    for slot in found:
        assume(clear(state, decision.take(np.array(rest)), seed))
        alone = law.probabilities(state, decision.take(np.array(rest)), None, seed)
        place = rest.index(slot.index)
        assert slot.propensity == pytest.approx(alone.pi_K[place], abs=1e-12)
        np.testing.assert_allclose(slot.member_propensities_M, alone.member_MK[:, place], atol=1e-12)
        assert slot.explored == (place != alone.mean_K.argmax())
        rest.remove(slot.index)
    assert len({slot.index for slot in found}) == slots


def test_the_score_is_the_sum_of_the_members_parts() -> None:
    """Uniform's weight of 0.2 is shared out among those that have scores; its own mean counts nothing."""
    rng = np.random.default_rng(15)
    state, decision = replace(every_kind(rng), low=-1.0, high=3.0), cases.features(rng, ITEMS, DIMENSION)
    past = cases.history(rng, 5, 1, DIMENSION)
    slot = law.decide(state, decision, past, 8).slots[0]
    noise, expected = Noise(8, 64), np.zeros(5)
    for m in (0, 1, 3, 4):
        expected[m] = members.scores(state.members[m], decision, past, noise, 1.0).mean_K[slot.index]
    np.testing.assert_allclose(slot.member_means_M, expected, atol=1e-12)
    np.testing.assert_allclose(state.shares_M, np.array([0.1, 0.25, 0.0, 0.3, 0.15]) / 0.8)
    assert slot.score == pytest.approx(-1 + 4 * float(state.shares_M @ expected), abs=1e-12)


def test_a_blend_of_one_member_is_that_member() -> None:
    rng = np.random.default_rng(7)
    one = cases.published(cases.mixture(rng, 3, 1, DIMENSION), dimension=DIMENSION, delta=0.4, epsilon=0.01)
    found = law.probabilities(one, cases.features(rng, ITEMS, DIMENSION), None, 3)
    np.testing.assert_allclose(found.pi_K, 0.99 * found.member_MK[0] + 0.01 / ITEMS, atol=1e-12)


def test_ten_equal_members_explore_as_one_does() -> None:
    rng = np.random.default_rng(8)
    model, decision = cases.shared(rng, 1, DIMENSION), cases.features(rng, ITEMS, DIMENSION)
    ten = [replace(model, name=f"linear{i}") for i in range(10)]
    one = law.probabilities(cases.published(model, dimension=DIMENSION), decision, None, 3)
    all_ten = law.probabilities(cases.published(*ten, dimension=DIMENSION), decision, None, 3)
    np.testing.assert_allclose(all_ten.pi_K, one.pi_K, atol=1e-12)


def test_a_blend_of_independent_draws_keeps_the_weighted_mean_of_spreads() -> None:
    """Not the root of the sum of squares: ten members of spread 1 blend to spread 1, not 0.32. The second item
    has spreads 1..10 with weights 1/10: 5.5."""
    rng = np.random.default_rng(9)
    drawn_SPK = rng.normal(size=(10, 64, 2))
    drawn_SPK /= np.sqrt((drawn_SPK**2).mean(1, keepdims=True))
    drawn_SPK[:, :, 1] *= np.arange(1, 11)[:, None]
    blended_PK = blend_deviations(drawn_SPK[None, None], np.full(10, 0.1))[0, 0]
    np.testing.assert_allclose(np.sqrt((blended_PK**2).mean(0)), [1.0, 5.5])


def test_spreads_are_those_of_both_particles_of_a_pair() -> None:
    """By hand, one item, two members of one pair: deviations (3, -3) and (0, 4), spreads 3 and √8, halves of both:
    (1.5, 0.5) of spread √1.25, wanted 1.5 + √2."""
    drawn_TSHK = np.array([[3.0, 0.0], [-3.0, 4.0]])[:, :, None, None]
    blended_T = blend_deviations(drawn_TSHK[None], np.full(2, 0.5)).ravel()
    np.testing.assert_allclose(blended_T, np.array([1.5, 0.5]) * (1.5 + 2**0.5) / 1.25**0.5)


def test_uniform_has_no_part_in_particles_but_in_the_delta_share() -> None:
    rng = np.random.default_rng(10)
    model, decision = cases.shared(rng, 1, DIMENSION), cases.features(rng, ITEMS, DIMENSION)
    both = cases.published(
        model, Uniform(), dimension=DIMENSION, weights=np.array([0.001, 0.999]), delta=0.2, epsilon=0.01
    )
    found = law.probabilities(both, decision, None, 3)
    blend_K = found.member_MK[0]
    expected = 0.99 * (0.8 * blend_K + 0.2 * (0.001 * blend_K + 0.999 / ITEMS)) + 0.01 / ITEMS
    np.testing.assert_allclose(found.pi_K, expected, atol=1e-12)


def test_uniform_alone_is_uniform() -> None:
    state = cases.published(Uniform(), dimension=DIMENSION)
    decision = cases.features(np.random.default_rng(0), ITEMS, DIMENSION)
    np.testing.assert_allclose(law.probabilities(state, decision, None, 1).pi_K, 1 / ITEMS)
    slots = law.decide(state, decision, None, 1, ITEMS).slots
    assert [slot.propensity for slot in slots] == pytest.approx([1 / k for k in range(ITEMS, 0, -1)])
    assert not any(slot.explored for slot in slots)


def test_a_single_item_is_certain() -> None:
    rng = np.random.default_rng(0)
    slot = law.decide(every_kind(rng), cases.features(rng, 1, DIMENSION), None, 1).slots[0]
    assert (slot.index, slot.explored) == (0, False)
    assert slot.propensity == pytest.approx(1)


def certain(means: list[float], count: int = 1, **law_settings: float) -> tuple[Published, Features]:
    """Items of known mean without variance: the features are one-hots behind the intercept."""
    n = len(means)
    belief = Gaussian(np.array([[0.0, *means]]), np.zeros((1, n + 1, n + 1)))
    phi_KD = np.hstack([np.ones((n, 1)), np.eye(n)])
    zeros, places = np.zeros(n, np.int64), np.arange(n)
    decision = Features(phi_KD, zeros, places, item_keys([f"i{k}" for k in places]), np.zeros(1))
    models = [Shared("linear" + "'" * m, belief, "features") for m in range(count)]
    return cases.published(*models, dimension=n + 1, **law_settings), decision


def test_without_variance_the_best_item_has_all_but_the_floor() -> None:
    """By hand, ε = 0.03 over three items, rewards declared in [-1, 3]: 0.98 for the best, 0.6·4 − 1 its score."""
    state, decision = certain([0.2, 0.6, 0.5], epsilon=0.03)
    state = replace(state, low=-1.0, high=3.0)
    np.testing.assert_allclose(law.probabilities(state, decision, None, 1).pi_K, [0.01, 0.98, 0.01])
    seen = {slot.index: slot for seed in range(300) for slot in law.decide(state, decision, None, seed).slots}
    assert {index: slot.explored for index, slot in seen.items()} == {0: True, 1: False, 2: True}
    assert {index: slot.score for index, slot in seen.items()} == pytest.approx({0: -0.2, 1: 1.4, 2: 1.0})
    assert seen[0].models == {"linear": 1.0}


@pytest.mark.parametrize("count", [1, 2])
def test_items_that_nothing_tells_apart_share_alike(count: int) -> None:
    """Three equal best items of five: 3,000 seeds, chi-square at 0.001; all of them count as the best."""
    state, decision = certain([0.6, 0.1, 0.6, 0.6, 0.1], count)
    wins = [int(law.probabilities(state, decision, None, seed).pi_K.argmax()) for seed in range(3000)]
    counts = np.bincount(wins, minlength=5)
    assert counts[[1, 4]].sum() == 0
    assert stats.chisquare(counts[[0, 2, 3]]).pvalue > 1e-3
    slots = [law.decide(state, decision, None, seed).slots[0] for seed in range(50)]
    assert all(slot.explored == (slot.index in (1, 4)) for slot in slots)


def test_the_same_seed_is_the_same_decision() -> None:
    rng = np.random.default_rng(11)
    state, decision = every_kind(rng), cases.features(rng, ITEMS, DIMENSION)
    past = cases.history(rng, 5, 1, DIMENSION)
    one, two = (law.decide(state, decision, past, 2**63 + 9, 3) for _ in range(2))
    assert [s.index for s in one.slots] == [s.index for s in two.slots]
    assert [s.propensity for s in one.slots] == [s.propensity for s in two.slots]


def test_credit_is_bounded() -> None:
    """π_m/π ≤ M/((1 − ε)δFs) with w̃ at its least, sF/M, s = ½."""
    rng = np.random.default_rng(12)
    state = every_kind(rng)
    least = np.full(5, 0.5 * 0.1 / 5)
    least[2] = 1 - 0.1 / 5 * 4
    state = replace(state, alternatives_M=least)
    for seed in range(200):
        found = law.probabilities(state, cases.features(rng, ITEMS, DIMENSION), None, seed)
        assert (found.member_MK / found.pi_K).max() <= 5 / (0.95 * 0.3 * 0.1 * 0.5) + 1e-9


def test_members_whose_weights_vanish_are_blended_alike() -> None:
    rng = np.random.default_rng(13)
    models = (cases.shared(rng, 1, DIMENSION, "one"), cases.shared(rng, 1, DIMENSION, "two"))
    decision = cases.features(rng, ITEMS, DIMENSION)
    none = cases.published(*models, Uniform(), dimension=DIMENSION, weights=np.array([0.0, 0.0, 1.0]), delta=0.0)
    even = cases.published(*models, Uniform(), dimension=DIMENSION, weights=np.array([0.5, 0.5, 0.0]), delta=0.0)
    one, two = (law.probabilities(state, decision, None, 1).pi_K for state in (none, even))
    np.testing.assert_allclose(one, two)


def test_more_slots_than_items_are_refused() -> None:
    rng = np.random.default_rng(0)
    state, decision = every_kind(rng), cases.features(rng, 2, DIMENSION)
    for slots in (0, 3):
        with pytest.raises(ModelError, match=f"{slots} slots cannot be filled from 2"):
            law.decide(state, decision, None, 1, slots)
    with pytest.raises(ModelError, match="1 slots cannot be filled from 0"):
        law.decide(state, decision.take(np.array([], np.int64)), None, 1)


def same(one: law.Decision, two: law.Decision) -> bool:
    """Bit by bit."""
    slots = zip(one.slots, two.slots, strict=True)
    return np.array_equal(one.first_K, two.first_K) and all(
        (a.index, a.score, a.propensity, a.explored) == (b.index, b.score, b.propensity, b.explored)
        and np.array_equal(a.member_propensities_M, b.member_propensities_M)
        and np.array_equal(a.member_means_M, b.member_means_M)
        for a, b in slots
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.lists(st.tuples(st.sampled_from([2, 3, 9, 140]), st.integers(1, 2), st.booleans()), min_size=1, max_size=9),
    st.booleans(),
)
def test_a_decision_is_the_same_in_any_company(seed: int, asked: list[tuple[int, int, bool]], arms: bool) -> None:
    """With others of as many items or of other numbers, more than are computed together, some over a part."""
    rng = np.random.default_rng(seed)
    state, questions = every_kind(rng, arms), []
    for items, slots, parted in asked:
        decision = cases.features(rng, items, DIMENSION)
        if arms:
            decision = replace(decision, arm_K=rng.integers(-1, ITEMS, items))
        decision = replace(decision, item_K=rng.integers(-1, ITEMS, items))
        past = cases.history(rng, 4, ITEMS if arms else 1, DIMENSION) if parted else None
        part = law.Part(items + 5, items) if parted else None
        questions.append(law.Question(decision, past, int(rng.integers(2**62)), slots, part))
    questions = [q for q in questions if q.part is None or not law.outside(state, q.seed, q.part, q.slots)]
    for question, found in zip(questions, law.decide_many(state, questions), strict=True):
        q = question
        assert same(found, law.decide(state, q.features, q.history, q.seed, q.slots, q.part))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_decide_nothing(bad: float) -> None:
    rng = np.random.default_rng(0)
    state, decision = every_kind(rng), cases.features(rng, 3, DIMENSION)
    phi_KD = decision.phi_KD.copy()
    phi_KD[1, 2] = bad
    for spoilt in (replace(decision, phi_KD=phi_KD), replace(decision, context_X=np.array([0.0, bad, 0.0]))):
        with pytest.raises(ModelError, match="features are not finite"):
            law.decide(state, spoilt, None, 1)


def test_a_member_that_is_not_finite_is_named() -> None:
    rng = np.random.default_rng(0)
    spoilt = Gaussian(np.full((1, DIMENSION), np.nan), np.eye(DIMENSION)[None])
    state = cases.published(cases.shared(rng, 1, DIMENSION), Shared("broken", spoilt, "features"), dimension=DIMENSION)
    with pytest.raises(ModelError, match=r"\['broken'\] are not finite"):
        law.decide(state, cases.features(rng, 3, DIMENSION), None, 1)


def test_features_of_another_map_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ModelError, match="5 features do not fit a model of 4"):
        law.decide(every_kind(rng), cases.features(rng, 3, 5), None, 1)


def test_own_models_take_part() -> None:
    """Before any reward `Counts` cannot tell items apart: each has the same chance over seeds (chi-square, 0.001)."""
    own = custom("tests.test_members:Counts", (1, DIMENSION, ITEMS))
    state = cases.published(own, dimension=DIMENSION, delta=0.0)
    decision = cases.features(np.random.default_rng(0), ITEMS, DIMENSION)
    total_K = sum(law.probabilities(state, decision, None, seed).pi_K for seed in range(500))
    assert stats.chisquare(total_K).pvalue > 1e-3


def test_unknown_items_are_decided_by_the_prior() -> None:
    """With parameters per item, the last row is what an unknown item gets; here it is by far the best."""
    rng = np.random.default_rng(14)
    belief = cases.posterior(rng, ITEMS + 1, DIMENSION)
    belief.mean_AD[-1] = [50.0, *np.zeros(DIMENSION - 1)]
    state = cases.published(Shared("linear", belief, "features"), dimension=DIMENSION)
    decision = cases.features(rng, ITEMS, DIMENSION, arms=True)
    decision.arm_K[3] = -1
    assert law.probabilities(state, decision, None, 1).pi_K.argmax() == 3
