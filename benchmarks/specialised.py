"""Do models of providers, blended by content, foretell and choose better than one model of all, or one of each alone?

Three logs whose items name providers, of which some have many logged rows and most have few:

- marketplace: built-in marketplaces of 24 providers, each with a truth of its own; the first eight providers are large
  and specialised, the others have a few wares of any kind. A run is a marketplace; what a choice earns is the truth.
- audiences: planted providers in three clusters with audiences that answer in opposite ways (benchmarks/_audiences.py),
  24 of them from large to small; clusters are known as `tune.regroup` finds them. A run is a world of its own.
- retail: transactions.parquet; an article's provider is the first two characters of its number. A run is another split
  of the users; a choice earns 1 where it is the article that was bought.

A fifth of the users is held out; all models learn from the others' rows on one feature map and then stand still:

- one: one linear model of all rows, the member "linear" of every version.
- own: each provider's own linear model, of its own rows alone (a common prior, spreads fitted by evidence): no sharing.
- provider: each provider's model drawn around its cluster's, the member "provider".
- without: the blend of a version without content: uniform, popularity, linear, forgetting.
- blend: the plain blend of a version with content: the member "provider" beside these (and "cluster" where there is
  more than one), their weights by item from decayed performance and from what the five nearest items by content say.
- ppo: that blend with PPO's residual, trained on draws in the situations of the same users, where the world answers;
  without the gate that a version would have to pass. In the first five runs of each log alone, and not in the quick
  form.

Each is composed as `tune.compose` does it. Measures, over runs: mean log-likelihood of a held-out logged choice's
reward, nats, r·ln q + (1 − r)·ln(1 − q), q kept within 0.01 and 0.99 (where the truth is known, its expectation), for
all providers, for those with fewer than 200 learned rows (`few`), and for the others (`many`); and what the choice with
the greatest blended mean earns, among all candidates and among those of few-row providers alone. Intervals are 95 %,
Student's over marketplaces, Nadeau-Bengio's over splits.

    python -m benchmarks.specialised [--quick] [--data FOLDER...]
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import benchmarks._one_thread

# isort: split
import benchmarks._ray_first  # noqa: F401  before Ray is imported

# isort: split

import numpy as np
from rich.console import Console
from rich.table import Table

from actors.bandits import law, learn, pooled
from actors.bandits.ensemble import Ensemble, Prior
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from benchmarks import _specialised_logs as logs
from benchmarks._cold_logs import TEST, split
from benchmarks._cold_scores import interval
from benchmarks._options import options
from benchmarks._pairs import CONSOLE, rounded
from benchmarks._specialised_logs import HeldOut, Log
from benchmarks._specialised_ppo import trained
from cluster import config, session
from cluster.config import Settings
from cluster.progress import bar
from tune.composer import plain
from tune.groundwork import Groundwork
from tune.regrouping.models import LEAST
from tune.stages import Stages

COMPARED = (*(("blend", peer) for peer in ("one", "own", "provider", "without")), ("ppo", "blend"))
FEW = 200
"""Learned rows below which a provider has little data."""
FIRST = 2_000
"""Seed of the first run; what was tried while this was made was tried on others."""
CONTENT = ("cluster", "provider")


@dataclass(frozen=True)
class Size:
    """worlds: marketplaces, and as many of planted audiences. splits: of the purchases.

    steps: of the embedded CLIP on a catalogue. ppo_runs: of each log, the first ones. batches: of PPO, 4,096 draws
    each.
    """

    worlds: int
    splits: int
    marketplace_events: int
    audiences_events: int
    retail_events: int
    steps: int
    ppo_runs: int
    batches: int


FULL = Size(20, 6, 15_000, 6_000, 50_000, 200, 5, 20)
QUICK = Size(2, 2, 4_000, 2_000, 6_000, 20, 0, 0)


@dataclass(frozen=True)
class Scores:
    """Of one model in one run: nats, and earnings of a decision."""

    likelihood: float
    likelihood_few: float
    likelihood_many: float
    reward: float
    reward_few: float


Residual: TypeAlias = Callable[[Ensemble, FeatureMap, Ints], Ensemble]
"""Of a blend, its feature map and the rows that it has learned from."""


def contest(log: Log, seed: int, residual: Residual | None) -> dict[str, Scores]:
    """Every model on one split of the users."""
    dataset, settings = log.dataset, Settings(seed=seed)
    parts = split(dataset, seed)
    learned = np.sort(np.concatenate([parts.fit, parts.stop]))
    seen = replace(dataset, events=dataset.events.take(learned), truth=None)
    work = Groundwork.of(seen, settings, world=0.0, content=log.content)
    held_out = HeldOut.of(dataset, log.world(parts.test), learned, work.feature_map)
    blend = plain(work, Stages(None, Console(quiet=True)))
    models = {
        "one": blend.only("linear"),
        "own": _own(work, blend),
        "provider": blend.only("provider"),
        "without": blend.only(*(name for name in blend.names if name not in CONTENT)),
        "blend": blend,
    }
    if residual is not None:
        models["ppo"] = residual(blend, work.feature_map, learned)
    return {name: scores(means(ensemble, held_out, seed), held_out) for name, ensemble in models.items()}


def _own(work: Groundwork, blend: Ensemble) -> Ensemble:
    """Each provider's model of its own rows; the last row, which an unknown one gets, is their common prior."""
    design = work.fitted(np.arange(len(work.dataset.events))).design
    relations = work.feature_map.relations
    assert relations is not None
    fitted = pooled.fit(
        design.phi_ND, design.provider_N, design.reward_N, relations.provider_rows, work.feature_map.groups
    )
    own = Prior("own", fitted.precision_ADD, fitted.shift_AD, fitted.noise, "provider")
    return replace(blend, members=(own,), values_M=np.full(1, 0.5), errors_M=None, items=None)


def means(ensemble: Ensemble, held_out: HeldOut, seed: int) -> Floats:
    """Blended means (N, K) of an ensemble that stands still, scaled rewards; −inf on padding."""
    published = learn.publish(learn.start(ensemble))
    mean_NK = np.full(held_out.truth_NK.shape, -np.inf)
    for n in range(len(held_out)):
        features = held_out.batch.row(n)
        mean_NK[n, : len(features)] = law.probabilities(published, features, None, (seed << 32) + n).mean_K
    return mean_NK


def scores(mean_NK: Floats, held_out: HeldOut) -> Scores:
    rows = np.arange(len(held_out))
    provider_N = held_out.provider_NK[rows, held_out.action_N]
    few_P = held_out.rows_P < FEW
    few_N, told_N = few_P[provider_N], provider_N >= 0
    nats_N = likelihood(mean_NK[rows, held_out.action_N], held_out.truth_NK[rows, held_out.action_N])
    small_NK = (held_out.provider_NK >= 0) & few_P[held_out.provider_NK]
    choice_N = small_NK.sum(axis=1) >= 2
    return Scores(
        float(nats_N[told_N].mean()),
        float(nats_N[told_N & few_N].mean()),
        float(nats_N[told_N & ~few_N].mean()),
        float(held_out.truth_NK[rows, mean_NK.argmax(axis=1)].mean()),
        float(held_out.truth_NK[rows, np.where(small_NK, mean_NK, -np.inf).argmax(axis=1)][choice_N].mean()),
    )


def likelihood(mean_N: Floats, reward_N: Floats) -> Floats:
    """Of rewards in [0, 1] under means, nats."""
    chance_N = np.clip(mean_N, LEAST, 1 - LEAST)
    return np.asarray(reward_N * np.log(chance_N) + (1 - reward_N) * np.log1p(-chance_N))


def measures(found: Mapping[str, Sequence[Mapping[str, Scores]]]) -> list[dict[str, Any]]:
    """What is compared, by log, measure and peer."""
    rows = []
    for log, runs in found.items():
        for field in fields(Scores):
            for who, peer in COMPARED:
                both = [run for run in runs if who in run]
                if not both:
                    continue
                ours_J, peer_J = (np.array([getattr(run[name], field.name) for run in both]) for name in (who, peer))
                row = {
                    "name": f"{field.name}_{log}" + ("" if who == "blend" else f"_{who}"),
                    "ours": float(ours_J.mean()),
                    "peer": float(peer_J.mean()),
                    "peer_name": peer,
                    "difference": float((ours_J - peer_J).mean()),
                    "interval": interval(ours_J - peer_J, TEST if log == "retail" else 0.0),
                    "unit": "nats" if field.name.startswith("likelihood") else "reward of a decision",
                }
                rows.append(row)
    return rows


def show(found: Mapping[str, Sequence[Mapping[str, Scores]]], rows: Sequence[dict[str, Any]]) -> None:
    """Means over the runs, a table for each log, and what is compared, on stderr."""
    for log, runs in found.items():
        heads = [field.name for field in fields(Scores)]
        table = Table("model", "runs", *heads, title=log, box=None)
        for model in runs[0]:
            had = [run[model] for run in runs if model in run]
            means = (f"{np.mean([getattr(each, head) for each in had]):.4f}" for head in heads)
            table.add_row(model, str(len(had)), *means)
        CONSOLE.print(table)
    for row in rows:
        low, high = row["interval"]
        text = f"{row['name']} less {row['peer_name']}: {row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]"
        CONSOLE.print(text, highlight=False, soft_wrap=True)


def main() -> None:
    quick, folders = options(
        "specialised", __doc__, "two runs of each log, of little data", "folders with a transactions.parquet"
    )
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory(prefix="medley-bench-") as folder:
        os.environ["MEDLEY_HOME"] = folder
        with session.opened(config.load(None)) if size.ppo_runs else nullcontext():
            found = _contests(folders, size, Path(folder))
    rows = measures(found)
    show(found, rows)
    print(json.dumps({"benchmark": "specialised", "measures": rounded(rows)}))


def _contests(folders: Sequence[Path], size: Size, scratch: Path) -> dict[str, list[dict[str, Scores]]]:
    """The scores of all models by log and run."""
    found: dict[str, list[dict[str, Scores]]] = {"marketplace": [], "audiences": [], "retail": []}

    def run(name: str, log: Log, j: int) -> None:
        seed, folder = FIRST + j, scratch / f"{name}{j}"
        residual = partial(_residual, log, size.batches, seed, folder) if j < size.ppo_runs else None
        scored = contest(log, seed, residual)
        found[name].append(scored)
        text = ", ".join(f"{model} {each.likelihood_few:.4f}" for model, each in scored.items())
        CONSOLE.print(f"{name}, run {j + 1}, likelihood_few: {text}", highlight=False, soft_wrap=True)
        tell(sum(map(len, found.values())), 2 * size.worlds + size.splits)

    with bar(CONSOLE, "runs") as tell:
        for j in range(size.worlds):
            dataset = logs.marketplace(FIRST + j, size.marketplace_events)
            run("marketplace", Log.of(dataset, logs.embeddings(dataset.items, size.steps, FIRST + j)), j)
            run("audiences", Log.audiences(FIRST + j, size.audiences_events), j)
        dataset = logs.purchases(folders, size.retail_events)
        log = Log.of(dataset, logs.embeddings(dataset.items, size.steps, FIRST))
        for j in range(size.splits):
            run("retail", log, j)
    return found


def _residual(
    log: Log, batches: int, seed: int, folder: Path, blend: Ensemble, feature_map: FeatureMap, rows: Ints
) -> Ensemble:
    settings = Settings(seed=seed)
    return trained(blend, feature_map, log.world(rows[-settings.ppo.decisions :]), batches, settings, folder)


if __name__ == "__main__":
    main()
