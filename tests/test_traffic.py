"""Traffic against a real HTTP server on loopback that decides with actors.bandits."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from fastapi import FastAPI, Header, HTTPException

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.members import Uniform
from actors.features.features import Features
from cluster.config import LawSettings, RewardKind, WeightSettings
from cluster.errors import ClusterError
from cluster.records import EVENTS, conform, encode
from tune.caller import Caller
from tune.traffic import LATEST, Delays, Driver, Plan, Traffic, by_client, request
from tune.worlds.base import Situations

ITEMS = ("a", "b", "c")
MEANS = {"a": 0.0, "b": 1.0, "c": 0.0}
KEYS = {"north": "key-of-north", "south": "key-of-south", "operator": "key-of-operator"}


class Table:
    """Item b always earns 1, the others nothing; rewards take 1 to 4 seconds."""

    def __init__(self, n: int):
        start = datetime(2026, 1, 1, tzinfo=UTC)
        self.events = conform(
            pa.table(
                {
                    "event_id": [f"e{i}" for i in range(n)],
                    "timestamp": pa.array([start + timedelta(seconds=i) for i in range(n)], pa.timestamp("us", "UTC")),
                    "client_id": ["north" if i % 3 else "south" for i in range(n)],
                    "user_id": [f"u{i % 7}" for i in range(n)],
                    "context": pa.array([encode({"hour": i}) for i in range(n)], EVENTS.field("context").type),
                    "candidates": pa.array([ITEMS if i % 2 else None for i in range(n)], pa.list_(pa.string())),
                    "item_id": ["a"] * n,
                }
            ),
            EVENTS,
            "events",
        )

    def mean_rewards(self, row: int, item_ids: Any, position: int = 0) -> Any:
        return np.array([MEANS[item] for item in item_ids])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return MEANS[item_id]

    def delay_s(self, row: int, item_id: str) -> float:
        return 1.0 + row % 4


class Api:
    """The two routes, with the popularity model learning from outcomes that are final after `window_s`."""

    def __init__(self, window_s: float, faults: int = 0, pause_s: float = 0.0):
        self.window_s, self.faults, self.pause_s = window_s, faults, pause_s
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.rewards: dict[str, tuple[float, float]] = {}
        self.decided: dict[str, tuple[float, int, Any]] = {}
        self.stored: dict[str, dict[str, Any]] = {}
        ensemble = Ensemble(
            members=(
                Uniform(),
                Prior("popularity", np.full((4, 1, 1), 2.0), np.full((4, 1), 1.0), 0.25, "items"),
            ),
            values_M=np.full(2, 0.5),
            law=LawSettings(),
            weights=WeightSettings(),
            dimension=1,
            fingerprint="none",
        )
        self.state = learn.start(ensemble)
        self.app = FastAPI()
        self.app.post("/v1/decisions")(self.decisions)
        self.app.post("/v1/rewards")(self.reward)

    async def decisions(self, body: dict[str, Any], authorization: str = Header()) -> dict[str, Any]:
        client = self.client(authorization)
        await asyncio.sleep(self.pause_s)
        found = [self.decide(client, wanted) for wanted in body["requests"]]
        if self.faults:  # decided, but the answer is lost
            self.faults -= 1
            raise HTTPException(503, "lost")
        return {"decisions": found}

    def client(self, authorization: str) -> str:
        clients = [client for client, key in KEYS.items() if authorization == f"Bearer {key}"]
        if not clients:
            raise HTTPException(401, "unknown key")
        return clients[0]

    def decide(self, client: str, wanted: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((client, wanted))
        if wanted["request_id"] in self.stored:
            return self.stored[wanted["request_id"]]
        number = len(self.decided)
        items = wanted["items"] or list(ITEMS)
        index = np.array([ITEMS.index(item) for item in items])
        ones = np.ones((len(items), 1))
        features = Features(ones, np.zeros(len(items), np.int64), index, index.astype(np.uint64), np.ones(1))
        slot = law.decide(learn.publish(self.state), features, None, seed=number).slots[0]
        self.decided[f"d{number}"] = (time.monotonic(), int(index[slot.index]), slot)
        answer = {
            "decision_id": f"d{number}",
            "version": 1,
            "mode": "live",
            "slots": [{"item_id": items[slot.index], "propensity": slot.propensity, "models": slot.models}],
        }
        self.stored[wanted["request_id"]] = answer
        return answer

    async def reward(self, body: dict[str, Any], authorization: str = Header()) -> dict[str, Any]:
        self.client(authorization)
        before = len(self.rewards)
        for event in body["rewards"]:
            assert event["decision_id"] in self.decided
            self.rewards.setdefault(event["decision_id"], (time.monotonic(), event["value"]))
        accepted = len(self.rewards) - before
        return {"accepted": accepted, "duplicates": len(body["rewards"]) - accepted, "rejected": []}


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket; its address."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def drive(api: Api, world: Table, span_s: float, keys: dict[str, str] = KEYS, **options: Any) -> tuple[Traffic, Caller]:
    """Traffic of a world to an application, and the client that carried it."""

    async def run(url: str) -> tuple[Traffic, Caller]:
        plan = Plan(span_s=span_s, kind_name="reward", kind=RewardKind(window_s=api.window_s), label="t")
        async with Caller(url, keys, **options) as caller:
            delays = Delays(world, ITEMS, api.window_s)
            return await Driver(world, delays, plan, caller, lambda *_: None).run(), caller

    with listening(api.app) as url:
        return asyncio.run(run(url))


def test_every_situation_is_asked_once_and_every_reward_arrives_in_its_window() -> None:
    api, world = Api(window_s=2.4), Table(120)
    traffic, caller = drive(api, world, span_s=1.5)
    assert [answer.row for answer in traffic.answers] == list(range(120))
    assert Counter(wanted["request_id"] for _, wanted in api.requests) == {f"t-{row}": 1 for row in range(120)}
    for client, wanted in api.requests:
        row = int(wanted["request_id"].split("-")[1])
        assert client == ("north" if row % 3 else "south")
        assert wanted["user_id"] == f"u{row % 7}"
        assert wanted["context"] == {"hour": row}
        assert wanted["items"] == (list(ITEMS) if row % 2 else None)
    chosen_b = sum(answer.item_id == "b" for answer in traffic.answers)
    assert traffic.rewards == chosen_b == len(api.rewards)
    assert (traffic.late, traffic.duplicates, traffic.rejected, traffic.left_out) == (0, 0, [], 0)
    assert caller.retries == 0
    waits = [api.rewards[d][0] - api.decided[d][0] for d in api.rewards]
    assert max(waits) < api.window_s
    assert max(waits) > 0.95 * LATEST * api.window_s  # the longest delay, 4 s, takes three quarters of the window
    assert min(waits) < 0.5 * api.window_s  # and 1 s a quarter of that
    assert traffic.seconds >= 1.3 + api.window_s


def test_situations_are_spread_evenly_over_the_time() -> None:
    traffic, _ = drive(Api(window_s=0.1), Table(40), span_s=2.0)
    seconds = np.array([answer.seconds for answer in traffic.answers])
    late = seconds - np.arange(40) * 1.9 / 40
    assert late.min() > 0  # never before it is due
    assert np.median(late) < 0.2


def test_a_slow_server_leaves_situations_out_and_says_how_many() -> None:
    api = Api(window_s=0.1, pause_s=0.2)
    traffic, _ = drive(api, Table(4_000), span_s=1.0)
    assert traffic.left_out > 0
    assert len(traffic.answers) + traffic.left_out == 4_000
    assert [answer.row for answer in traffic.answers] == list(range(len(traffic.answers)))
    assert max(Counter(wanted["request_id"] for _, wanted in api.requests).values()) == 1


def test_a_lost_answer_is_asked_for_again_and_counted_once() -> None:
    api = Api(window_s=0.3, faults=2)
    traffic, caller = drive(api, Table(30), span_s=0.5, retry_s=0.1)
    assert caller.retries == 2
    assert [answer.row for answer in traffic.answers] == list(range(30))
    assert len(api.decided) == 30 < len(api.requests)


def test_a_server_that_went_away_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no answer for 0\.3 s .*is the server up"):
        drive(Api(window_s=0.1, faults=10**6), Table(5), span_s=0.1, retry_s=0.1, patience_s=0.3)


def test_a_refusal_is_not_repeated() -> None:
    api = Api(window_s=0.1)
    with pytest.raises(ClusterError, match=r"refused: 401 .*unknown key"):
        drive(api, Table(5), span_s=0.1, keys=KEYS | {"south": "wrong"})
    with pytest.raises(ClusterError, match="no API key of client 'north'; make one"):
        drive(api, Table(5), span_s=0.1, keys={"south": KEYS["south"]})


def test_delays_are_scaled_into_the_window() -> None:
    delays = Delays(Table(10), ITEMS, window_s=2.0)
    assert [delays(row, "a") for row in range(4)] == pytest.approx([0.375, 0.75, 1.125, 1.5])


def test_a_request_without_user_names_none() -> None:
    world = Table(1)
    situation = Situations(world.events)[0]
    assert request(situation, "x", slots=5) == {
        "context": {"hour": 0},
        "items": None,
        "slots": 5,
        "request_id": "x-0",
        "user_id": "u0",
    }


def test_no_more_slots_are_asked_for_than_there_are_items() -> None:
    situation = Situations(Table(2).events)[1]
    assert [request(situation, "x", slots)["slots"] for slots in (1, 2, 9)] == [1, 2, len(ITEMS)]


def test_entries_are_grouped_by_client_in_order() -> None:
    situations = list(Situations(Table(5).events))
    assert [[s.row for s in group] for group in by_client(situations)] == [[0, 3], [1, 2, 4]]
