"""The same traffic twice, once with replacement and once with what learning alone makes of it.

The first part of the events is the log that a version is composed from; the rest are the situations of a world, which
drifts as `world.drift` says. Two services begin with the same version and answer the same situations; at every look
the refinement of the one may publish a new version, which takes over. Both pay for what they do not know yet.

Shapes: N situations of the traffic, T spans, M members.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.bandits.version import Version
from actors.features.features import Floats
from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from cluster.registry import Registry
from tune import metric
from tune.baselines import Schedule
from tune.composer import compose
from tune.memory import Memory
from tune.refinement import Refinement
from tune.service import Done, Service
from tune.stages import Stages
from tune.worlds.base import World
from tune.worlds.build import on
from tune.worlds.wrapped import time_shares

LOG = 1 / 3
"""Share of the events that is the log; the rest is traffic."""
PUBLISH_S = 3_600.0
"""Between two publications of a learner, in the time of the log."""
KNOWN = 1_500
"""Situations, before and after the drift, on which it is measured what features can tell."""


@dataclass(frozen=True)
class Rehearsal:
    """What one seed gave. replaced, alone: what the two services did in the N situations.

    looks: what each refinement said, with the number of situations before it. moved_N: share of the drift.
    uniform, told: mean reward of uniform choice, and of a linear model that is given the truth, before and after.
    """

    replaced: Sequence[Done]
    alone: Sequence[Done]
    looks: Sequence[dict[str, Any]]
    at_N: Floats
    uniform: tuple[float, float]
    told: tuple[float, float]


def rehearse(
    dataset: Dataset, settings: Settings, looks: int, stages: Stages, name: str, folder: Path | None = None
) -> Rehearsal:
    """Compose from the log, then serve the traffic twice.

    Args:
        settings: `registry` is where the versions go, `world` how the world drifts.
        looks: refinements, evenly through the traffic.
        folder: scratch for Ray's part of composing; None does all of it in this process.

    Raises EvidenceError where the world does not drift.
    """
    if settings.world.drift == "none":
        raise EvidenceError("world.drift is none: there is nothing to recover from; set it to abrupt or gradual")
    dataset = metric.apply(dataset, settings)
    order = np.argsort(dataset.events["timestamp"].cast(pa.int64()).to_numpy(), kind="stable")
    cut = round(LOG * len(order))
    world = on(dataset, order[cut:], settings)
    past = replace(dataset, format="feedback", events=dataset.events.take(pa.array(order[:cut])), truth=None)
    number = compose(past, settings, stages, name, folder)["version"]
    registry = Registry(settings.registry_uri)
    version = Version.load(registry.fetch(name, number))
    schedule = _schedule(world, settings)
    one, other = (Service(version, number, world, schedule, settings.seed) for _ in range(2))
    memory, found, total = Memory(), [], len(schedule.row_N)
    for look in range(1, looks + 1):
        with stages.stage(f"traffic {look} of {looks}"):
            one.serve(look * total // looks)
            other.serve(look * total // looks)
        seen = replace(
            past,
            events=pa.concat_tables([past.events, one.journal()]),
            facts={"fingerprint": f"rehearsal/{settings.seed}/{look}", "watermark": len(one.done)},
        )
        said = Refinement.of(seen, settings, name, stages, folder).go(memory)
        found.append({"decisions": len(one.done)} | said)
        if "version" in said:
            one.replace(Version.load(registry.fetch(name, said["version"])), said["version"])
    shares_N = time_shares(world.events)
    return Rehearsal(one.done, other.done, found, shares_N, *_known(world, version, shares_N, settings))


def _schedule(world: World, settings: Settings) -> Schedule:
    second_N = world.events["timestamp"].cast(pa.int64()).to_numpy() / 1e6
    return Schedule(np.arange(len(second_N)), second_N - second_N[0], settings.reward.window_s, PUBLISH_S)


def _known(
    world: World, version: Version, shares_N: Floats, settings: Settings
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(uniform, told) before and after the moment of an abrupt drift; first and last part of another one."""
    at = settings.world.drift_at if settings.world.drift == "abrupt" else 0.5
    halves = [np.flatnonzero(shares_N < at), np.flatnonzero(shares_N >= at)]
    (uniform_before, told_before), (uniform_after, told_after) = (_told(world, version, rows) for rows in halves)
    return (uniform_before, uniform_after), (told_before, told_after)


def _told(world: World, version: Version, rows: Any) -> tuple[float, float]:
    """Mean reward of uniform choice, and of the best by a ridge regression of the true means of other situations."""
    rows = rows[:: max(1, len(rows) // KNOWN)]
    batch = version.feature_map.batch(world.events.take(pa.array(rows)))
    lists = world.events["candidates"].take(pa.array(rows)).to_pylist()
    mean_BK = np.zeros(batch.mask_BK.shape)
    for b, listed in enumerate(lists):
        items = listed or version.feature_map.item_ids
        mean_BK[b, : len(items)] = world.mean_rewards(int(rows[b]), items)
    learned_B = np.arange(len(rows)) % 2 == 0
    arm_BK, taken = batch.arm_BK % version.feature_map.arms, batch.mask_BK & learned_B[:, None]
    score_BK = np.full(mean_BK.shape, -np.inf)
    for arm in np.unique(arm_BK[batch.mask_BK]):
        here_BK = taken & (arm_BK == arm)
        phi_ND, other_BK = batch.phi_BKD[here_BK], batch.mask_BK & (arm_BK == arm)
        theta_D = np.linalg.solve(phi_ND.T @ phi_ND + np.eye(phi_ND.shape[1]), phi_ND.T @ mean_BK[here_BK])
        score_BK[other_BK] = batch.phi_BKD[other_BK] @ theta_D
    judged = np.flatnonzero(~learned_B)
    told = float(mean_BK[judged, score_BK[judged].argmax(axis=1)].mean())
    return float(mean_BK[batch.mask_BK].mean()), told
