"""From rewards to the vector store: what outcomes taught of items arrives whole, whatever fails on the way."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from actors.content.served import Served
from actors.content.service import ContentService
from actors.content.vectors.entry import Outcomes
from cluster import config
from cluster.config import Settings
from cluster.journal.journal import Reader, journal_url
from cluster.registry import DEFAULT_NAME
from serve.learner import Learner
from serve.learning.feedback import TOGETHER, Feedback, Key, Told
from serve.learning.ledger import Ledger
from serve.learning.service import LearnerService
from serve.observed.metrics import Metrics
from tests import content_serving, serving
from tests.serving import Running

WAIT_S = 20.0


def until(check: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


class Learned:
    """Counts of each client's items by row, and the publication in which they changed last."""

    def __init__(self, **clients: list[int]) -> None:
        self.number, self.counts = 1, {(c, n): (1, count) for c, own in clients.items() for n, count in enumerate(own)}

    def publish(self, client: str, row: int, count: int) -> None:
        self.number += 1
        self.counts[client, row] = self.number, count

    def taught(self, after: Mapping[Key, int]) -> list[Told]:
        rows: dict[str, list[int]] = {}
        for (client, row), (number, _) in self.counts.items():
            if number > after.get((client, 1), 0):
                rows.setdefault(client, []).append(row)
        return [Told(client, 1, self.number, own) for client, own in rows.items()]

    def served(self, client: str, number: int, rows: Sequence[int]) -> list[Served]:
        return [Served(f"i{n}", {"a": 1.0}, Outcomes(self.counts[client, n][1], 0.0, 0.0)) for n in rows]


class Store:
    """Keeps what it is told; `faults` are how many of the next calls fail, before or after it is kept."""

    def __init__(self) -> None:
        self.begun, self.items, self.calls = "first", dict[tuple[str, str], float](), 0
        self.before, self.after, self.refused = 0, 0, ""

    def apply(self, client: str, version: int, served: list[Served]) -> str | None:
        self.calls += 1
        if self.before:
            self.before -= 1
            raise ConnectionError("dead before it was kept")
        if client == self.refused:
            raise ValueError("cannot be taken")
        self.items |= {(client, one.item_id): one.outcomes.count for one in served}
        if self.after:
            self.after -= 1
            raise ConnectionError("dead after it was kept")
        return self.begun


@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 0), (0, 2), (1, 1)])
def test_all_arrives_whatever_fails(before: int, after: int) -> None:
    store, source, metrics = Store(), Learned(shop=[3, 4], other=[5]), Metrics()
    store.before, store.after = before, after
    feedback = Feedback(lambda: store, source, metrics, again_s=0.01)
    feedback.wake()
    expected = {("shop", "i0"): 3, ("shop", "i1"): 4, ("other", "i0"): 5}
    until(lambda: store.items == expected and metrics.counts["medley_items_told_total", ("taken",)] == 3, "all items")
    assert (metrics.counts["medley_items_told_total", ("failed",)] > 0) == (before + after > 0)
    calls = store.calls
    feedback.wake()
    time.sleep(0.1)
    assert store.calls == calls, "what is acknowledged is not told again"
    source.publish("shop", 0, 9)
    feedback.wake()
    until(lambda: store.items[("shop", "i0")] == 9, "the next publication")
    feedback.stop()


def test_a_store_that_was_lost_is_told_everything_again() -> None:
    store, source = Store(), Learned(shop=[3, 4])
    feedback = Feedback(lambda: store, source, Metrics(), again_s=0.01)
    feedback.wake()
    until(lambda: len(store.items) == 2, "all items")
    store.items, store.begun = {}, "second"
    source.publish("shop", 0, 7)
    feedback.wake()
    until(lambda: store.items == {("shop", "i0"): 7, ("shop", "i1"): 4}, "all items again")
    feedback.stop()


def test_one_client_that_cannot_be_taken_keeps_no_other_waiting() -> None:
    store, source = Store(), Learned(bad=[3], shop=[4])
    store.refused = "bad"
    feedback = Feedback(lambda: store, source, Metrics(), again_s=0.01)
    feedback.wake()
    until(lambda: store.items == {("shop", "i0"): 4}, "the others")
    store.refused = ""
    until(lambda: store.items == {("shop", "i0"): 4, ("bad", "i0"): 3}, "the one")
    feedback.stop()


def test_many_items_are_told_in_pieces() -> None:
    store, source = Store(), Learned(shop=list(range(1, 2 * TOGETHER + 2)))
    feedback = Feedback(lambda: store, source, Metrics(), again_s=0.01)
    feedback.wake()
    until(lambda: len(store.items) == 2 * TOGETHER + 1, "all items")
    assert store.calls == 3
    feedback.stop()


@pytest.fixture
def settings(home: Any) -> Settings:
    made = config.load(
        rewards={"reward": {"window_s": 0.2}},
        serve={"versions_refresh_s": 0.05, "checkpoint_s": 0.2, "publications_per_s": 50.0},
    )
    serving.publish(made, content_serving.version())
    return made


def learned(settings: Settings) -> dict[str, Served]:
    """What a learner that reads the journal anew knows of the items."""
    reader, ledger = Reader(journal_url(settings)), Ledger(str(settings.home / f"again-{time.monotonic_ns()}.db"), 0)
    made = content_serving.version()
    learner = Learner(lambda _: made, reader, ledger, "reward")
    while learner.advance():
        pass
    learner.publish()
    parts = [learner.served(part.client, part.version, part.rows) for part in learner.taught({})]
    found = {one.item_id: one for served in parts for one in served}
    ledger.close()
    reader.close()
    return found


async def traffic(r: Running, decisions: int) -> None:
    for n in range(decisions):
        decision = (await r.decide({"user_id": f"u{n % 4}", "context": {"device": "mobile", "hour": n % 24}})).json()
        one = decision["decisions"][0]
        value = float(int(one["slots"][0]["item_id"][1:]) % 3 == 0)
        await r.reward({"decision_id": one["decision_id"], "value": value})


def same(settings: Settings, store: Any, outcomes: int) -> bool:
    """Whether the store's entries say of so many outcomes what the journal says."""
    known = learned(settings)
    entries = store.get("shop", 1, list(known))
    if sum(one.outcomes.count for one in known.values()) != outcomes or set(entries) != set(known):
        return False
    pairs = [(entries[item], one) for item, one in known.items()]
    return all(e.outcomes["reward"] == o.outcomes and e.models == pytest.approx(o.models, abs=1e-9) for e, o in pairs)


def test_rewards_reach_the_store_over_restarts_of_everybody(settings: Settings) -> None:
    """The store's entries are, in the end, what a learner knows that reads the journal from its beginning."""
    stores: list[ContentService] = []

    def find() -> ContentService:
        if not stores:
            raise ConnectionError("the content process is not there")
        return stores[-1]

    async def life(decisions: int, outcomes: int) -> None:
        learner = LearnerService(settings.model_dump(mode="json"), DEFAULT_NAME, find)
        async with serving.running(settings, learner) as r:
            await traffic(r, decisions)
            await r.http.put("/v1/items/mine", json={"embedding": [1.0] + [0.0] * 7}, headers=r.headers())
            await asyncio.sleep(0.4)  # the learner has published, and nobody was there
            store = await asyncio.to_thread(ContentService, settings, DEFAULT_NAME)
            stores.append(store)
            await asyncio.to_thread(until, lambda: same(settings, store, outcomes), f"{outcomes} outcomes")
            (found,), entries = store.neighbours("shop", 1, np.eye(8, dtype=np.float32)[:1], None, 1)
            assert found.item_ids == ["mine"] == list(entries)
        await learner.stop()
        stores.pop().stop()

    asyncio.run(life(20, 20))
    asyncio.run(life(15, 35))
