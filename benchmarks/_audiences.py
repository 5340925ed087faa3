"""Planted audiences: providers in three clusters whose users answer by their age, each cluster in its own way.

A choice earns 1 with probability 0.35 + slope·(age − 45)/25 + quality of the item; the slope is its provider's, drawn
around its cluster's 0.25, −0.25 or 0. Sizes of providers fall as 1/rank. An embedding tells the cluster, with noise.

Shapes: P providers, I items, E size of embeddings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from actors.content.published import Vectors
from actors.content.regrouping.groups import Groups
from actors.content.regrouping.regrouping import Regrouping
from actors.features.features import Floats, Ints
from cluster.records import EVENTS, ITEMS, USERS, Dataset, decode, encode
from tune.specialise import Content
from tune.worlds.base import draw

PROVIDERS, EACH, PEOPLE, CANDIDATES, WIDTH = 24, 5, 600, 10, 8
SLOPES = (0.25, -0.25, 0.0)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Audiences:
    """cluster_P, slope_P, quality_I, age_U, vectors_IE: as the module says, all drawn by the seed."""

    seed: int
    cluster_P: Ints
    slope_P: Floats
    quality_I: Floats
    age_U: Floats
    vectors_IE: Vectors

    @classmethod
    def of(cls, seed: int) -> "Audiences":
        rng = np.random.default_rng([seed, 0xA0D1])
        cluster_P = rng.permutation(np.arange(PROVIDERS) % len(SLOPES))
        slope_P = np.array(SLOPES)[cluster_P] + 0.08 * rng.standard_normal(PROVIDERS)
        told_IE = np.eye(WIDTH)[np.repeat(cluster_P, EACH)] + 0.4 * rng.standard_normal((PROVIDERS * EACH, WIDTH))
        vectors_IE = (told_IE / np.linalg.norm(told_IE, axis=1, keepdims=True)).astype(np.float32)
        quality_I, age_U = 0.08 * rng.standard_normal(PROVIDERS * EACH), rng.uniform(20, 70, PEOPLE)
        return cls(seed, cluster_P, slope_P, quality_I, age_U, vectors_IE)

    @property
    def content(self) -> Content:
        """Embeddings, and the clusters as planted; `tune.regroup` finds such."""
        groups = Groups()
        for p, cluster in enumerate(self.cluster_P.tolist()):
            groups = groups.move(f"p{p:02}", f"c{cluster}", "2026-01-01", "planted", {})
        return Content(dict(zip(ids(), self.vectors_IE, strict=True)), Regrouping(groups, 0.05))

    def chances(self, item_I: Ints, age: float) -> Floats:
        mean_I = 0.35 + self.slope_P[item_I // EACH] * (age - 45) / 25 + self.quality_I[item_I]
        return np.asarray(np.clip(mean_I, 0.02, 0.98))

    def log(self, events: int) -> Dataset:
        """Uniform choices among ten items, of which those of large providers come more often."""
        rng = np.random.default_rng([self.seed, 0x106])
        share_I = np.repeat(1 / np.arange(1, PROVIDERS + 1), EACH)
        names, rows = ids(), []
        for n in range(events):
            listed = rng.choice(len(names), CANDIDATES, replace=False, p=share_I / share_I.sum())
            user, item = int(rng.integers(PEOPLE)), int(rng.choice(listed))
            reward = float(rng.random() < self.chances(np.array([item]), self.age_U[user])[0])
            rows.append(
                {
                    "event_id": f"e{n}",
                    "timestamp": START + timedelta(seconds=60 * n),
                    "client_id": "c",
                    "user_id": f"u{user}",
                    "context": encode({"age": float(self.age_U[user])}),
                    "candidates": [names[i] for i in listed],
                    "item_id": names[item],
                    "propensity": 1 / CANDIDATES,
                    "reward": reward,
                    "reward_kind": "reward",
                }
            )
        prices = np.random.default_rng([self.seed, 1]).uniform(1, 99, len(names))
        items = [
            {"item_id": name, "provider_id": name[:3], "price": float(price)}
            for name, price in zip(names, prices, strict=True)
        ]
        facts = {"fingerprint": f"audiences {self.seed}"}
        events_table, items_table = pa.Table.from_pylist(rows, EVENTS), pa.Table.from_pylist(items, ITEMS)
        return Dataset("feedback", events_table, items_table, USERS.empty_table(), None, facts)


def ids() -> list[str]:
    return [f"p{i // EACH:02}-{i % EACH}" for i in range(PROVIDERS * EACH)]


class AudiencesWorld:
    """Its truth, in the situations of these events."""

    def __init__(self, truth: Audiences, events: pa.Table) -> None:
        self.events, self._truth = events, truth
        self._place = {name: i for i, name in enumerate(ids())}
        self._age_N = [float(decode(context)["age"]) for context in events["context"].to_pylist()]  # type: ignore[arg-type]

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        return self._truth.chances(np.array([self._place[name] for name in item_ids]), self._age_N[row])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return float(draw(self._truth.seed, row, item_id) < self.mean_rewards(row, [item_id])[0])

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0
