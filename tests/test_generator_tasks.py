"""Tasks: grouping, the latest rows, sampling, scaling, and rows found again by hand."""

import numpy as np
import pyarrow as pa
import pytest

from actors.generator.serialise import Serialiser
from actors.generator.tasks import Logged, build, group, user_keys
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tests.generator_worlds import OneHots, planted

PLAIN = Serialiser((), {}, {})


def replaced(dataset: Dataset, name: str, values: list[object]) -> Dataset:
    events = dataset.events
    field = events.schema.field(name)
    column = pa.array(values, field.type)
    events = events.set_column(events.schema.get_field_index(name), field, column)
    return Dataset(dataset.format, events, dataset.items, dataset.users)


def test_groups_keep_the_latest_rows_in_order() -> None:
    found = group(["b", "a", "b", "b"], limit=2)
    assert {k: v.tolist() for k, v in found.items()} == {"b": [2, 3], "a": [1]}
    assert list(found) == ["b", "a"]


def test_a_key_is_the_user_else_the_session_else_the_event() -> None:
    dataset, _ = planted(users=1, rows=3, seed=0)
    dataset = replaced(dataset, "user_id", ["u", None, None])
    dataset = replaced(dataset, "session_id", ["s1", "s2", None])
    dataset = replaced(dataset, "client_id", ["a", "a", "b/c"])
    assert user_keys(dataset.events) == ["u:a/u", "s:a/s2", "e:b%2Fc/e2"]


def test_rows_are_those_of_the_user_and_rewards_are_scaled() -> None:
    dataset, _ = planted(users=5, rows=8, seed=1)
    logged = Logged.of(dataset, np.arange(40), OneHots(), -1.0, 3.0)
    tasks = build(dataset, logged, PLAIN, limit=4, most=99, seed=0)
    users, items = user_keys(dataset.events), dataset.events["item_id"].to_pylist()
    rewards = dataset.events["reward"].to_pylist()
    assert sorted(tasks.keys) == sorted(set(users))
    for u, key in enumerate(tasks.keys):
        rows = [i for i in range(40) if users[i] == key][-4:]
        mine = slice(tasks.start_U[u], tasks.start_U[u + 1])
        assert tasks.phi_ND[mine].argmax(1).tolist() == [0] * len(rows)
        assert (tasks.phi_ND[mine, 1:].argmax(1) == [int(items[i][1:]) for i in rows]).all()
        np.testing.assert_allclose(tasks.reward_N[mine], [(rewards[i] + 1) / 4 for i in rows])


def test_a_part_of_the_tasks_is_drawn_alike_each_time() -> None:
    dataset, _ = planted(users=20, rows=3, seed=1)
    logged = Logged.of(dataset, np.arange(60), OneHots(), 0.0, 1.0)
    one, two = (build(dataset, logged, PLAIN, limit=9, most=7, seed=4) for _ in range(2))
    assert len(one) == 7
    assert one.keys == two.keys
    some = one.take(np.array([3, 1]))
    assert some.keys == (one.keys[3], one.keys[1])
    assert some.start_U.tolist() == [0, one.sizes_U[3], one.sizes_U[3] + one.sizes_U[1]]
    np.testing.assert_array_equal(some.reward_N[: one.sizes_U[3]], one.reward_N[one.start_U[3] : one.start_U[4]])


def test_rows_without_reward_are_left_out_and_none_at_all_is_an_error() -> None:
    dataset, _ = planted(users=2, rows=4, seed=1)
    dataset = replaced(dataset, "reward", [None] * 7 + [1.0])
    assert len(Logged.of(dataset, np.arange(8), OneHots(), 0.0, 1.0).reward_N) == 1
    with pytest.raises(EvidenceError, match="none of 5 events has a reward"):
        Logged.of(dataset, np.arange(5), OneHots(), 0.0, 1.0)
