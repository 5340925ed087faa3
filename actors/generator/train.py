"""Training of a generator on the fit part, stopped by the stop part: language model, then head.

Shapes: U tasks, N rows.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from actors.bandits import pooled
from actors.features.features import Floats, Ints
from actors.generator import embedded
from actors.generator.backbone import Backbone
from actors.generator.checkpoint import Checkpoint
from actors.generator.clicks import least_variance
from actors.generator.contexts import ContextMap
from actors.generator.fitting import Extent, fit_head
from actors.generator.gang import Workers
from actors.generator.generator import Embedding, Generator, Report
from actors.generator.head import Head
from actors.generator.likelihood import Rows, Whitened, prior_means
from actors.generator.people import People
from actors.generator.pretrain import Training, pretrain
from actors.generator.priors import Priors, crossfit, fold_of
from actors.generator.serialise import Serialiser
from actors.generator.tasks import Logged, Source, Tasks, build, contexts, user_keys
from cluster.clock import Clock
from cluster.config import GeneratorSettings, Settings
from cluster.records import Dataset

log = logging.getLogger(__name__)
FOLDS = 3
FEW_VALUES = 16
Route = Callable[[Backbone], Embedding]


@dataclass(frozen=True)
class Reading:
    """What there is to learn from: rows of both parts, their tasks, and the serialiser fitted on *fit*."""

    serialiser: Serialiser
    people: People
    logged: Logged
    fit: Tasks
    stop: Tasks
    left_out: int


def train(
    dataset: Dataset,
    source: Source,
    fit_rows: Ints,
    stop_rows: Ints,
    settings: Settings,
    *,
    whole: pooled.Pooled | None = None,
    route: Route | None = None,
    progress: bool = True,
) -> Generator:
    """Train a generator within `settings.budgets.backbone_s` and `head_s`.

    Args:
        dataset: events, items, users.
        source: the feature map, fitted on fit rows.
        fit_rows, stop_rows: event rows of the parts (users are in one of them only).
        whole: the pooled prior on all fit rows, if there is one already; candidates start from it.
        route: from the trained language model to the function that embeds texts, by default the model itself;
            the wiring passes one that sends them to Ray actors.

    Raises:
        EvidenceError: no rewarded events in a part. ModelError: a language model that does not fit.
    """
    torch.set_num_threads(settings.generator.threads)
    reading = read(dataset, source, fit_rows, stop_rows, settings)
    if settings.generator.reader == "numeric":
        return train_head(reading, source, None, None, None, settings, whole, progress)
    backbone, training = train_backbone(reading, settings, progress)
    embed = route(backbone) if route else backbone.embed
    return train_head(reading, source, backbone, training, embed, settings, whole, progress)


def read(dataset: Dataset, source: Source, fit_rows: Ints, stop_rows: Ints, settings: Settings) -> Reading:
    """Tasks of both parts; at most `generator.tasks` for fitting, and a quarter of that for stopping."""
    low, high, most = settings.reward.low, settings.reward.high, settings.generator.tasks
    limit = max(settings.bandits.history, 1)
    keys = user_keys(dataset.events.take(pa.array(fit_rows)))
    serialiser = Serialiser.fit(contexts(dataset, fit_rows), keys, dataset.items)
    fit = Logged.of(dataset, fit_rows, source, low, high)
    stop = Logged.of(dataset, stop_rows, source, low, high)
    fit_tasks = build(dataset, fit, serialiser, limit=limit, most=most, seed=settings.seed)
    stop_tasks = build(dataset, stop, serialiser, limit=limit, most=max(most // 4, 1), seed=settings.seed)
    left_out = len(set(keys)) - len(fit_tasks)
    if left_out:
        log.info("generator: %d of %d tasks left out (generator.tasks = %d)", left_out, len(set(keys)), most)
    return Reading(serialiser, People.of(dataset.users), fit, fit_tasks, stop_tasks, left_out)


def train_backbone(
    reading: Reading, settings: Settings, progress: bool, checkpoint: Checkpoint | None = None
) -> tuple[Backbone, Training | None]:
    """The embedded default trained whole, or the given model tuned by LoRA or left as it is."""
    return tuned(reading.fit.histories, reading.stop.histories, settings, progress, checkpoint)


def tuned(
    histories: Sequence[str],
    held_out: Sequence[str],
    settings: Settings,
    progress: bool,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> tuple[Backbone, Training | None]:
    """A language model for these histories; every one of `workers` calls this with the same arguments."""
    own: GeneratorSettings = settings.generator
    clock = Clock(settings.budgets.backbone_s, own.backbone_steps)
    if own.model is None:
        backbone = embedded.build(histories, own.hidden, own.layers, own.tokens, own.batch, settings.seed)
    else:
        backbone = Backbone.load(own.model, own.tokens, own.batch)
        if not own.lora:
            return backbone, None
    training = pretrain(
        backbone,
        histories,
        held_out,
        clock,
        lora=own.model is not None,
        seed=settings.seed,
        progress=progress,
        accumulate=own.accumulate,
        checkpoint=checkpoint,
        workers=workers,
    )
    return backbone, training


def by_users(logged: Logged, arms: int, whole: pooled.Pooled) -> Priors:
    """The pooled prior without each fold of the users, and of them all."""
    fold_N = np.asarray([fold_of(key, FOLDS) for key in user_keys(logged.events)])
    return crossfit(logged.phi_ND, logged.arm_N, logged.reward_N, fold_N, arms, FOLDS, whole)


@dataclass(frozen=True)
class Ready:
    """What a head is fitted on and stopped by: rows with their priors and the codes of their contexts.

    least: the variance that is believed of rewards that are clicks or the like, None for others.
    """

    priors: Priors
    context_map: ContextMap
    fit: Rows
    stop: Rows
    least: float | None

    @classmethod
    def of(
        cls, reading: Reading, source: Source, embed: Embedding | None, context_rank: int, whole: pooled.Pooled | None
    ) -> "Ready":
        """Priors are cross-fitted: a task's is of the others' rows."""
        logged, fit, stop = reading.logged, reading.fit, reading.stop
        whole = whole or pooled.fit(logged.phi_ND, logged.arm_N, logged.reward_N, source.arms)
        priors = by_users(logged, source.arms, whole)
        whitened, fold_U = Whitened.of(priors), np.asarray([fold_of(key, FOLDS) for key in fit.keys])
        context_map, code_UQ, stop_code_UQ = read_contexts(fit, stop, embed, context_rank)
        least = least_variance(prior_means(fit, fold_U, priors), fit.reward_N) if few_values(fit) else None
        rows = Rows(fit, code_UQ, fold_U, priors, whitened, least)
        stop_rows = Rows(stop, stop_code_UQ, np.full(len(stop), priors.whole), priors, whitened, least)
        return cls(priors, context_map, rows, stop_rows, least)

    @property
    def noise(self) -> float:
        """σ² of the pooled fit, in units of what the head predicts."""
        return self.priors.noise / float(np.mean(self.fit.scale_N**2))


def train_head(
    reading: Reading,
    source: Source,
    backbone: Backbone | None,
    training: Training | None,
    embed: Embedding | None,
    settings: Settings,
    whole: pooled.Pooled | None,
    progress: bool,
    extent: Extent = "whole",
    checkpoint: Checkpoint | None = None,
) -> Generator:
    """Cross-fit the pooled prior, read both parts' contexts, fit the head; the clock starts at the fit.

    Without a backbone and `embed` the states are the context features.
    """
    own = settings.generator
    ready = Ready.of(reading, source, embed, own.context_rank, whole)
    codes, floor = identified(reading.fit, own.codes, ready.noise)
    rank = ready.context_map.turn_HQ.shape[1]
    head = Head(rank, codes, own.rank, source.arms, source.dimension, ready.noise, settings.seed, floor)
    head_training = fit_head(
        head,
        ready.fit,
        ready.stop,
        Clock(settings.budgets.head_s, own.head_steps),
        patience=own.patience,
        seed=settings.seed,
        progress=progress,
        extent=extent,
        checkpoint=checkpoint,
    )
    counts = len(reading.fit), reading.left_out, len(reading.stop)
    return Generator(
        reading.serialiser,
        backbone,
        ready.context_map,
        head,
        head.mean_scale.item() * ready.priors.mean_FAD[ready.priors.whole],
        head.base_covariance(ready.fit),
        source.fingerprint,
        Report(training, head_training, *counts, ready.context_map.fit),
        ready.least,
        None if backbone is None else reading.people,
    )


def read_contexts(fit: Tasks, stop: Tasks, embed: Embedding | None, rank: int) -> tuple[ContextMap, Floats, Floats]:
    """The map of contexts to codes, fitted on *fit*, and both parts' codes; without `embed` from numbers alone."""
    if embed is None:
        numeric = ContextMap.numeric(fit.context_UX, rank)
        return numeric, numeric.codes(fit.context_UX), numeric.codes(stop.context_UX)
    states_UH, stop_states_UH = embed(fit.texts), embed(stop.texts)
    found = ContextMap.of(states_UH, fit.context_UX, rank)
    return found, found.codes(states_UH), found.codes(stop_states_UH)


def few_values(tasks: Tasks) -> bool:
    """Whether rewards are clicks or the like, whose variance follows their mean."""
    return len(np.unique(tasks.reward_N)) <= FEW_VALUES


def identified(tasks: Tasks, codes: int, noise: float) -> tuple[int, float]:
    """How many codes the tasks can tell apart, and the least σ² that is believed of them.

    Tasks of a single row say nothing of codes (in serving no history would choose among them): one code, and
    σ² at least half the pooled fit's. Where rewards have few values (clicks), σ² is at least a quarter of it.
    """
    if tasks.sizes_U.max() == 1:
        if codes > 1:
            log.info("generator: tasks of single rows, so one code instead of %d", codes)
        return 1, 0.5 * noise
    return codes, 0.25 * noise if few_values(tasks) else 0.0
