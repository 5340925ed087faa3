"""A small published version and a replica in the test's own process: engine, journal on disk, HTTP by ASGI."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pyarrow as pa

from actors.bandits import pooled
from actors.bandits.ensemble import Ensemble
from actors.bandits.members import Uniform
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import FeatureSettings, LawSettings, Settings, WeightSettings
from cluster.database import Database, url_of
from cluster.journal.journal import Journal
from cluster.keys import Keys
from cluster.records import EVENTS, ITEMS, USERS, Dataset, encode
from cluster.registry import DEFAULT_NAME, Registry
from serve.app import prepare
from serve.assembly import Assembly, assemble
from serve.decisions.reading import Model
from serve.gateway import Gateway
from serve.learning.service import LearnerService
from serve.observed.metrics import Metrics
from serve.predicting.encoding import ContentReader
from serve.replica import Learner, Replica

COLOURS = ("red", "green", "blue")


def dataset(rows: int = 400, items: int = 12, seed: int = 0) -> Dataset:
    """Users of two devices who like one colour each: clicks at 60 % on it, 10 % on others."""
    rng = np.random.default_rng(seed)
    item_rows = [
        {"item_id": f"i{n}", "title": f"a {COLOURS[n % 3]} thing {n}", "category": COLOURS[n % 3], "price": 1.0 + n}
        for n in range(items)
    ]
    events = []
    for n in range(rows):
        device = ("mobile", "desktop")[int(rng.integers(2))]
        chosen = int(rng.integers(items))
        liked = COLOURS[chosen % 3] == ("red" if device == "mobile" else "green")
        events.append(
            {
                "event_id": f"e{n}",
                "timestamp": 1_700_000_000_000_000 + n * 1_000_000,
                "client_id": "shop",
                "user_id": f"u{int(rng.integers(40))}",
                "context": encode({"device": device, "hour": int(rng.integers(24))}),
                "item_id": f"i{chosen}",
                "propensity": 1.0 / items,
                "reward": float(rng.random() < (0.6 if liked else 0.1)),
            }
        )
    return Dataset(
        "feedback",
        pa.Table.from_pylist(events, EVENTS),
        pa.Table.from_pylist(item_rows, ITEMS),
        pa.Table.from_pylist([], USERS),
    )


def version(seed: int = 0, facts: dict[str, Any] | None = None, kind: str = "joint", items: int = 12) -> Version:
    """Uniform, popularity, linear and forgetting, fitted on `dataset`."""
    data = dataset(items=items, seed=seed)
    rows = np.arange(data.events.num_rows)
    feature_map = FeatureMap.fit(data, rows, FeatureSettings.model_validate({"kind": kind}), seed)
    batch = feature_map.batch(data.events)
    reward_N = data.events["reward"].to_numpy()
    place = {item: n for n, item in enumerate(feature_map.item_ids)}
    item_N = np.array([place[item] for item in data.events["item_id"].to_pylist()])
    phi_ND = batch.phi_BKD[rows, item_N]
    arm_N = batch.arm_BK[rows, item_N]
    linear = pooled.fit(phi_ND, arm_N, reward_N, feature_map.arms)
    popular = pooled.popularity(item_N, reward_N, items)
    members = (
        Uniform(),
        popular.prior("popularity", "items"),
        linear.prior("linear", "features"),
        linear.prior("forgetting", "features", 20_000.0),
    )
    ensemble = Ensemble(
        members=members,
        values_M=np.array([0.25, 0.26, 0.4, 0.38]),
        law=LawSettings(),
        weights=WeightSettings(),
        dimension=feature_map.dimension,
        fingerprint=feature_map.fingerprint,
    )
    return Version(feature_map, ensemble, data.items, facts or {"name": "test"})


def publish(settings: Settings, made: Version, name: str = DEFAULT_NAME) -> int:
    return Registry(settings.registry_uri).publish(name, made.save)


@dataclass
class Running:
    """A replica that answers in this process."""

    http: httpx.AsyncClient
    gateway: Gateway
    replica: Replica
    parts: Assembly
    journal: Journal
    keys: dict[str, str]
    operator: str

    @property
    def metrics(self) -> Metrics:
        return self.parts.metrics

    def headers(self, client: str = "shop") -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[client]}"}

    async def decide(self, *requests: dict[str, Any], client: str = "shop") -> httpx.Response:
        return await self.http.post("/v1/decisions", json={"requests": requests}, headers=self.headers(client))

    async def predict(self, *requests: dict[str, Any], client: str = "shop") -> httpx.Response:
        return await self.http.post("/v1/predictions", json={"requests": requests}, headers=self.headers(client))

    async def reward(self, *rewards: dict[str, Any], client: str = "shop") -> httpx.Response:
        return await self.http.post("/v1/rewards", json={"rewards": rewards}, headers=self.headers(client))


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    learner: LearnerService | None = None,
    reader: Callable[[], Model] | None = None,
    content: Callable[[], ContentReader] | None = None,
) -> AsyncIterator[Running]:
    """A gateway over a real engine and journal; a `learner` is followed, a `reader` and a `content` process asked.

    A busy machine is no slow model: the budget of a decision is long unless the settings name one.
    """
    if "budget_ms" not in settings.serve.model_fields_set:
        settings = settings.model_copy(update={"serve": settings.serve.model_copy(update={"budget_ms": 60_000.0})})
    prepare(settings)
    keys = Keys(Database(url_of(settings)))
    for client in ("shop", "other"):
        keys.create_client(client)
    plain = {client: keys.create_key(client) for client in ("shop", "other")}
    operator = keys.create_key(None)

    def find() -> Learner:
        if learner is None:
            raise ConnectionError("this test has no learner")
        return learner

    parts = assemble(settings, DEFAULT_NAME, find, reader=reader, content=content, close_every_s=0.02)
    await parts.replica.start()
    transport = httpx.ASGITransport(parts.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://medley") as http:
        try:
            yield Running(http, parts.gateway, parts.replica, parts, parts.journal, plain, operator)
        finally:
            await parts.stop()
