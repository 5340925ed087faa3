"""From the log to a generated member: train the generator, value its candidates on *select*, mix the best.

Shapes: N events, C candidates, M members.
"""

import contextlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from actors.bandits.mixture import Follow, Mixture
from actors.bandits.pooled import Pooled
from actors.bandits.posterior import gaussian
from actors.generator.actor import Pool
from actors.generator.backbone import Backbone
from actors.generator.candidates import Candidates
from actors.generator.checkpoint import Checkpoint
from actors.generator.generator import Generator
from actors.generator.pretrain import Training
from actors.generator.tasks import Traffic
from actors.generator.train import Reading, read, train_backbone, train_head
from cluster.config import Settings
from tune import candidate_sweep, evaluate
from tune.codes import told
from tune.evaluate import Ground
from tune.groundwork import Groundwork
from tune.stages import Stage, Stages
from tune.walk import Trail, Walk, walk

LOOKED = 1_000
"""Contexts looked at for how many are too long to be read whole."""
TRAINING = "training"
"""Folder of a run with the checkpoints of its trainings."""
TEMPERATURES = (0.03, 0.1, 0.3)
RESERVE = 0.4
"""Share of the sweep's budget that is kept for the mixture's temperature."""

VARIANT_EVENTS = 1_500
"""Events on which the mixture's temperature is chosen."""


@dataclass(frozen=True)
class Proposal:
    """member: the mixture of the best candidates; None where there is no candidate. rows: the sweep's table.

    candidates: all that were generated.
    """

    member: Mixture | None
    rows: list[evaluate.Candidate]
    chosen: list[str]
    generator: Generator
    candidates: Candidates

    def rebased(self, linear: Pooled) -> Mixture:
        """The member on a newer pooled posterior: m_c + a(μ₀' − μ₀)."""
        assert self.member is not None
        return self.member.following(gaussian(linear.precision_ADD, linear.shift_AD).mean_AD)


def propose(
    work: Groundwork,
    trail: Trail,
    base: Walk,
    stages: Stages,
    folder: Path | None,
    generator: Generator | None = None,
) -> Proposal:
    """Train, generate, value on `trail` (the select part) beside the predefined members' walk `base`, and mix.

    Args:
        folder: scratch that every node can read, where Ray runs the generation and the sweep; None does both here.
        generator: one that is trained already.
    """
    settings = work.settings
    with contextlib.ExitStack() as stack:
        actors = folder is not None and settings.generator.reader == "language" and generator is None
        pool = stack.enter_context(Pool(folder / "generator", settings.generator)) if folder and actors else None
        trained = generator or train(work, stages, pool, folder)
        with stages.stage("generate"):
            traffic = Traffic.of(
                work.dataset,
                work.split.select,
                trained.serialiser,
                work.feature_map,
                limit=max(settings.bandits.history, 1),
                most=settings.generator.tasks,
                seed=settings.seed,
            )
            embed = pool.embed if pool else None
            candidates = trained.candidates(traffic, work.feature_map, settings.generator, settings.seed, embed)
            trail = told(trail, work, work.split.select, trained, embed)
    if not len(candidates):
        return Proposal(None, [], [], trained, candidates)
    with stages.stage("sweep", settings.budgets.sweep_s) as stage:
        everyone = candidates.mixture("candidates")
        ground = ground_of(trail, base, settings.bandits.history)
        swept = candidate_sweep.sweep(
            everyone,
            ground,
            settings.sweep,
            left_s=lambda: stage.left_s - RESERVE * settings.budgets.sweep_s,
            folder=folder,
            seed=settings.seed,
            progress=stage.progress,
        )
        stage.left_out = swept.note
        rows, own = list(swept.rows), settings.sweep
        chosen = evaluate.select(rows, everyone, ground, own.top_k, own.max_agreement)
        names = list(everyone.names_C)
        mixture = candidates.mixture("generated", np.array([names.index(name) for name in chosen]))
        scale = trained.head.mean_scale.item()
        follow = Follow("linear", trained.mean_AD / scale, scale)
        if (personal := settings.generator.personal) != "nobody":
            mixture = replace(mixture, decoder=trained.decoder, personal=personal)
        member = replace(tuned(mixture, work, trail, stage), follow=follow)
    return Proposal(member, rows, chosen, trained, candidates)


def train(work: Groundwork, stages: Stages, pool: Pool | None, folder: Path | None) -> Generator:
    """The language model, then the head, each within its budget."""
    settings, budgets, shown = work.settings, work.settings.budgets, stages.shown
    torch.set_num_threads(settings.generator.threads)
    with stages.stage("backbone", budgets.backbone_s, bar=False) as stage:
        reading = read(work.dataset, work.feature_map, work.split.fit, work.split.stop, settings)
        backbone, training = _backbone(reading, settings, stages, folder)
        if reading.left_out:
            stage.left_out = f"{reading.left_out:,} tasks left out of training"
    if training:
        stages.say(training.in_words())
    if backbone is not None and (share := backbone.cut(reading.fit.texts[:LOOKED])):
        stages.say(
            f"{share:.0%} of contexts are longer than generator.tokens = {backbone.tokens}: their ends are cut off"
        )
    with stages.stage("head", budgets.head_s, bar=False):
        embed = None
        if backbone is not None:
            embed = pool.route(backbone) if pool else backbone.embed
        pooled = work.predefined.linear
        checkpoint = _checkpoint(stages, "head")
        generator = train_head(
            reading, work.feature_map, backbone, training, embed, settings, pooled, shown, checkpoint=checkpoint
        )
    stages.say(generator.report.head.in_words())
    return generator


def _backbone(
    reading: Reading, settings: Settings, stages: Stages, folder: Path | None
) -> tuple[Backbone | None, Training | None]:
    """The trained language model, if one reads: by workers on Ray where there are several, else here."""
    if settings.generator.reader == "numeric":
        return None, None
    checkpoint = _checkpoint(stages, "language_model")
    if settings.generator.workers == 1 or folder is None:
        return train_backbone(reading, settings, stages.shown, checkpoint)
    from tune.pretraining import train_together  # takes Ray Train seconds to import

    return train_together(reading, settings, folder, checkpoint, stages.shown)


def _checkpoint(stages: Stages, name: str) -> Checkpoint | None:
    return Checkpoint(stages.folder / TRAINING / name) if stages.folder else None


def forget(stages: Stages) -> None:
    """Remove what a killed run would have gone on from: this one is finished."""
    if stages.folder:
        shutil.rmtree(stages.folder / TRAINING, ignore_errors=True)


def ground_of(trail: Trail, base: Walk, history: int) -> Ground:
    """The events that the predefined members' walk reached, with what they were worth there."""
    done = np.arange(len(base.log))
    return Ground(base.log, trail.batch.take(done), trail.q_NK[done], base.value_NM, base.names, history)


def tuned(mixture: Mixture, work: Groundwork, trail: Trail, stage: Stage) -> Mixture:
    """The mixture with the temperature that did best along the select part.

    How far it explores is a setting: a replay's histories are the log's whatever is chosen, so it can only show
    what exploration costs.
    """
    exploration = work.settings.generator.exploration
    return best([replace(mixture, temperature=t, exploration=exploration) for t in TEMPERATURES], work, trail, stage)


def best(variants: list[Mixture], work: Groundwork, trail: Trail, stage: Stage) -> Mixture:
    """The variant of greatest value; the first of equals."""
    named = [replace(variant, name=str(number)) for number, variant in enumerate(variants)]
    walked = walk(work.ensemble(*named), trail.first(VARIANT_EVENTS), work.settings.seed, lambda: stage.left_s)
    value_M = walked.value_NM.mean(0)
    return variants[int(np.argmax(value_M))]
