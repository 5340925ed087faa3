"""From the log to a generated member: train the generator, value its candidates on *select*, mix the best.

Shapes: N events, C candidates, M members.
"""

from dataclasses import dataclass, replace

import numpy as np

from actors.bandits.mixture import Mixture
from actors.generator.generator import Generator
from actors.generator.tasks import Traffic
from actors.generator.train import read, train_backbone, train_head
from tune import evaluate
from tune.evaluate import Ground
from tune.groundwork import Groundwork
from tune.progressive import Draws
from tune.stages import Stage, Stages
from tune.walk import Trail, Walk, walk

TEMPERATURES = (0.03, 0.1, 0.3)
EXPLORATIONS = (0.0, 0.3, 1.0)
VARIANT_EVENTS = 1_500
"""Events on which the mixture's temperature and exploration are chosen."""


@dataclass(frozen=True)
class Proposal:
    """member: the mixture of the best candidates; None where there is no candidate. rows: the sweep's table."""

    member: Mixture | None
    rows: list[evaluate.Candidate]
    chosen: list[str]
    generator: Generator


def propose(work: Groundwork, trail: Trail, base: Walk, stages: Stages) -> Proposal:
    """Train, generate, value on `trail` (the select part) beside the predefined members' walk `base`, and mix."""
    settings = work.settings
    trained = train(work, stages)
    with stages.stage("generate"):
        own = settings.generator
        traffic = Traffic.of(
            work.dataset,
            work.split.select,
            trained.serialiser,
            limit=max(settings.bandits.history, 1),
            most=own.tasks,
            seed=settings.seed,
        )
        candidates = trained.candidates(traffic, work.feature_map, own, settings.seed)
    if not len(candidates):
        return Proposal(None, [], [], trained)
    with stages.stage("sweep", settings.budgets.sweep_s) as stage:
        everyone = candidates.mixture("candidates")
        ground = ground_of(trail, base, settings.bandits.history)
        rows = evaluate.assess(everyone, ground, evaluate.domains(everyone, ground), Draws())
        chosen = evaluate.select(rows, everyone, ground, settings.sweep.top_k, settings.sweep.max_agreement)
        names = list(everyone.names_C)
        mixture = candidates.mixture("generated", np.array([names.index(name) for name in chosen]))
        member = tuned(mixture, work, trail, stage)
    return Proposal(member, rows, chosen, trained)


def train(work: Groundwork, stages: Stages) -> Generator:
    """The language model, then the head, each within its budget."""
    settings, budgets = work.settings, work.settings.budgets
    with stages.stage("backbone", budgets.backbone_s) as stage:
        reading = read(work.dataset, work.feature_map, work.split.fit, work.split.stop, settings)
        backbone, training = train_backbone(reading, settings, progress=False)
        if reading.left_out:
            stage.left_out = f"{reading.left_out:,} tasks left out of training"
    with stages.stage("head", budgets.head_s):
        return train_head(
            reading,
            work.feature_map,
            backbone,
            training,
            backbone.embed,
            settings,
            work.predefined.linear,
            progress=False,
        )


def ground_of(trail: Trail, base: Walk, history: int) -> Ground:
    """The events that the predefined members' walk reached, with what they were worth there."""
    done = np.arange(len(base.log))
    return Ground(base.log, trail.batch.take(done), trail.q_NK[done], base.value_NM, base.names, history)


def tuned(mixture: Mixture, work: Groundwork, trail: Trail, stage: Stage) -> Mixture:
    """The mixture with the temperature, then the exploration, that did best along the select part."""
    hot = best([replace(mixture, temperature=t, exploration=0.0) for t in TEMPERATURES], work, trail, stage)
    return best([replace(hot, exploration=x) for x in EXPLORATIONS], work, trail, stage)


def best(variants: list[Mixture], work: Groundwork, trail: Trail, stage: Stage) -> Mixture:
    """The variant of greatest value; the first of equals."""
    named = [replace(variant, name=str(number)) for number, variant in enumerate(variants)]
    walked = walk(work.ensemble(*named), trail.first(VARIANT_EVENTS), work.settings.seed, lambda: stage.left_s)
    value_M = walked.value_NM.mean(0)
    return variants[int(np.argmax(value_M))]
