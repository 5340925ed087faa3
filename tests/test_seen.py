"""What users were shown lately, and that a retry outlives what it named."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import config
from cluster.config import Settings
from cluster.journal.journal import Reader, Shown
from cluster.registry import DEFAULT_NAME, Registry
from serve.decisions.seen import Seen
from serve.releases import Releases
from serve.replay import replay
from tests import serving
from tests.serving import Running


class Log:
    """A journal in a list; `asked` counts the rows that were read."""

    def __init__(self) -> None:
        self.now, self.rows, self.read_rows = 0.0, [], 0
        self.users: dict[int, tuple[str, str]] = {}

    def show(self, client: str, user: str, item: str) -> None:
        self.rows.append(Shown(len(self.rows) + 1, self.now, (item, f"{item}'")))
        self.users[len(self.rows)] = client, user

    def read(self, client: str, user: str, since_s: float, after_seq: int) -> list[Shown]:
        mine = [row for row in self.rows if self.users[row.seq] == (client, user)]
        found = [row for row in mine if row.seq > after_seq and row.at >= since_s]
        self.read_rows += len(found)
        return found

    def within(self, client: str, user: str, seconds: float) -> set[str]:
        mine = [row for row in self.rows if self.users[row.seq] == (client, user)]
        return {item for row in mine if row.at >= self.now - seconds for item in row.item_ids}


STEP = (
    st.tuples(st.just("show"), st.sampled_from("ab"), st.sampled_from("xyz"))
    | st.tuples(st.just("wait"), st.sampled_from([0.5, 3.0]), st.none())
    | st.tuples(st.just("look"), st.sampled_from("ab"), st.sampled_from([1.0, 2.0, 10.0]))
)


@given(st.lists(STEP, max_size=40), st.integers(1, 3))
def test_every_look_is_what_the_journal_says(steps: list[Any], users: int) -> None:
    log = Log()
    seen = Seen(log.read, lambda: log.now, users)
    for kind, one, two in steps:
        if kind == "show":
            log.show("shop", one, two)
        elif kind == "wait":
            log.now += one
        else:
            assert seen.items("shop", one, two) == log.within("shop", one, two)
            assert seen.items("other", one, two) == set()
        assert len(seen) <= users


def test_a_row_is_read_once() -> None:
    log = Log()
    seen = Seen(log.read, lambda: log.now)
    for n in range(20):
        log.show("shop", "u", f"i{n}")
        log.now += 1.0
        assert len(seen.items("shop", "u", 5.0)) == 2 * min(n + 1, 5)
    assert log.read_rows == 20


def run(settings: Settings, body: Callable[[Running], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with serving.running(settings) as replica:
            return await body(replica)

    return asyncio.run(main())


def chosen(answer: Any) -> list[str]:
    return [slot["item_id"] for slot in answer.json()["decisions"][0]["slots"]]


@pytest.fixture
def published(home: Path) -> Settings:
    settings = config.load()
    serving.publish(settings, serving.version())
    return settings


def test_a_user_sees_each_item_once_and_every_decision_replays(published: Settings) -> None:
    async def body(r: Running) -> None:
        asking = {"user_id": "u", "unseen_s": 3_600, "slots": 3, "context": {"device": "mobile"}}
        answers = [await r.decide(asking) for _ in range(4)]
        assert sorted(item for answer in answers for item in chosen(answer)) == sorted(f"i{n}" for n in range(12))
        refused = await r.decide(asking)
        assert (refused.status_code, refused.json()["detail"][0]["loc"]) == (422, ["body", "requests", 0, "slots"])
        assert "0 eligible items are left after unseen_s" in refused.text
        assert len(chosen(await r.decide({**asking, "user_id": "v"}))) == 3
        assert len(chosen(await r.decide({**asking, "unseen_s": None}))) == 3
        assert len(chosen(await r.decide(asking, client="other"))) == 3
        alone = await r.decide({"unseen_s": 5})
        assert alone.json()["detail"][0]["loc"] == ["body", "requests", 0, "unseen_s"]
        reader = Reader(str(published.home / "journal.db"))
        load = Releases(Registry(published.registry_uri), DEFAULT_NAME).load
        for answer in answers:
            assert replay(published, reader, load, answer.json()["decisions"][0]["decision_id"]).same
        reader.close()

    run(published, body)


def test_what_another_replica_showed_counts_at_once(home: Path, postgres_url: str) -> None:
    settings = config.load(database_url=postgres_url, serve={"max_replicas": 2})
    serving.publish(settings, serving.version())

    async def body() -> None:
        async with serving.running(settings) as one, serving.running(settings) as two:
            shown: list[str] = []
            for n in range(12):
                answer = await (one, two)[n % 2].decide({"session_id": "s", "unseen_s": 3_600})
                shown += chosen(answer)
            assert len(set(shown)) == 12

    asyncio.run(body())


def test_a_retry_outlives_the_items_it_named(published: Settings) -> None:
    async def body(r: Running) -> None:
        headers = r.headers()
        await r.http.put("/v1/items/x", json={"category": "red"}, headers=headers)
        first = {"items": ["x", "i1"], "request_id": "q1", "user_id": "u"}
        answer = (await r.decide(first)).json()["decisions"][0]
        await r.http.delete("/v1/items/x", headers=headers)
        again = await r.decide(first)
        assert (again.status_code, again.json()["decisions"]) == (200, [answer])
        three = await r.decide({"items": ["i2"]}, first, {"items": ["i3"]})
        decisions = three.json()["decisions"]
        assert [decisions[0]["slots"][0]["item_id"], decisions[2]["slots"][0]["item_id"]] == ["i2", "i3"]
        assert decisions[1] == answer
        bad = await r.decide(first, {"items": ["i2"]}, {"items": ["gone"]})
        assert bad.json()["detail"][0]["loc"] == ["body", "requests", 2, "items", 0]
        other = await r.decide({**first, "slots": 2})
        assert other.json()["detail"][0]["loc"] == ["body", "requests", 0, "request_id"]
        new = await r.decide({**first, "request_id": "q2"})
        assert new.json()["detail"][0]["loc"] == ["body", "requests", 0, "items", 0]
        reader = Reader(str(published.home / "journal.db"))
        assert reader.counts()["decisions"] == 3
        reader.close()

    run(published, body)
