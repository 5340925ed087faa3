"""Histories of users in a replica: dropped for want of room, asked of the learner, and always those of the epoch."""

import asyncio
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.history import History
from cluster import config
from cluster.journal.journal import Reader, journal_url
from cluster.registry import DEFAULT_NAME, Registry
from serve.app import prepare
from serve.decisions import evidence
from serve.decisions.histories import Histories, Missed, Recalled
from serve.learning.service import LearnerService
from serve.releases import Releases
from serve.replay import replay
from tests import serving
from tests.serving import Running

WAIT_S = 20.0
ONE = 600 + 10 * (4 + 2) * 8
"""Bytes of a history of ten rows."""


def history(rows: int = 10, dimension: int = 4) -> History:
    return History(np.ones((rows, dimension)), np.zeros(rows, np.int64), np.ones(rows))


def test_histories_forget_the_least_recently_used() -> None:
    kept = Histories(budget_bytes=3 * ONE)
    for user in "abc":
        kept.update("shop", 1, {user: history()}, 2)
    assert kept.get("shop", 1, "a", 2)[0] is not None
    kept.update("shop", 1, {"d": history()}, 2)
    assert [user for user in "abcd" if kept.get("shop", 1, user, 2)[0]] == ["a", "c", "d"]
    kept.update("shop", 1, {"d": history()}, 2)
    assert len(kept) == 3
    kept.forget(before=2)
    assert len(kept) == 0


def test_a_history_of_a_later_publication_is_not_decided_with() -> None:
    kept = Histories(budget_bytes=10_000)
    kept.update("shop", 1, {"a": history(3)}, 3)
    assert kept.get("shop", 1, "a", 2) == (None, True)
    assert kept.get("shop", 1, "b", 2) == (None, False)
    assert kept.get("shop", 1, "a", 3)[0] is not None
    assert kept.wanted() == []


def test_who_was_dropped_is_asked_for_once_and_found_then() -> None:
    kept = Histories(budget_bytes=ONE)
    first, second = history(), history()
    kept.update("shop", 1, {"a": first}, 2)
    kept.update("shop", 1, {"b": second}, 3)
    assert [kept.get("shop", 1, user, 3) for user in "aanb"] == [(None, True)] * 3 + [(second, False)]
    assert sorted(kept.wanted()) == [Missed("shop", 1, "a"), Missed("shop", 1, "n")]
    assert kept.wanted() == []
    assert kept.recall(Recalled("shop", 1, 3, {"a": first})) == 1
    assert kept.get("shop", 1, "a", 3) == (first, False)
    assert kept.recall(Recalled("shop", 1, 3, {"a": first, "n": None})) == 1
    assert kept.get("shop", 1, "n", 3) == (None, False)


def test_what_was_asked_before_a_publication_that_may_have_changed_it_is_not_taken() -> None:
    kept = Histories(budget_bytes=0)
    kept.update("shop", 1, {"a": history()}, 2)
    kept.update("shop", 1, {"a": history(3)}, 3)
    assert kept.recall(Recalled("shop", 1, 2, {"a": history()})) == 0
    assert kept.get("shop", 1, "a", 3) == (None, True)


def test_of_many_who_are_missed_some_are_asked_for_at_a_time() -> None:
    kept = Histories(budget_bytes=0)
    kept.update("shop", 1, {"a": history()}, 2)
    for n in range(1_000):
        kept.get("shop", 1, f"u{n}", 2)
    assert len(kept.wanted()) == 256


USER, VERSION, NOTHING = st.sampled_from("abc"), st.sampled_from([1, 1, 1, 2]), st.none()
STEP = (
    st.tuples(st.sampled_from(["learn", "learn and take"]), USER, VERSION)
    | st.tuples(st.just("take"), NOTHING, NOTHING)
    | st.tuples(st.sampled_from(["decide", "decide and ask"]), USER, VERSION)
    | st.tuples(st.just("answer"), st.integers(0, 5), NOTHING)
    | st.tuples(st.just("forget"), NOTHING, NOTHING)
)


class Published:
    """A learner that publishes whenever it learns; `at[version][epoch]` is every user's history then."""

    def __init__(self) -> None:
        self.at: dict[int, list[dict[str, History]]] = {1: [{}, {}], 2: [{}, {}]}
        self.taken = {1: 1, 2: 1}

    def learn(self, user: str, version: int) -> None:
        self.at[version].append({**self.at[version][-1], user: history()})

    def news(self, version: int) -> tuple[int, dict[str, History]]:
        """The latest epoch, and what changed since it was asked last."""
        old, new = self.at[version][self.taken[version]], self.at[version][-1]
        self.taken[version] = len(self.at[version]) - 1
        return self.taken[version], {user: one for user, one in new.items() if old.get(user) is not one}

    def recall(self, missed: Missed) -> Recalled:
        known = self.at[missed.version]
        return Recalled("shop", missed.version, len(known) - 1, {missed.user: known[-1].get(missed.user)})


@settings(max_examples=400, deadline=None)
@given(st.lists(STEP, max_size=60), st.integers(0, 3))
def test_what_is_found_is_what_was_published_at_the_epoch(steps: list[Any], room: int) -> None:
    """Whatever is dropped, asked for and answered late: a replay has the history that the epoch had."""
    learner, kept = Published(), Histories(room * ONE)
    epochs, answers = {1: 1, 2: 1}, list[Recalled]()
    for kind, one, version in steps:
        if kind.startswith("learn"):
            learner.learn(one, version)
        if kind.endswith("take"):
            for number in (1, 2):
                if len(learner.at[number]) - 1 > learner.taken[number]:
                    epoch, changed = learner.news(number)
                    kept.update("shop", number, changed, epoch)
                    epochs[number] = epoch
        if kind.startswith("decide"):
            found, lacking = kept.get("shop", version, one, epochs[version])
            assert lacking or found is learner.at[version][epochs[version]].get(one)
            assert not (lacking and found is not None)
        if kind.endswith("ask"):
            answers += [learner.recall(missed) for missed in kept.wanted()]
        if kind == "answer" and answers:
            kept.recall(answers.pop(one % len(answers)))
        if kind == "forget":  # a version that decides again later begins with its first epoch
            kept.forget(before=2)
            epochs[1] = 1


def test_a_replica_asks_the_learner_and_every_decision_replays(home: Path) -> None:
    """Room for the histories of some users: for the others the first decision goes on without, a later one has it."""
    options = {"checkpoint_s": 0.5, "versions_refresh_s": 0.2, "history_bytes": 16_000}
    quick = config.load(rewards={"reward": {"window_s": 0.3}}, serve=options)
    serving.publish(quick, serving.version())
    prepare(quick)
    reader, ids = Reader(journal_url(quick)), []

    async def lacks(running: Running, user: str) -> bool:
        """Whether a decision had to do without the user's history."""
        answer = (await running.decide({"user_id": user, "context": {"device": "mobile"}})).json()["decisions"][0]
        ids.append(answer["decision_id"])
        record = reader.decision(answer["decision_id"])
        assert record is not None
        assert record.evidence is not None
        return evidence.unpack(record.evidence).forgotten

    async def main() -> None:
        service = LearnerService(quick.model_dump(mode="json"), DEFAULT_NAME)
        async with serving.running(quick, service) as running:
            histories = running.replica.engine.histories
            first = [{"user_id": f"u{n}", "context": {"device": "mobile"}} for n in range(40)]
            answers = (await running.decide(*first)).json()["decisions"]  # in one call, before any window closes
            ids.extend(answer["decision_id"] for answer in answers[:2])
            deadline = time.monotonic() + WAIT_S
            while not histories.short and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
            counts, found = running.metrics.counts, False
            for user in itertools.cycle(f"u{n}" for n in range(20)):  # a publication may come before an answer
                if found or time.monotonic() > deadline:
                    break
                if await lacks(running, user):
                    await asyncio.sleep(0.2)
                    found = not await lacks(running, user)
            assert found
            assert 1 <= counts["medley_histories_recalled_total", ()] <= counts["medley_histories_missed_total", ()]
        await service.stop()

    asyncio.run(main())
    releases = Releases(Registry(quick.registry_uri), DEFAULT_NAME)
    assert all(replay(quick, reader, releases.load, one).same for one in (*ids[:2], *ids[-4:]))
    reader.close()
