"""The law where a part of a catalogue is scored. Statistical tests have fixed seeds and state their error rates."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from actors.bandits import law
from actors.bandits.history import History
from actors.bandits.law import Decision, Part
from actors.bandits.published import Published
from actors.features.features import Features
from cluster.errors import ModelError
from tests import bandit_cases as cases
from tests.test_law import DIMENSION, every_kind, particles

ELIGIBLE, INSIDE = 20, 5


def catalogue(seed: int, epsilon: float) -> tuple[Published, Features]:
    """20 items; the first 5 of them are what is retrieved."""
    rng = np.random.default_rng(seed)
    state, features = every_kind(rng), cases.features(rng, ELIGIBLE, DIMENSION)
    features = replace(features, item_K=np.minimum(features.item_K, 5))
    return replace(state, law=state.law.model_copy(update={"epsilon": epsilon})), features


def decide(state: Published, features: Features, seed: int, slots: int) -> tuple[Decision, list[int]]:
    """A decision, and the chosen items by their place in the catalogue."""
    part = Part(ELIGIBLE, INSIDE)
    rows = [*range(INSIDE), *(INSIDE + place for place in law.outside(state, seed, part, slots))]
    found = law.decide(state, features.take(np.array(rows)), None, seed, slots, part)
    return found, [rows[slot.index] for slot in found.slots]


def whole(state: Published, features: Features, seed: int, inside: list[int], rest: list[int]) -> np.ndarray:
    """π over the catalogue as it is told, from the best items of the particles among the retrieved ones."""
    blend_P, best_MP = particles(state, features.take(np.array(inside)), History.empty(DIMENSION), seed)
    settings, count = state.law, len(inside)
    alone = settings.delta * state.alternatives_M.sum()
    pi = np.zeros(ELIGIBLE)
    for best in blend_P:
        pi[inside[best]] += (1 - settings.epsilon) * (1 - alone) / len(blend_P)
    for share, best_P in zip(state.alternatives_M, best_MP, strict=True):
        for best in best_P:
            where = [inside[best]] if best >= 0 else inside
            pi[where] += (1 - settings.epsilon) * settings.delta * share / len(best_P) / len(where)
    pi[inside] += settings.epsilon / 2 / count
    pi[[*inside, *rest]] += settings.epsilon / 2 / (count + len(rest))
    return pi


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000), st.integers(1, INSIDE), st.sampled_from([0.02, 0.5, 0.99]))
def test_propensities_are_those_of_the_law_over_all_items(seed: int, slots: int, epsilon: float) -> None:
    state, features = catalogue(seed % 7, epsilon)
    found, chosen = decide(state, features, seed, slots)
    inside, rest = list(range(INSIDE)), list(range(INSIDE, ELIGIBLE))
    for slot, item in zip(found.slots, chosen, strict=True):
        pi = whole(state, features, seed, inside, rest)
        assert pi.sum() == pytest.approx(1, abs=1e-12)
        assert slot.propensity == pytest.approx(pi[item], abs=1e-12)
        assert item in inside or not slot.member_propensities_M.any()
        (inside if item in inside else rest).remove(item)
    assert len(set(chosen)) == slots


def test_choices_over_seeds_follow_the_mean_of_pi() -> None:
    """1,500 decisions of two slots: Σ(1[k chosen] − π_k) has variance Σπ_k(1 − π_k); 40 z-tests at 0.001 together."""
    state, features = catalogue(3, 0.6)
    excess, variance = np.zeros((2, ELIGIBLE)), np.zeros((2, ELIGIBLE))
    beyond = np.arange(ELIGIBLE) >= INSIDE
    for seed in range(1_500):
        _, chosen = decide(state, features, seed, 2)
        inside = np.arange(INSIDE)
        for place, item in enumerate(chosen):
            among = law.probabilities(state, features.take(inside), None, seed)
            left = ELIGIBLE - place
            pi = np.where(beyond, 0.3 / left, 0.0)
            pi[chosen[:place]] = 0.0
            pi[inside] = among.pi_K - 0.3 / len(inside) + 0.3 / left
            excess[place, item] += 1
            excess[place] -= pi
            variance[place] += pi * (1 - pi)
            inside = inside[inside != item]
    assert (abs(excess) < stats.norm.isf(0.0005 / excess.size) * np.sqrt(variance)).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_a_part_that_is_everything_is_the_law_itself(seed: int, slots: int) -> None:
    rng = np.random.default_rng(seed)
    state, features = every_kind(rng), cases.features(rng, 6, DIMENSION)
    one = law.decide(state, features, None, seed, slots)
    two = law.decide(state, features, None, seed, slots, Part(6, 6))
    assert [(s.index, s.propensity) for s in one.slots] == [(s.index, s.propensity) for s in two.slots]
    np.testing.assert_array_equal(one.first_K, two.first_K)
    assert law.outside(state, seed, Part(6, 6), slots) == []


def test_the_first_slot_s_law_covers_what_was_drawn_from_outside() -> None:
    """By hand: ε = 0.4 over 20 items is 0.2/20 for one that was not retrieved."""
    state, features = catalogue(1, 0.4)
    seed = next(seed for seed in range(1000) if len(law.outside(state, seed, Part(ELIGIBLE, INSIDE), 2)) == 2)
    found, _ = decide(state, features, seed, 2)
    assert found.first_K[INSIDE:].tolist() == pytest.approx([0.01, 0.01])
    assert found.first_K[:INSIDE].sum() == pytest.approx(1 - 15 * 0.01)
    assert [slot.propensity for slot in found.slots] == pytest.approx([0.2 / 20, 0.2 / 19])


def test_slots_may_not_use_up_what_was_retrieved() -> None:
    state, _ = catalogue(1, 0.4)
    for slots in (0, INSIDE + 1):
        with pytest.raises(ModelError, match=f"{slots} slots cannot be filled from 5 retrieved of 20"):
            law.outside(state, 1, Part(ELIGIBLE, INSIDE), slots)
