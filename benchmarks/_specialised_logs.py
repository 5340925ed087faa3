"""Logs whose items name providers: marketplaces, each with a truth of its own, and purchases; what their items say of
themselves; and held-out users, with what each choice would have earned.

Shapes: N held-out events, K candidates, P providers, E size of embeddings.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from actors.content.contents import Part, contents
from actors.content.contrastive import train
from actors.content.embedded import build
from actors.content.examples import Examples
from actors.content.published import Vectors
from actors.features.catalogue import row_numbers
from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Floats, Ints
from benchmarks._audiences import Audiences, AudiencesWorld
from benchmarks._cold_logs import SEED, find
from cluster.clock import Clock
from cluster.config import ContentSettings, DataSettings, Settings
from cluster.importers.imported import Options
from cluster.importers.transactions import read_transactions
from cluster.marketplace.marketplace import Marketplace
from cluster.records import Dataset
from tune.specialise import Content
from tune.worlds.base import World
from tune.worlds.build import on

PROVIDERS, ITEMS, USERS = 24, 120, 1_000
"""Of a marketplace. It has wares of eight categories, so its first eight providers are large, each with an audience of
its own, and the others have a few wares of any category."""
MAPPING = {"provider_id": "first(StockCode,2)"}
"""Of purchases: the first two characters of an article's number."""


def marketplace(seed: int, events: int) -> Dataset:
    """A log of a marketplace with a truth of its own."""
    market = Marketplace(seed, users=USERS, items=ITEMS, providers=PROVIDERS)
    log = market.log(events, np.random.default_rng([seed, 0x106]))
    facts = {"marketplace": market.facts, "fingerprint": f"marketplace {seed}"}
    return Dataset("marketplace", log, market.items_table(), market.users_table(), None, facts)


def purchases(folders: Sequence[Path], events: int) -> Dataset:
    """The latest lines of transactions.parquet."""
    settings = DataSettings(max_events=events)
    return read_transactions([find("transactions", folders)], Options(MAPPING), settings, SEED).dataset


def embeddings(items: pa.Table, steps: int, seed: int) -> dict[str, Vectors]:
    """The items' texts as the embedded CLIP reads them after so many steps on them, as `tune.embed` does it."""
    torch.set_num_threads(1)
    ids, told, settings = items["item_id"].to_pylist(), list(contents(items)), ContentSettings()
    encoder = build([content.text for content in told if content.text], settings, seed)
    examples = Examples(zip(ids, told, strict=True), settings.pixels)
    train(encoder, examples, Clock(3_600.0, steps), seed=seed, progress=False)
    there = [(item_id, content.text) for item_id, content in zip(ids, told, strict=True) if content.text]
    vectors_NE = encoder.embed([Part("text", (text.encode(),)) for _, text in there]).vectors_PE
    return {item_id: vector_E for (item_id, _), vector_E in zip(there, vectors_NE, strict=True)}


@dataclass(frozen=True)
class Log:
    """A data set, what is known of its items' content, and who answers in some of its events."""

    dataset: Dataset
    content: Content
    world: Callable[[Ints], World]

    @classmethod
    def of(cls, dataset: Dataset, vectors: dict[str, Vectors]) -> "Log":
        """Answered by the marketplace's truth, or by what was bought."""
        return cls(dataset, Content(vectors), lambda rows: on(dataset, rows, Settings()))

    @classmethod
    def audiences(cls, seed: int, events: int) -> "Log":
        truth = Audiences.of(seed)
        dataset = truth.log(events)
        world = partial(AudiencesWorld, truth)
        return cls(dataset, truth.content, lambda rows: world(dataset.events.take(pa.array(rows))))


@dataclass(frozen=True)
class HeldOut:
    """What was shown to users whom no model has met.

    batch: of N events with their K candidates. truth_NK: what each would have earned, on average where a world knows
    it; 0 on padding. action_N: the logged choice. provider_NK: −1 for none. rows_P: events that were learned from.
    """

    batch: FeatureBatch
    truth_NK: Floats
    action_N: Ints
    provider_NK: Ints
    rows_P: Ints

    def __len__(self) -> int:
        return len(self.action_N)

    @classmethod
    def of(cls, dataset: Dataset, world: World, learned: Ints, feature_map: FeatureMap) -> "HeldOut":
        """The events of the world; the models have learned from these row numbers of the data set."""
        relations, items = feature_map.relations, dataset.events["item_id"]
        assert relations is not None
        listed: list[list[str]] = world.events["candidates"].to_pylist()
        batch = feature_map.batch(world.events)
        truth_NK = np.zeros(batch.mask_BK.shape)
        for n, ids in enumerate(listed):
            truth_NK[n, : len(ids)] = world.mean_rewards(n, ids)
        logged = world.events["item_id"].to_pylist()
        action_N = np.array([ids.index(item) for ids, item in zip(listed, logged, strict=True)])
        seen = row_numbers(feature_map.row, items.take(pa.array(learned)).to_pylist())
        provider_N = relations.kin.provider_K[seen]
        rows_P = np.bincount(provider_N[provider_N >= 0], minlength=len(relations.providers))
        assert batch.row_BK is not None
        provider_NK = np.where(batch.mask_BK, relations.kin.provider_K[batch.row_BK], -1)
        return cls(batch, truth_NK, action_N, provider_NK, rows_P)
