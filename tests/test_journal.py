"""The journal: durable before it is acknowledged, joined exactly once, windows by the server's time."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import RewardKind
from cluster.errors import JournalError
from cluster.journal.journal import (
    Agreement,
    DecisionRecord,
    ItemRecord,
    Journal,
    OutcomeRow,
    Reader,
    Repeat,
    RewardRecord,
    Shown,
    Work,
)
from cluster.journal.store import reduce
from cluster.sql import Sql

WAIT_S = 20.0


class Clock:
    """Server time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def decision(
    name: str, client: str = "c", slots: int = 1, request_id: str | None = None, request: str = "{}"
) -> DecisionRecord:
    return DecisionRecord(name, client, "u", request_id, 1, 1, slots, request, f'{{"id":"{name}"}}', b"evidence")


def reward(
    name: str, value: float = 1.0, reward_id: str = "r", slot: int = 0, kind: str = "reward", client: str = "c"
) -> RewardRecord:
    return RewardRecord(client, name, slot, kind, value, reward_id)


def opened(where: Path | str, clock: Callable[[], float], **kinds: RewardKind) -> Journal:
    return Journal(str(where), kinds or {"reward": RewardKind(window_s=10)}, clock, close_every_s=0.01)


def outcomes(url: str, number: int, kind: str = "reward") -> list[OutcomeRow]:
    """Wait until there are `number` outcomes, then a little more for those that must not come."""
    reader, deadline = Reader(url), time.monotonic() + WAIT_S
    while len(reader.outcomes(0, 10_000, kind)) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    found = reader.outcomes(0, 10_000, kind)
    reader.close()
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(tmp_path / "journal.db")


def test_an_outcome_per_slot_when_the_window_has_closed(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        journal.decide([decision("a", slots=2), decision("b")]).result(WAIT_S)
        assert journal.reward([reward("a", 0.5, slot=1)]).result(WAIT_S) == ["accepted"]
        clock.now += 9.9
        time.sleep(0.3)  # many times as long as the writer takes to look
        assert outcomes(url, 0) == []
        clock.now += 0.2
        found = outcomes(url, 3)
    assert [(o.seq, o.decision_id, o.slot, o.reward, o.events) for o in found] == [
        (1, "a", 0, 0.0, 0),
        (2, "a", 1, 0.5, 1),
        (3, "b", 0, 0.0, 0),
    ]
    assert found[0].evidence == b"evidence"
    assert (found[0].client, found[0].user, found[0].version, found[0].epoch) == ("c", "u", 1, 1)


def test_a_reward_counts_once(url: str) -> None:
    clock = Clock()
    with opened(url, clock, reward=RewardKind(window_s=10, reducer="sum", high=100.0)) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        first = journal.reward([reward("a", 1.0, "r1"), reward("a", 1.0, "r1"), reward("a", 2.0, "r2")]).result(WAIT_S)
        again = journal.reward([reward("a", 1.0, "r1")]).result(WAIT_S)
        other = journal.reward([reward("a", 1.0, "r1", client="d")]).result(WAIT_S)
        clock.now += 11
        found = outcomes(url, 1)
        counts = Reader(url).counts()
    assert (first, again, other) == (["accepted", "duplicate", "accepted"], ["duplicate"], ["accepted"])
    assert [(o.reward, o.events) for o in found] == [(4.0, 3)]
    assert counts["rewards_duplicate"] == 2
    assert counts["rewards_accepted"] == 3


def test_rewards_before_their_decision_are_parked_and_then_joined(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        assert journal.reward([reward("a", 1.0)]).result(WAIT_S) == ["parked"]
        clock.now += 100
        journal.decide([decision("a")]).result(WAIT_S)
        clock.now += 11
        assert [(o.decision_id, o.reward) for o in outcomes(url, 1)] == [("a", 1.0)]


def test_a_late_reward_is_kept_and_changes_nothing(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        clock.now += 10.5
        assert len(outcomes(url, 1)) == 1
        assert journal.reward([reward("a", 1.0)]).result(WAIT_S) == ["late"]
        assert journal.reward([reward("a", 1.0)]).result(WAIT_S) == ["duplicate"]
        assert [o.reward for o in outcomes(url, 1)] == [0.0]
        assert Reader(url).counts()["rewards_late"] == 1


def test_a_slot_that_the_decision_has_not_is_refused(url: str) -> None:
    with opened(url, Clock()) as journal:
        journal.decide([decision("a", slots=2)]).result(WAIT_S)
        assert journal.reward([reward("a", slot=2), reward("a", slot=1)]).result(WAIT_S) == ["no_slot", "accepted"]


def test_each_kind_has_its_own_window_default_and_reducer(url: str) -> None:
    clock = Clock()
    kinds = {
        "click": RewardKind(window_s=5),
        "buy": RewardKind(window_s=50, default=-1.0, reducer="max", low=-1, high=9),
    }
    with opened(url, clock, **kinds) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        journal.reward([reward("a", 3.0, "r1", kind="buy"), reward("a", 2.0, "r2", kind="buy")]).result(WAIT_S)
        journal.decide([decision("b")]).result(WAIT_S)
        clock.now += 6
        assert [o.reward for o in outcomes(url, 2, "click")] == [0.0, 0.0]
        assert outcomes(url, 0, "buy") == []
        clock.now += 50
        assert [o.reward for o in outcomes(url, 2, "buy")] == [3.0, -1.0]


def test_a_repeated_request_gets_the_stored_answer(url: str) -> None:
    with opened(url, Clock()) as journal:
        first = decision("a", request_id="q", request='{"x":1,"y":2}')
        assert journal.decide([first]).result(WAIT_S) == {}
        same = journal.decide([decision("b"), decision("c", request_id="q", request='{"y":2,"x":1}')]).result(WAIT_S)
        other = journal.decide([decision("d", request_id="q", request='{"x":2}')]).result(WAIT_S)
        foreign = journal.decide([decision("e", request_id="q", client="d")]).result(WAIT_S)
        counts = Reader(url).counts()
    assert (same[1].answer, same[1].same, list(same)) == (first.answer, True, [1])
    assert (other[0].answer, other[0].same) == (first.answer, False)
    assert foreign == {}
    assert (counts["decisions"], counts["repeated_requests"]) == (3, 2)


def test_numbers_go_on_after_a_restart_and_time_never_runs_back(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        secret = journal.secret
    clock.now -= 500  # the machine's clock was set back
    with opened(url, clock) as journal:
        assert journal.secret == secret
        journal.decide([decision("b")]).result(WAIT_S)
        clock.now = 1_010.5  # 10.5 s after both
        assert [(o.seq, o.decision_id) for o in outcomes(url, 2)] == [(1, "a"), (2, "b")]


def test_a_kind_that_is_new_starts_with_what_is_open(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        journal.decide([decision("old")]).result(WAIT_S)
        clock.now += 60
        journal.decide([decision("open")]).result(WAIT_S)
    with opened(url, clock, reward=RewardKind(window_s=10), buy=RewardKind(window_s=20)) as journal:
        clock.now += 30
        assert [o.decision_id for o in outcomes(url, 1, "buy")] == ["open"]


def test_catalogue_changes_are_numbered(url: str) -> None:
    with opened(url, Clock()) as journal:
        assert journal.items([ItemRecord("c", "i1", "{}"), ItemRecord("c", "i2", None)]).result(WAIT_S) == 2
        assert journal.items([ItemRecord("d", "i1", None)]).result(WAIT_S) == 3
    assert Reader(url).changes(1) == [(2, ItemRecord("c", "i2", None)), (3, ItemRecord("d", "i1", None))]


def test_many_writers_of_one_postgres_keep_one_order(postgres_url: str) -> None:
    clock = Clock()
    seen: list[int] = []
    with opened(postgres_url, clock) as one, opened(postgres_url, clock) as two:

        def write(journal: Journal, name: str) -> None:
            for n in range(40):
                journal.decide([decision(f"{name}{n}")]).result(WAIT_S)

        threads = [threading.Thread(target=write, args=(j, name)) for j, name in ((one, "a"), (two, "b"))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        clock.now += 11
        reader, after, deadline = Reader(postgres_url), 0, time.monotonic() + WAIT_S
        while len(seen) < 80 and time.monotonic() < deadline:
            rows = reader.outcomes(after, 7, "reward")
            seen += [row.seq for row in rows]
            after = rows[-1].seq if rows else after
    assert seen == list(range(1, 81))


def test_the_mode_goes_with_the_outcome_and_the_shadow_with_the_decision(url: str) -> None:
    clock = Clock()
    with opened(url, clock) as journal:
        beside = replace(decision("a"), mode="shadow", shadow='{"slots":[]}')
        journal.decide([beside, decision("b")]).result(WAIT_S)
        clock.now += 11
        assert [o.mode for o in outcomes(url, 2)] == ["shadow", "live"]
    assert Reader(url).decision("a") == beside


def test_agreement_adds_up_by_client_and_repeats_add_nothing(url: str) -> None:
    def compared(name: str, client: str, agreed: int, propensity: float) -> DecisionRecord:
        return replace(decision(name, client, request_id=name), agreement=Agreement(1, agreed, propensity))

    with opened(url, Clock()) as journal:
        journal.decide([compared("a", "c", 1, 0.5), compared("b", "c", 0, 0.25), decision("x", "c")]).result(WAIT_S)
        journal.decide([compared("d", "d", 1, 0.125), compared("a", "c", 1, 0.5)]).result(WAIT_S)
    reader = Reader(url)
    assert reader.agreements() == {"c": Agreement(2, 1, 0.75), "d": Agreement(1, 1, 0.125)}
    assert [reader.agreement(client) for client in ("d", "nobody")] == [Agreement(1, 1, 0.125), None]


def test_what_a_user_was_shown(url: str) -> None:
    def showing(name: str, user: str | None, *items: str, client: str = "c") -> DecisionRecord:
        answer = json.dumps({"slots": [{"item_id": item} for item in items]})
        return replace(decision(name, client), user=user, answer=answer)

    clock = Clock()
    with opened(url, clock) as journal:
        journal.decide([showing("a", "u", "i", "j"), showing("b", "v", "k"), showing("n", None, "k")]).result(WAIT_S)
        clock.now += 5
        journal.decide([showing("d", "u", "l"), showing("e", "u", "m", client="d")]).result(WAIT_S)
    reader = Reader(url)
    assert reader.shown("c", "u", 1_000.0) == [Shown(1, 1_000.0, ("i", "j")), Shown(4, 1_005.0, ("l",))]
    assert reader.shown("c", "u", 1_000.0, 1) == reader.shown("c", "u", 1_000.5) == [Shown(4, 1_005.0, ("l",))]
    assert reader.shown("c", "w", 0.0) == []


def test_the_answer_to_a_request_id_can_be_looked_up(url: str) -> None:
    with opened(url, Clock()) as journal:
        journal.decide([decision("a", request_id="q", request='{"x":1,"y":2}')]).result(WAIT_S)
    reader = Reader(url)
    assert reader.answer("c", "q", '{"y":2,"x":1}') == Repeat('{"id":"a"}', True)
    assert reader.answer("c", "q", "{}") == Repeat('{"id":"a"}', False)
    assert reader.answer("d", "q", "{}") is reader.answer("c", "r", "{}") is None


FORMAT_1 = """
CREATE TABLE journal_facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE journal_decisions (
    seq {integer} PRIMARY KEY, decision_id TEXT NOT NULL UNIQUE, client TEXT NOT NULL, user_key TEXT,
    request_id TEXT, version {integer}, epoch {integer} NOT NULL, slots {integer} NOT NULL,
    at {real} NOT NULL, request TEXT NOT NULL, answer TEXT NOT NULL, evidence {blob});
INSERT INTO journal_facts VALUES ('format', '1'), ('secret', 'c0de');
INSERT INTO journal_decisions VALUES (1, 'a', 'c', 'u', NULL, 3, 1, 1, 1000, '{{}}', '{{}}', NULL);
INSERT INTO journal_decisions VALUES (2, 'b', 'c', 'u', NULL, NULL, 0, 1, 1000, '{{}}', '{{}}', NULL)
"""


def test_a_journal_of_format_1_goes_on(url: str) -> None:
    old = Sql(url)
    old.make(FORMAT_1)
    old.close()
    with pytest.raises(JournalError, match=r"format 1.*reads 2.*medley serve"):
        Reader(url).counts()
    clock = Clock()
    with opened(url, clock) as journal:
        assert journal.secret == bytes.fromhex("c0de")
        journal.decide([decision("d")]).result(WAIT_S)
        clock.now += 11
        assert [o.mode for o in outcomes(url, 3)] == ["live", "baseline", "live"]
    opened(url, clock).close()  # and again
    assert Reader(url).counts() == {"decisions": 1, "outcomes": 3}


@pytest.mark.parametrize(
    ("reducer", "expected"),
    [("first", 0.5), ("last", 0.25), ("sum", 1.0), ("mean", 0.5), ("max", 0.75), ("min", 0.25)],
)
def test_reducers(reducer: str, expected: float) -> None:
    kind = RewardKind.model_validate({"reducer": reducer})
    assert reduce(kind, [0.5, 0.75, 0.25]) == expected
    assert reduce(kind, []) == 0.0


KILLED = r"""
import os, sys
from cluster.config import RewardKind
from cluster.journal.journal import DecisionRecord, Journal, RewardRecord
journal = Journal(sys.argv[1], {"reward": RewardKind()})
n = 0
while True:
    name = f"d{n}"
    journal.decide([DecisionRecord(name, "c", None, None, 1, 1, 1, "{}", "{}", None)]).result()
    os.write(1, f"{name}\n".encode())
    journal.reward([RewardRecord("c", name, 0, "reward", 1.0, f"r{n}")]).result()
    os.write(1, f"r{n}\n".encode())
    n += 1
"""


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    where = str(tmp_path / "journal.db")
    child = subprocess.Popen([sys.executable, "-c", KILLED, where], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [child.stdout.readline().strip() for _ in range(200)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += child.stdout.read().split()
    child.wait()
    child.stdout.close()
    with sqlite3.connect(where) as connection:
        kept = {row[0] for row in connection.execute("SELECT decision_id FROM journal_decisions")}
        kept |= {row[0] for row in connection.execute("SELECT reward_id FROM journal_rewards")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    assert len(acknowledged) >= 200
    assert set(acknowledged) - {""} <= kept
    with Journal(where, {"reward": RewardKind()}) as journal:  # and it goes on
        assert journal.decide([decision("after")]).result(WAIT_S) == {}


def test_no_room_is_one_clear_error_and_passes(tmp_path: Path) -> None:
    where = tmp_path / "journal.db"
    with opened(where, Clock()) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        with sqlite3.connect(where) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.close()
        assert journal._store is not None
        journal._store.sql.one(f"PRAGMA max_page_count = {pages}")  # what a full disk answers: SQLITE_FULL
        big = DecisionRecord("b", "c", None, None, 1, 1, 1, "{}", "x" * 1_000_000, None)
        with pytest.raises(JournalError, match=r"journal.db.*full.*disk has space"):
            journal.decide([big]).result(WAIT_S)
        assert journal.failed is not None
        journal._store.sql.one("PRAGMA max_page_count = 1000000")
        journal.decide([big]).result(WAIT_S)
        assert journal.failed is None


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(JournalError, match="can be written"):
        opened(tmp_path / "file" / "journal.db", Clock())
    broken = tmp_path / "journal.db"
    broken.write_bytes(b"this is no database, and long enough to be read as one" * 100)
    with pytest.raises(JournalError, match="not a database"):
        opened(broken, Clock())


def test_a_database_that_is_not_there() -> None:
    with pytest.raises(JournalError, match="database runs"):
        opened("postgresql+psycopg://nobody@127.0.0.1:9/none", Clock())


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    where = tmp_path / "journal.db"
    opened(where, Clock()).close()
    with sqlite3.connect(where) as connection:
        connection.execute("UPDATE journal_facts SET value = '99' WHERE name = 'format'")
    connection.close()
    with pytest.raises(JournalError, match=r"format 99.*upgrade"):
        opened(where, Clock())


def together(journal: Journal, works: list[Work]) -> list[Any]:
    """The results of works that are committed in one transaction."""
    done: Future[list[Any]] = Future()
    journal.submit(works, done.set_result)
    return done.result(WAIT_S)


def test_a_bad_record_hurts_only_itself(url: str) -> None:
    with opened(url, Clock()) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        works = [journal.deciding([decision(name)]) for name in ("b", "a", "c")]  # "a" breaks the unique decision_id
        first, second, third = together(journal, works)
        assert first == third == {}
        assert isinstance(second, JournalError)
        assert Reader(url).counts()["decisions"] == 3


def test_a_database_that_went_away_fails_a_group_at_once(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def unreachable(url: str) -> None:
        tried.append(url)
        raise JournalError("no way there")

    with Journal(postgres_url, {"reward": RewardKind()}, close_every_s=60.0) as journal:
        journal.decide([decision("a")]).result(WAIT_S)
        works = [journal.deciding([decision(f"b{n}")]) for n in range(20)]
        with monkeypatch.context() as patch:
            patch.setattr("cluster.journal.journal.Store", unreachable)
            other = Sql(postgres_url)
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            other.rows(f"{query} AND pid <> pg_backend_pid()")
            other.close()
            for most in (1, 2):
                assert all(isinstance(result, JournalError) for result in together(journal, works))
                assert len(tried) <= most
        assert tried
        assert journal.failed is not None
        assert together(journal, works) == [{}] * 20
        assert journal.failed is None
    assert Reader(postgres_url).counts()["decisions"] == 21


def test_a_group_is_what_its_works_are_one_by_one(url: str) -> None:
    """More records than one statement takes; every third is a repeat, some within the same group."""
    clock = Clock()
    with opened(url, clock) as journal:
        first = [decision(f"a{n}", request_id=f"q{n}") for n in range(0, 60, 3)]
        journal.decide(first).result(WAIT_S)
        decides = [[decision(f"d{n}", request_id=f"q{n % 120}"), decision(f"e{n}")] for n in range(150)]
        rewards = [[reward(f"e{n}", n / 1000, f"r{n % 120}"), reward(f"e{n}", slot=1)] for n in range(150)]
        works = [w for d, r in zip(decides, rewards, strict=True) for w in (journal.rewarding(r), journal.deciding(d))]
        found = together(journal, [*works, journal.changing([ItemRecord("c", "i", None)] * 2)])
        clock.now += 11
        rows = outcomes(url, 20 + 100 + 150)
        counts = Reader(url).counts()
    for n in range(150):
        stored = f"a{n}" if n < 60 and n % 3 == 0 else f"d{n - 120}" if n >= 120 else None
        if n >= 120 and (n - 120) % 3 == 0:
            stored = f"a{n - 120}"
        assert found[2 * n + 1] == ({} if stored is None else {0: Repeat(f'{{"id":"{stored}"}}', True)})
        assert found[2 * n] == ["accepted" if n < 120 else "duplicate", "no_slot"]
    assert found[-1] == 2
    assert counts["decisions"] == len(rows) == 20 + 100 + 150
    assert (counts["repeated_requests"], counts["rewards_duplicate"], counts["rewards_no_slot"]) == (50, 30, 150)
    rewarded = {row.decision_id: row.reward for row in rows if row.events}
    assert rewarded == {f"e{n}": n / 1000 for n in range(120)}


def test_a_closed_journal_says_so(tmp_path: Path) -> None:
    journal = opened(tmp_path / "journal.db", Clock())
    journal.close()
    with pytest.raises(JournalError, match="closed"):
        journal.decide([decision("a")])


class _Model:
    """The joining rule in a few lines: first reward of each id, by arrival, within the window."""

    def __init__(self) -> None:
        self.at: dict[str, float] = {}
        self.rewards: dict[str, tuple[str, float, float]] = {}

    def outcomes(self, now: float) -> dict[str, float]:
        closed = {}
        for name, at in self.at.items():
            if at <= now - 10:
                values = [v for d, v, arrived in self.rewards.values() if d == name and arrived <= at + 10]
                closed[name] = values[0] if values else 0.0
        return closed


@settings(max_examples=25, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("decide"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("reward"), st.integers(0, 5), st.integers(0, 9)),
            st.tuples(st.just("wait"), st.integers(1, 6), st.just(0)),
        ),
        max_size=25,
    )
)
def test_any_order_of_events_joins_as_the_rule_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, int]]
) -> None:
    where = str(tmp_path_factory.mktemp("journal") / "journal.db")
    clock, model = Clock(), _Model()
    with opened(where, clock) as journal:
        for action, which, value in steps:
            name = f"d{which}"
            if action == "decide" and name not in model.at:
                journal.decide([decision(name)]).result(WAIT_S)
                model.at[name] = clock.now
            elif action == "reward":
                record = reward(name, value / 10, reward_id=f"{name}/{value}")
                status = journal.reward([record]).result(WAIT_S)[0]
                if record.reward_id in model.rewards:
                    assert status == "duplicate"
                model.rewards.setdefault(record.reward_id, (name, value / 10, clock.now))
            elif action == "wait":
                clock.now += which
        clock.now += 11
        found = outcomes(where, len(model.at))
    assert {o.decision_id: o.reward for o in found} == model.outcomes(clock.now)
    assert [o.seq for o in found] == list(range(1, len(found) + 1))
