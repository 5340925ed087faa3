"""How a version comes about, stage by stage; the yes or no on the way is `tune.gate`'s.

Shapes: N events, M members, C candidates.
"""

import importlib.metadata
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.bandits.ensemble import Ensemble, Part
from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import MedleyError
from cluster.records import Dataset
from cluster.registry import Registry
from tune.confirm import Confirmed, confirm, untested
from tune.groundwork import Groundwork
from tune.proposal import Proposal, propose
from tune.spending import Spending
from tune.stages import Stages
from tune.walk import Trail, Walk, walk

log = logging.getLogger(__name__)
LIBRARIES = ("numpy", "ray", "torch", "transformers", "pyarrow")


def compose(
    dataset: Dataset, settings: Settings, stages: Stages, name: str, folder: Path | None = None
) -> dict[str, Any]:
    """Compose and publish a version; returns its number, what was admitted, and why.

    Args:
        folder: scratch for Ray's part of the work; None does all of it in this process.
    """
    registry = Registry(settings.registry_uri)
    registry.ensure(name)
    spending = Spending.read(registry, name)
    with stages.stage("features"):
        work = Groundwork.of(dataset, settings)
        dataset = work.dataset
        predefined = work.predefined.members()
    stages.write(data=work.facts())
    if left_out := dataset.facts.get("metric_left_out"):
        stages.warn(f"{left_out:,} decisions left out: metric.kind = {settings.metric.kind!r} cannot be known of them")
    missing = dataset.events["propensity"].null_count
    if 0 < missing < len(dataset.events):
        stages.warn(
            f"{missing:,} of {len(dataset.events):,} events have no propensity: parts with such events are judged by a "
            "reward model, which proves less; log the probability of every choice, or leave those events out"
        )
    with stages.stage("select", settings.budgets.select_s) as stage:
        trail = Trail.of(work.feature_map, work.events(work.split.select), settings.reward, settings.seed)
        base = walk(work.ensemble(*predefined), trail, settings.seed, lambda: stage.left_s, stage.progress)
        stage.left_out = base.left_in_words(trail)
    best = max(base.names, key=lambda member: base.mean()[member])
    proposal, found = generated(work, trail, base, best, stages, folder, spending)
    verdict = found.facts
    with stages.stage("publish"):
        ensemble = final(work, proposal, found, base.mean())
        facts = provenance(work, {"select": base.mean(), "gate": verdict} | steps(proposal, stages))
        facts |= {"tests": found.spending.tests}
        version = Version(work.feature_map, ensemble, dataset.items, facts)
        number = registry.publish(name, version.save)
    result = {"version": number, "name": name, "best_predefined": best} | {
        "admitted": verdict["admitted"],
        "gate": verdict,
    }
    stages.write(**result, select=base.mean(), members=list(ensemble.names), candidates=table(proposal))
    return result


def generated(
    work: Groundwork, trail: Trail, base: Walk, best: str, stages: Stages, folder: Path | None, spending: Spending
) -> tuple[Proposal | None, Confirmed]:
    """The proposal (None where it failed), and what confirm says of its member.

    Whatever fails here costs the generated member, never the version: the reason is told, and stands in the
    place of the verdict.
    """
    proposal = None
    try:
        proposal = propose(work, trail, base, stages, folder)
        return proposal, confirm(work, proposal, best, base, stages, spending)
    except Exception as error:
        known = isinstance(error, MedleyError)
        if not known:
            log.exception("no generated member")
        failed = "no generated member" if proposal is None else "the generated member could not be tested"
        reason = f"{failed}: {error}" if known else f"{failed}: {type(error).__name__}: {error}"
        stages.warn(f"{reason}; the version has predefined members only")
        return proposal, untested(reason, spending)


def final(work: Groundwork, proposal: Proposal | None, found: Confirmed, values: dict[str, float]) -> Ensemble:
    """The ensemble that is published: every member's pooled posterior refitted on all parts but the world's.

    The rows of all known users are in μ₀ then, so their histories start empty.
    """
    split = work.split
    refitted = work.fitted(np.concatenate([split.fit, split.stop, split.select, split.confirm]))
    members: tuple[Part, ...] = refitted.members()
    admissions = {}
    if proposal is not None and proposal.member is not None and found.admission.anywhere:
        members += (proposal.rebased(refitted.linear),)
        values = values | {proposal.member.name: found.value}
        admissions = {} if found.admission.everywhere else {proposal.member.name: found.admission}
    ensemble = replace(work.ensemble(*members), admissions=admissions)
    return replace(ensemble, values_M=np.clip([values[member] for member in ensemble.names], 0.0, 1.0))


def provenance(work: Groundwork, metrics: dict[str, Any]) -> dict[str, Any]:
    """Where a version comes from."""
    return {
        "parents": [],
        "seed": work.settings.seed,
        "watermark": work.dataset.facts.get("watermark"),
        "data": work.dataset.facts.get("fingerprint"),
        "metrics": metrics,
        "libraries": {library: importlib.metadata.version(library) for library in LIBRARIES},
    }


def steps(proposal: Proposal | None, stages: Stages) -> dict[str, Any]:
    """How far training came and what stages left out: equal steps give equal bits, whatever the clock allowed."""
    left_out = {row["stage"]: row["left_out"] for row in stages.facts["timings"] if row["left_out"]}
    return {"generator": None if proposal is None else asdict(proposal.generator.report), "left_out": left_out}


def table(proposal: Proposal | None) -> list[dict[str, Any]]:
    """The sweep's table for the report."""
    if proposal is None:
        return []
    return [asdict(row) | {"chosen": row.candidate in proposal.chosen} for row in proposal.rows]
