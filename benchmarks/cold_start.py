"""Users whom no model has met: what a generated prior knows of them, against pooled priors and Vowpal Wabbit.

    python -m benchmarks.cold_start [--quick] [--data FOLDER ...]

Of each log a fifth of the users is held out, several times anew: a survey of coupons (its `coupon.parquet`), purchase
lines (`transactions.parquet`) and the built-in marketplace, whose truth is known and fixed by its seed. All models
learn from the same other users, over the same features, and then from each newcomer's own rewards alone:

no_prior       the mean and variance of rewards, and nothing of features
pooled         the posterior of all training users' rows
tuned_pooled   the same, its mean and covariance tempered, with a variance between users for each feature, and noise,
               all by marginal likelihood: the generator's own first stage. User features are in φ.
alike          the generator with h = 0: that and a low-rank covariance between users
numeric        the generator that reads context features (`generator.reader: numeric`)
language       the generator that reads texts by a language model trained on the same users; from each newcomer's own
               context, as numeric
prototypes     the same member with candidates of prototypes of the training users' contexts, none of a newcomer's own
vowpal         a logistic regression with the same users' warm start (benchmarks/_cold_vowpal.py)

within_first5  AUC within users on their first five interactions: of a newcomer's pairs of a rewarded and an unrewarded
    one, the share that is told apart by scores of the moment when the earlier one came; mean over newcomers with both.
    Beside it `stepwise`, with each score of its own moment (predict, then learn that reward), which is biased: who
    learns how often a user says yes scores higher after each yes, and fewer yeses are then left (docs/cold_start.md).
overall        AUC over all newcomers' first five, predict, then learn. error: squared. calibration: mean square of
    standardised errors.
reward_first10 in the marketplace: expected reward of a decision among the first ten, by Thompson sampling; `greedy`
    beside it. Vowpal Wabbit chooses greedily. A log cannot answer for items that it did not show: the others have none.

Intervals are 95 % over splits, of the paired
differences or ratios (Nadeau & Bengio 2003).
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split

import numpy as np
import torch
from rich.table import Table

from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from actors.generator import train
from actors.generator.backbone import Backbone
from actors.generator.fitting import Extent
from actors.generator.generator import Generator
from benchmarks import _cold_models, _cold_scores, _cold_vowpal
from benchmarks._cold_logs import TEST, Newcomers, Stage, read, split
from benchmarks._cold_models import Model
from benchmarks._options import options
from benchmarks._pairs import CONSOLE, rounded
from cluster.config import DataSettings, GeneratorSettings, Settings
from cluster.progress import bar
from cluster.records import Dataset

PEER, OURS = "tuned_pooled", "language"
EXTENTS: dict[str, Extent] = {"tuned_pooled": "pooled", "alike": "alike", "numeric": "whole"}
"""Trainings without a language model, by how far they go."""
FIRST_SPLIT = 1_000
"""Seed of the first split: what was tried while the generator was made was tried on others."""


@dataclass(frozen=True)
class Size:
    """backbone_steps, head_steps: of a training at most. events: of a log, the latest."""

    splits: int
    events: int
    marketplace_events: int
    marketplace_users: int
    backbone_steps: int
    head_steps: int

    @property
    def data(self) -> DataSettings:
        return DataSettings(
            max_events=self.events,
            marketplace_events=self.marketplace_events,
            marketplace_users=self.marketplace_users,
        )

    @property
    def settings(self) -> Settings:
        generator = GeneratorSettings(backbone_steps=self.backbone_steps, head_steps=self.head_steps)
        budgets = Settings().budgets.model_copy(update={"backbone_s": 3_600.0, "head_s": 3_600.0})
        return Settings(generator=generator, budgets=budgets)


FULL = Size(5, 50_000, 30_000, 2_000, 60, 400)
QUICK = Size(2, 2_000, 2_000, 200, 2, 70)
LOGS = ("coupon", "retail", "marketplace")


@dataclass(frozen=True)
class Scores:
    """Of one model on one split. sampled, greedy: expected reward of a decision, where a world answers."""

    within: float
    stepwise: float
    overall: float
    error: float
    calibration: float
    sampled: float = float("nan")
    greedy: float = float("nan")

    @classmethod
    def of(cls, model: Model, newcomers: Newcomers, stage: Stage | None, seed: int) -> "Scores":
        trails = model.trails(newcomers)
        earned = () if stage is None else (model.earned(newcomers, stage, seed, explore) for explore in (True, False))
        return cls(
            _cold_scores.within(trails),
            _cold_scores.stepwise(trails),
            _cold_scores.overall(trails),
            _cold_scores.squared_error(trails),
            _cold_scores.calibration(trails),
            *earned,
        )


def contest(dataset: Dataset, settings: Settings, seed: int, folder: Path) -> dict[str, Scores]:
    """Everyone on one split."""
    torch.set_num_threads(1)
    parts = split(dataset, seed)
    feature_map = FeatureMap.fit(dataset, parts.fit, settings.features, seed)
    reading = train.read(dataset, feature_map, parts.fit, parts.stop, settings)
    newcomers = Newcomers.of(dataset, parts.test, feature_map, reading.serialiser)
    stage = Stage.of(dataset, newcomers, feature_map, seed) if "marketplace" in dataset.facts else None
    models: dict[str, Model] = {
        "no_prior": _cold_models.no_prior(reading, feature_map),
        "pooled": _cold_models.pooled_prior(reading, feature_map),
        "vowpal": _cold_vowpal.warm(dataset, feature_map, parts, folder),
    }
    generated = partial(_cold_models.generated, reading=reading, newcomers=newcomers, source=feature_map)
    for name, extent in EXTENTS.items():
        models[name] = generated(_trained(reading, feature_map, settings, None, extent), settings=settings)
    backbone, _ = train.train_backbone(reading, settings, progress=False)
    language = _trained(reading, feature_map, settings, backbone, "whole")
    models["language"] = generated(language, settings=settings)
    models["prototypes"] = generated(language, settings=settings, own=False)
    return {name: Scores.of(model, newcomers, stage, seed) for name, model in models.items()}


def _trained(
    reading: train.Reading, feature_map: FeatureMap, settings: Settings, backbone: Backbone | None, extent: Extent
) -> Generator:
    embed = backbone.embed if backbone else None
    return train.train_head(reading, feature_map, backbone, None, embed, settings, None, False, extent)


def measures(found: dict[str, list[dict[str, Scores]]]) -> list[dict[str, Any]]:
    """The lines of the report; `found` has the scores of each model by log and split."""
    rows = []
    for log, runs in found.items():
        for model in (OURS, *(name for name in runs[0] if name not in (OURS, PEER))):
            suffix = "" if model == OURS else f"_{model}"
            rows.append(_difference(f"within_first5_{log}{suffix}", "within", model, runs))
            if not np.isnan(runs[0][PEER].sampled):
                rows.append(_ratio(f"reward_first10_{log}{suffix}", "sampled", model, runs))
                rows.append(_ratio(f"reward_first10_greedy_{log}{suffix}", "greedy", model, runs))
    return rows


def _difference(name: str, field: str, model: str, runs: Sequence[dict[str, Scores]]) -> dict[str, Any]:
    ours_J, peer_J = (np.array([getattr(run[who], field) for run in runs]) for who in (model, PEER))
    difference = float((ours_J - peer_J).mean())
    return _compared(name, ours_J, peer_J) | {
        "difference": difference,
        "interval": _cold_scores.interval(ours_J - peer_J, TEST),
        "unit": "AUC within users",
    }


def _ratio(name: str, field: str, model: str, runs: Sequence[dict[str, Scores]]) -> dict[str, Any]:
    ours_J, peer_J = (np.array([getattr(run[who], field) for run in runs]) for who in (model, PEER))
    ratio = float(ours_J.mean() / peer_J.mean())
    return _compared(name, ours_J, peer_J) | {
        "ratio": ratio,
        "interval": _cold_scores.interval(ours_J / peer_J, TEST, ratio),
        "unit": "expected reward of a decision",
    }


def _compared(name: str, ours_J: Floats, peer_J: Floats) -> dict[str, Any]:
    return {"name": name, "ours": float(ours_J.mean()), "peer": float(peer_J.mean()), "peer_name": PEER}


def show(found: dict[str, list[dict[str, Scores]]], rows: Sequence[dict[str, Any]]) -> None:
    """Means over the splits, a table for each log, and what is compared, on stderr."""
    for log, runs in found.items():
        heads = [field.name for field in fields(Scores) if not np.isnan(getattr(runs[0][PEER], field.name))]
        table = Table("model", *heads, title=f"{log}, {len(runs)} splits", box=None)
        for model in runs[0]:
            table.add_row(model, *(f"{np.mean([getattr(run[model], head) for run in runs]):.4f}" for head in heads))
        CONSOLE.print(table)
    for row in rows:
        low, high = row["interval"]
        compared = row.get("ratio", row.get("difference"))
        CONSOLE.print(f"{row['name']}: {compared:.4f} [{low:.4f}, {high:.4f}]", highlight=False)


def main() -> None:
    quick, folders = options(
        "cold_start",
        __doc__,
        "two splits of little data, and short trainings",
        "folders of coupon.parquet and transactions.parquet",
    )
    size = QUICK if quick else FULL
    found: dict[str, list[dict[str, Scores]]] = {}
    with bar(CONSOLE, "splits") as tell, tempfile.TemporaryDirectory() as folder:
        datasets = {log: read(log, folders, size.data) for log in LOGS}
        for n, (j, log) in enumerate(product(range(size.splits), LOGS), 1):
            scores = contest(datasets[log], size.settings, FIRST_SPLIT + j, Path(folder))
            found.setdefault(log, []).append(scores)
            told = ", ".join(f"{name} {each.within:.4f}" for name, each in scores.items())
            CONSOLE.print(f"{log}, split {j + 1} of {size.splits}, within: {told}", highlight=False, soft_wrap=True)
            tell(n, len(LOGS) * size.splits)
    rows = measures(found)
    show(found, rows)
    print(json.dumps({"benchmark": "cold_start", "measures": rounded(rows)}))


if __name__ == "__main__":
    main()
