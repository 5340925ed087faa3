import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.history import History

ROWS = st.lists(st.tuples(st.integers(-1, 5), st.floats(0, 1)), max_size=20)


@settings(deadline=None)
@given(ROWS, st.integers(1, 8))
def test_the_last_rows_stay_in_order(rows: list[tuple[int, float]], limit: int) -> None:
    past = History.empty(2)
    for arm, reward in rows:
        past = past.append(np.array([arm, reward]), arm, reward, limit)
    kept = rows[-limit:]
    assert len(past) == len(kept)
    assert list(zip(past.arm_N.tolist(), past.reward_N.tolist(), strict=True)) == kept
    assert past.phi_ND.tolist() == [[arm, reward] for arm, reward in kept]


def test_appending_leaves_the_old_history_as_it_was() -> None:
    old = History.empty(1).append(np.ones(1), 0, 1.0, 2)
    old.append(np.zeros(1), 1, 0.0, 2)
    assert old.phi_ND.tolist() == [[1.0]]
    assert old.arm_N.tolist() == [0]
    assert old.reward_N.tolist() == [1.0]
    assert old.arm_N.dtype == np.int64


def test_histories_are_themselves_alone() -> None:
    """Equal rows of two users are two histories: what follows from one is kept beside that one."""
    one, two = History.empty(1), History.empty(1)
    assert one != two
    assert len({one, two}) == 2
