"""How a version comes about, stage by stage; the yes or no on the way is `tune.gate`'s.

Shapes: N events, M members, C candidates.
"""

import importlib.metadata
import logging
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from actors.bandits import learn
from actors.bandits.ensemble import Admission, Ensemble, Part
from actors.bandits.shares import ItemWeights
from actors.bandits.version import Version
from actors.generator.generator import Generator
from cluster.config import Settings
from cluster.errors import MedleyError
from cluster.records import Dataset
from cluster.registry import Registry
from tune.confirm import Confirmed, confirm, untested
from tune.groundwork import Groundwork
from tune.keeping import keep, set_aside
from tune.predefined import Predefined
from tune.proposal import Proposal, forget, propose
from tune.specialise import Content
from tune.spending import Spending
from tune.stages import Stages
from tune.telling import told
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
    with stages.stage("features"):
        work = Groundwork.of(dataset, settings, content=Content.of(registry, name))
        members = work.predefined.members()
    made = Composition.of(work, members, stages, folder, Spending.read(registry, name))
    with stages.stage("publish"):
        number = registry.publish(name, made.version(stages, made.kept(registry, name)).save)
    result = {"version": number, "name": name} | made.result()
    stages.write(**result, **made.facts())
    forget(stages)
    return result


@dataclass(frozen=True)
class Composition:
    """What a version is made of, before anything is published.

    base: the predefined members along *select*; best: the best of them there. found: what confirm said.
    items: what items said of these members along *select*, None for nothing.
    """

    work: Groundwork
    base: Walk
    best: str
    proposal: Proposal | None
    found: Confirmed
    items: ItemWeights | None = None

    @classmethod
    def of(
        cls,
        work: Groundwork,
        predefined: tuple[Part, ...],
        stages: Stages,
        folder: Path | None,
        spending: Spending,
        generator: Generator | None = None,
    ) -> "Composition":
        """Walk *select*, propose a generated member, and confirm it; of a trained `generator`, where one is given."""
        stages.write(data=work.facts())
        _warn(work.dataset, work.settings, stages)
        trail, base, items = select(work, predefined, stages)
        best = max(base.names, key=lambda member: base.mean()[member])
        return cls(work, base, best, *generated(work, trail, base, best, stages, folder, spending, generator), items)

    @cached_property
    def ensemble(self) -> Ensemble:
        """What is published: refitted on all parts but the world's."""
        return final(self.work, self.fitted, self.proposal, self.found, self.base, self.items)

    @cached_property
    def fitted(self) -> Predefined:
        return refitted(self.work)

    @property
    def trial(self) -> Ensemble:
        """The same fitted on *fit* alone, to be tried on *confirm*."""
        return final(self.work, self.work.predefined, self.proposal, self.found, self.base, self.items)

    def version(self, stages: Stages, facts: dict[str, Any]) -> Version:
        """The version with where it comes from; `facts` go over the usual ones."""
        metrics = {"select": self.base.mean(), "gate": self.found.facts} | steps(self.proposal, stages)
        about = provenance(self.work, metrics) | {"tests": self.found.spending.tests} | facts
        return Version(self.work.feature_map, self.ensemble, self.work.dataset.items, about)

    def kept(self, registry: Registry, name: str) -> dict[str, Any]:
        """Publish the generator of an admitted member before the version; what the version says of both.

        A member that was not admitted is set aside: nothing serves it, but what was tested can be explained.
        """
        if self.proposal is None or self.proposal.member is None:
            return {}
        if not self.found.admission.anywhere:
            return {"proposed": set_aside(registry, name, self._proposed())}
        return {"generator": keep(registry, name, self.proposal.generator), "told": told(self.work, self.proposal)}

    def _proposed(self) -> Version:
        """As if the member had been admitted."""
        assert self.proposal is not None
        found = replace(self.found, admission=Admission(True))
        ensemble = final(self.work, self.fitted, self.proposal, found, self.base, self.items)
        about = {"told": told(self.work, self.proposal), "refused": self.found.facts["reason"]}
        facts = provenance(self.work, {"gate": self.found.facts}) | about
        return Version(self.work.feature_map, ensemble, self.work.dataset.items, facts)

    def result(self) -> dict[str, Any]:
        verdict = self.found.facts
        return {"best_predefined": self.best, "admitted": verdict["admitted"], "gate": verdict}

    def facts(self) -> dict[str, Any]:
        """For the report."""
        names = list(self.ensemble.names)
        return {"select": self.base.mean(), "members": names, "candidates": table(self.proposal)}


def select(work: Groundwork, predefined: tuple[Part, ...], stages: Stages) -> tuple[Trail, Walk, ItemWeights | None]:
    """The select part, the predefined members along it, and what its items said of them."""
    settings = work.settings
    with stages.stage("select", settings.budgets.select_s) as stage:
        trail = Trail.of(work.feature_map, work.events(work.split.select), settings.reward, settings.seed)
        state = learn.start(work.ensemble(*predefined))
        base = walk(state.ensemble, trail, settings.seed, lambda: stage.left_s, stage.progress, state)
        stage.left_out = base.left_in_words(trail)
    return trail, base, state.items.published()


def plain(work: Groundwork, stages: Stages) -> Ensemble:
    """The predefined members alone, as a version has them in which no generated one is admitted."""
    _, base, items = select(work, work.predefined.members(), stages)
    return final(work, refitted(work), None, untested("not asked for", Spending()), base, items)


def _warn(dataset: Dataset, settings: Settings, stages: Stages) -> None:
    """Say what the log lacks."""
    if left_out := dataset.facts.get("metric_left_out"):
        stages.warn(f"{left_out:,} decisions left out: metric.kind = {settings.metric.kind!r} cannot be known of them")
    missing = dataset.events["propensity"].null_count
    if 0 < missing < len(dataset.events):
        stages.warn(
            f"{missing:,} of {len(dataset.events):,} events have no propensity: parts with such events are judged by a "
            "reward model, which proves less; log the probability of every choice, or leave those events out"
        )


def generated(
    work: Groundwork,
    trail: Trail,
    base: Walk,
    best: str,
    stages: Stages,
    folder: Path | None,
    spending: Spending,
    generator: Generator | None = None,
) -> tuple[Proposal | None, Confirmed]:
    """The proposal (None where it failed), and what confirm says of its member.

    Whatever fails here costs the generated member, never the version: the reason is told, and stands in the
    place of the verdict.
    """
    proposal = None
    try:
        proposal = propose(work, trail, base, stages, folder, generator)
        return proposal, confirm(work, proposal, best, base, stages, spending)
    except Exception as error:
        known = isinstance(error, MedleyError)
        if not known:
            log.exception("no generated member")
        failed = "no generated member" if proposal is None else "the generated member could not be tested"
        reason = f"{failed}: {error}" if known else f"{failed}: {type(error).__name__}: {error}"
        stages.warn(f"{reason}; the version has predefined members only")
        return proposal, untested(reason, spending)


def refitted(work: Groundwork) -> Predefined:
    """The predefined members fitted on all parts but the world's."""
    split = work.split
    return work.fitted(np.concatenate([split.fit, split.stop, split.select, split.confirm]))


def final(
    work: Groundwork,
    fitted: Predefined,
    proposal: Proposal | None,
    found: Confirmed,
    base: Walk,
    items: ItemWeights | None = None,
) -> Ensemble:
    """The predefined members and what was admitted, every pooled posterior as `fitted`.

    The rows of the users that it was fitted on are in μ₀ then, so their histories start empty. Of what was admitted
    `items` say nothing yet.
    """
    values, errors = base.mean(), base.errors()
    members: tuple[Part, ...] = tuple(member for member in fitted.members() if member.name in values)
    admissions = {}
    if proposal is not None and proposal.member is not None and found.admission.anywhere:
        members += (proposal.rebased(fitted.linear),)
        name = proposal.member.name
        values, errors = values | {name: found.value}, errors | {name: found.error}
        admissions = {} if found.admission.everywhere else {name: found.admission}
    if items is not None:
        items = items.among(len(members))
    ensemble = replace(work.ensemble(*members), admissions=admissions, items=items)
    value_M, error_M = (np.array([known[member] for member in ensemble.names]) for known in (values, errors))
    return replace(ensemble, values_M=np.clip(value_M, 0.0, 1.0), errors_M=error_M)


def provenance(work: Groundwork, metrics: dict[str, Any]) -> dict[str, Any]:
    """Where a version comes from."""
    return {
        "parents": [],
        "seed": work.settings.seed,
        "watermark": work.dataset.facts.get("watermark"),
        "data": work.dataset.facts.get("fingerprint"),
        "events": len(work.dataset.events),
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
