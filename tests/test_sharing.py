"""How items that share parameters are put together; the law of their scores is in test_members."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actors.bandits.sharing import BLOCK, Groups


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
