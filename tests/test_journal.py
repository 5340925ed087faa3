"""The journal: durable before it is acknowledged, joined exactly once, windows by the server's time."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.config import RewardKind
from cluster.errors import JournalError
from cluster.journal.journal import (
    Agreement,
    DecisionRecord,
    ItemRecord,
    Reader,
    Repeat,
    Shown,
)
from cluster.journal.store import reduce
from cluster.sql import Sql
from tests.journal_cases import WAIT_S, Clock, decision, opened, outcomes, place, reward


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return place(request, tmp_path)


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
