import hashlib

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from cluster import records
from tune import split


def dataset(users: list[str | None], sessions: list[str | None], form: str = "feedback") -> records.Dataset:
    n = len(users)
    columns = {
        "event_id": [f"e{i}" for i in range(n)],
        "timestamp": pa.array(range(n), pa.int64()).cast(pa.timestamp("us", "UTC")),
        "client_id": ["c"] * n,
        "user_id": pa.array(users, pa.string()),
        "session_id": pa.array(sessions, pa.string()),
        "item_id": ["i"] * n,
    }
    arrays = [columns[field.name] if field.name in columns else pa.nulls(n, field.type) for field in records.EVENTS]
    empty = records.ITEMS.empty_table()
    return records.Dataset(form, pa.table(arrays, schema=records.EVENTS), empty, records.USERS.empty_table(), facts={})


ids = st.one_of(st.none(), st.integers(0, 20).map(str))


@examples(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ids, ids), max_size=200), st.integers(0, 5), st.sampled_from(["feedback", "table"]))
def test_parts_are_disjoint_and_no_user_is_in_two(
    rows: list[tuple[str | None, str | None]], seed: int, form: str
) -> None:
    data = dataset([user for user, _ in rows], [session for _, session in rows], form)
    parts = split.parts(data, seed)
    taken = np.concatenate([parts.fit, parts.stop, parts.select, parts.confirm, parts.world])
    assert len(set(taken)) == len(taken) <= len(rows)
    assert parts.unjudged.tolist() == sorted(set(taken) - {*parts.confirm, *parts.world})
    if form == "table":
        assert sorted(taken) == list(range(len(rows)))
        return
    where: dict[tuple[str, str], str] = {}
    for name in ("fit", "stop", "select", "confirm"):
        for row in getattr(parts, name):
            user, session = rows[row]
            task = ("user", user) if user else ("session", session) if session else ("row", str(row))
            assert where.setdefault(task, name) == name


def test_the_world_is_the_last_fifth_and_confirm_the_later_half_of_its_users() -> None:
    users: list[str | None] = [f"u{i % 500}" for i in range(10_000)]
    parts = split.parts(dataset(users, [None] * 10_000), seed=3)
    np.testing.assert_array_equal(parts.world, np.arange(8_000, 10_000))
    confirm_users = {users[row] for row in parts.confirm}
    theirs = [row for row in range(8_000) if users[row] in confirm_users]
    np.testing.assert_array_equal(parts.confirm, theirs[len(theirs) // 2 :])


def test_shares_are_as_stated() -> None:
    """10,000 users, each in a part by chance: four standard errors around each share."""
    users: list[str | None] = [f"u{i}" for i in range(10_000)]
    parts = split.parts(dataset(users, [None] * 10_000), seed=0)
    for found, share in ((parts.fit, 0.5), (parts.stop, 0.1), (parts.select, 0.2)):
        assert abs(len(found) / 8_000 - share) < 4 * np.sqrt(share * (1 - share) / 8_000)
    assert abs(2 * len(parts.confirm) / 8_000 - 0.2) < 4 * np.sqrt(0.16 / 8_000)
    table = split.parts(dataset(users, [None] * 10_000, "table"), seed=0)
    assert abs(len(table.world) / 10_000 - 0.2) < 4 * np.sqrt(0.16 / 10_000)
    assert np.ptp(table.world) > 9_000, "a table's world is spread over the table"


def test_a_user_keeps_the_part_when_others_come_and_the_seed_changes_it() -> None:
    few = split.unit(pa.array(["u:ann", "u:bob"]), 7, "part")
    many = split.unit(pa.array(["u:carol", "u:bob", "u:dave", "u:ann"]), 7, "part")
    assert (few[0], few[1]) == (many[3], many[1])
    assert few[0] != split.unit(pa.array(["u:ann"]), 8, "part")[0]


def test_the_hash_is_keyed_blake2b() -> None:
    key = hashlib.blake2b(b"7/part", digest_size=32).digest()
    digest = hashlib.blake2b(b"u:ann", key=key, digest_size=8).digest()
    expected = (int.from_bytes(digest, "big") >> 11) / 2**53
    assert split.unit(pa.array(["u:ann"]), 7, "part")[0] == pytest.approx(expected, abs=0)


def test_a_task_is_the_user_else_the_session_else_the_row() -> None:
    events = dataset(["a", None, None, None], ["s", "s", "s", None]).events
    assert split.tasks(events).to_pylist() == ["u:c/a", "s:c/s", "s:c/s", "e:c/e3"]
    np.testing.assert_array_equal(split.task_codes(events), [0, 1, 1, 2])


def test_no_events_give_empty_parts() -> None:
    assert split.parts(dataset([], []), 0).sizes() == dict.fromkeys(("fit", "stop", "select", "confirm", "world"), 0)


def test_the_same_id_under_two_clients_is_two_users() -> None:
    """Also where a client's name and a user's look like another pair when they are put together."""
    data = dataset(["u", "u", "b/u", "u", "2Fb/u"], [None] * 5)
    clients = ["a", "z", "a", "a/b", "a%"]
    events = data.events.set_column(2, records.EVENTS.field("client_id"), pa.array(clients))
    assert len(set(split.tasks(events).to_pylist())) == 5
    np.testing.assert_array_equal(split.task_codes(events), range(5))
