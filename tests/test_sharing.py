"""How items that share parameters are put together; the law of their scores is in test_members."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits import law
from actors.bandits.members import Shared, Uniform
from actors.bandits.posterior import gaussian
from actors.bandits.sharing import BLOCK, Groups
from tests import bandit_cases as cases


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, BLOCK + 5)), max_size=12), st.randoms())
def test_blocks_hold_arms_whole_and_each_item_once(sizes: list[tuple[int, int]], random: object) -> None:
    arms = [arm for arm, size in sizes for _ in range(size)]
    random.shuffle(arms)  # type: ignore[attr-defined]
    arm_K = np.array(arms, np.int64)
    groups = Groups.of(arm_K)
    place_K = groups.places()
    assert sorted(groups.order_K.tolist()) == list(range(len(arms)))
    assert arm_K[groups.order_K].tolist() == sorted(arms)
    assert groups.arms_U == sorted(set(arms))
    few = [place for place in place_K.tolist() if place >= 0]
    assert len(set(few)) == len(few)
    for arm, start, end in zip(groups.arms_U, groups.edges_U, groups.edges_U[1:], strict=False):
        assert set(arm_K[groups.order_K[start:end]].tolist()) == {arm}
        assert arms.count(arm) == end - start
        blocks = {place // BLOCK for place in place_K[start:end].tolist()}
        assert len(blocks) == 1
        assert (blocks == {-1}) == (end - start > BLOCK)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, 60), st.booleans())
def test_the_order_of_the_list_changes_no_bit(seed: int, items: int, alike: bool) -> None:
    """Of models of providers and clusters beside others, and where all items see the same context."""
    rng = np.random.default_rng(seed)
    content = [Shared(p.name, gaussian(p.precision_ADD, p.shift_AD), p.view) for p in cases.content(rng, 4)]
    published = cases.published(Uniform(), cases.shared(rng, 1, 4), *content, dimension=4)
    features = replace(cases.features(rng, items, 4, alike), arm_K=np.zeros(items, np.int64), kin=cases.kin(rng, items))
    order_K = rng.permutation(items)
    one = law.probabilities(published, features, None, seed)
    other = law.probabilities(published, features.take(order_K), None, seed)
    assert np.array_equal(one.pi_K[order_K], other.pi_K)
    assert np.array_equal(one.member_MK[:, order_K], other.member_MK)
    assert np.array_equal(one.mean_K[order_K], other.mean_K)
    assert one.pi_K.sum() == pytest.approx(1.0, abs=1e-12)
