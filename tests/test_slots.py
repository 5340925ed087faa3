"""Slates slot by slot: by hand, against single estimates, and against a known truth."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tests.features_samples import shop
from tune.estimators import evaluate
from tune.log import Log, read
from tune.offpolicy.slots import slots


def slates(rng: np.random.Generator, count: int) -> tuple[Log, np.ndarray, float]:
    """Three positions that are looked at with 1, 0.5 and 0.25, items that then earn 0.1, 0.2, 0.4 or 0.6, and a third
    slot that one slate in two leaves empty. Five slates a user. The log, a policy, and Σπ·earn."""
    look, earn = np.array([1.0, 0.5, 0.25]), np.array([0.1, 0.2, 0.4, 0.6])
    slate = np.repeat(np.arange(count), 3)
    position = np.tile(np.arange(3), count)
    kept = (position < 2) | (rng.random(3 * count) < 0.5)
    slate, position = slate[kept], position[kept]
    n = len(slate)
    p_NK = rng.dirichlet(np.full(4, 5.0), n) * 0.8 + 0.05
    action = (rng.random((n, 1)) > np.cumsum(p_NK, 1)).sum(1)
    reward = (rng.random(n) < look[position] * earn[action]).astype(float)
    log = Log(action, reward, p_NK[np.arange(n), action], slate // 5, np.ones((n, 4), bool), position)
    policy = np.tile([0.1, 0.2, 0.3, 0.4], (n, 1))
    return log, policy, float(policy[0] @ earn)


def test_slots_by_hand() -> None:
    """Position 1: ρr = 2·1, 1·0; position 2: 0.5·1. Two slates, the second of one slot: 1 + 0.5/2."""
    log = Log(
        np.array([0, 0, 0]),
        np.array([1.0, 0.0, 1.0]),
        np.array([0.5, 1.0, 0.5]),
        np.array([0, 1, 0]),
        np.ones((3, 2), bool),
        np.array([1, 1, 2]),
    )
    policy = np.array([[1.0, 0.0], [1.0, 0.0], [0.25, 0.75]])
    found = slots("ips", log, policy)
    assert found.positions == (1, 2)
    assert found.shares == (1.0, 0.5)
    assert [value.value for value in found.values] == [1.0, 0.5]
    assert found.slate.value == pytest.approx(1.25)


def test_each_position_is_an_estimate_of_its_own_rows() -> None:
    log, policy, _ = slates(np.random.default_rng(1), 200)
    found = slots("snips", log, policy, seed=3)
    for position, value in zip(found.positions, found.values, strict=True):
        rows = np.flatnonzero(log.position_N == position)
        one = evaluate("snips", log.take(rows), policy[rows], seed=3)
        assert value.value == pytest.approx(one.value)


@pytest.mark.parametrize("method", ["snips", "dros"])
def test_the_interval_of_a_slate_covers(method) -> None:  # type: ignore[no-untyped-def]
    """150 logs of 60 users. At 95 % coverage more than 16 misses have probability 0.001 (binomial), and none at all has
    0.0005. The truth of a slate is (1 + 0.5 + 0.25 · its share) · Σπ·earn."""
    rng, misses = np.random.default_rng(2), 0
    for _ in range(150):
        log, policy, earned = slates(rng, 300)
        q = np.full(policy.shape, 0.2)
        found = slots(method, log, policy, q, resamples=200)
        truth = (1 + 0.5 + 0.25 * found.shares[2]) * earned
        misses += not found.slate.low <= truth <= found.slate.high
    assert 1 <= misses <= 16


def test_positions_are_read_and_their_lack_is_named() -> None:
    data = shop(20)
    events, items = data.events, data.items["item_id"].to_pylist()
    assert read(events, items, RewardKind()).position_N is None
    place = events.schema.get_field_index("position")
    events = events.set_column(place, "position", pa.array([1, 2] * 10, pa.int32()))
    log = read(events, items, RewardKind())
    np.testing.assert_array_equal(log.position_N, [1, 2] * 10)
    np.testing.assert_array_equal(log.take(np.array([3, 0])).position_N, [2, 1])
    with pytest.raises(EvidenceError, match="no position in every event; map the column"):
        slots("ips", replace(log, position_N=None), log.mask_NK / log.mask_NK.sum(1, keepdims=True))
