"""Vowpal Wabbit among the newcomers: one logistic regression, warm-started on the same training users.

A newcomer starts from a copy of it, which learns that newcomer's own rewards online and nobody else's. Features are
the raw columns crossed with the item's (its words, price, category), and recent items crossed with it; or all of ours.
Of a small grid (features, learning rate, passes) the setting with the least squared error on the *stop* users counts.
In a world it chooses greedily.

Shapes: N rows, K items, I interactions of a newcomer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import vowpalwabbit

from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from actors.generator.tasks import contexts
from benchmarks._cold_logs import Newcomers, Split, Stage
from benchmarks._cold_scores import Trail
from benchmarks._vowpal import raw
from cluster.records import Dataset, Value, decode

RATES, PASSES, FEATURES = (0.1, 0.5), 2, ("raw", "ours")
"""The grid; each setting is tried after every pass."""
OPTIONS = "--loss_function logistic --link logistic -b 18 --quiet"
CROSSED = {"raw": "-q ci -q ri", "ours": "-q fi"}
WORDS = 8


@dataclass(frozen=True)
class Setting:
    features: str
    rate: float
    passes: int

    def __str__(self) -> str:
        return f"{self.features} features, rate {self.rate:g}, passes {self.passes}"


@dataclass(frozen=True)
class Words:
    """What VW reads of an event and an item, in one kind of features."""

    dataset: Dataset
    feature_map: FeatureMap
    kind: str
    item: dict[str, str]

    @classmethod
    def of(cls, dataset: Dataset, feature_map: FeatureMap, kind: str) -> "Words":
        if kind == "ours" and feature_map.kind == "joint":
            return cls(dataset, feature_map, kind, dict.fromkeys(feature_map.item_ids, ""))
        ids = dataset.items["item_id"].to_pylist()
        told = [f"|i {raw('item', i)}" for i in ids] if kind == "ours" else _items(dataset.items)
        return cls(dataset, feature_map, kind, dict(zip(ids, told, strict=True)))

    def logged(self, rows_N: Ints) -> list[str]:
        """One example for each event's logged item."""
        events = self.dataset.events.take(pa.array(rows_N))
        items = events["item_id"].to_pylist()
        if self.kind == "ours":
            return self.numbers(actions(self.feature_map, events).phi_ND, items)
        return [f"{told} {self.item[i]}" for told, i in zip(_situations(self.dataset, rows_N), items, strict=True)]

    def offered(self, rows_N: Ints, stage: Stage) -> list[list[str]]:
        """One example for each candidate of each event."""
        listed = self.dataset.events["candidates"].take(pa.array(rows_N)).to_pylist()
        if self.kind == "ours":
            return [self.numbers(stage.batch.row(n).phi_KD, items) for n, items in enumerate(listed)]
        told = _situations(self.dataset, rows_N)
        return [[f"{situation} {self.item[i]}" for i in items] for situation, items in zip(told, listed, strict=True)]

    def numbers(self, phi_ND: Floats, items: Sequence[str]) -> list[str]:
        """Our features, without the intercept."""
        lines = (" ".join(f"{d}:{phi_D[d]:.5g}" for d in np.flatnonzero(phi_D) if d) for phi_D in phi_ND)
        return [f"|f {line} {self.item[i]}" for line, i in zip(lines, items, strict=True)]


def _situations(dataset: Dataset, rows_N: Ints) -> list[str]:
    lines = []
    for told in contexts(dataset, rows_N):
        recent = told.pop("recent", None)
        names = " ".join(raw("recent", name) for name in recent) if isinstance(recent, list) else ""
        lines.append(f"|c {' '.join(raw(name, value) for name, value in told.items())} |r {names}")
    return lines


def _items(items: pa.Table) -> list[str]:
    lines = []
    for row in items.select(["item_id", "title", "price", "category", "brand", "attributes"]).to_pylist():
        words = (row["title"] or "").lower().split()[:WORDS]
        plain: dict[str, Value] = {"item": row["item_id"], "category": row["category"], "brand": row["brand"]}
        plain |= decode(row["attributes"] or [])
        told = [raw(name, value) for name, value in plain.items() if value is not None]
        price = [] if row["price"] is None else [f"price:{np.log1p(max(row['price'], 0.0)):.4g}"]
        lines.append(" ".join(["|i", *told, *price, *(raw("word", word) for word in words)]))
    return lines


@dataclass(frozen=True)
class Vowpal:
    """path: the warm start."""

    path: Path
    setting: Setting
    words: Words

    def start(self) -> vowpalwabbit.Workspace:
        return vowpalwabbit.Workspace(f"-i {self.path} --quiet")

    def trails(self, newcomers: Newcomers) -> list[Trail]:
        lines = self.words.logged(newcomers.rows_N)
        trails = []
        for u in range(len(newcomers)):
            rows, vw = newcomers.first(u), self.start()
            mine, reward_I = lines[rows], newcomers.reward_N[rows]
            score_II = np.empty((len(mine), len(mine)))
            for i, reward in enumerate(reward_I):
                score_II[i] = [vw.predict(line) for line in mine]
                vw.learn(_labelled(mine[i], reward))
            vw.finish()
            trails.append(Trail(score_II, reward_I))
        return trails

    def earned(self, newcomers: Newcomers, stage: Stage, seed: int, explore: bool) -> float:
        lines, earned = self.words.offered(newcomers.rows_N, stage), []
        for u in range(len(newcomers)):
            vw = self.start()
            for row in range(newcomers.start_U[u], newcomers.start_U[u + 1]):
                chosen = int(np.argmax([vw.predict(line) for line in lines[row]]))
                earned.append(float(stage.truth_NK[row, chosen]))
                vw.learn(_labelled(lines[row][chosen], stage.answer(row, chosen)))
            vw.finish()
        return float(np.mean(earned))


def warm(dataset: Dataset, feature_map: FeatureMap, split: Split, folder: Path) -> Vowpal:
    """The best setting on the stop users, after passes over the fit users in time order."""
    best, found = np.inf, None
    stop_N = _rewards(dataset, split.stop)
    for kind in FEATURES:
        words = Words.of(dataset, feature_map, kind)
        lines, stop = words.logged(split.fit), words.logged(split.stop)
        examples = [_labelled(*pair) for pair in zip(lines, _rewards(dataset, split.fit), strict=True)]
        for rate in RATES:
            vw = vowpalwabbit.Workspace(f"{OPTIONS} {CROSSED[kind]} -l {rate}")
            for done in range(1, PASSES + 1):
                for example in examples:
                    vw.learn(example)
                error = float(np.mean((stop_N - [vw.predict(line) for line in stop]) ** 2))
                if error < best:
                    path = folder / f"{kind}-{rate}-{done}.vw"
                    vw.save(str(path))
                    best, found = error, Vowpal(path, Setting(kind, rate, done), words)
            vw.finish()
    assert found is not None
    return found


def _rewards(dataset: Dataset, rows_N: Ints) -> Floats:
    reward_N: Floats = dataset.events["reward"].take(pa.array(rows_N)).to_numpy().astype(np.float64)
    return reward_N


def _labelled(line: str, reward: float) -> str:
    return f"{1 if reward > 0 else -1} {line}"
