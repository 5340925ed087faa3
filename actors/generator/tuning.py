"""Fine-tuning: a generator goes on from where it stands, on tasks that it has not read, and says what that gained.

The language model goes on by next-token prediction (a given one by LoRA), the head by the likelihood that it was
trained on, both stopped by the stop users. The code keeps its axes; the encoder that stands in for the language model
is fitted anew. μ₀ and S₀ are those of all rows that there are now, for the generator before and after alike, so that
the losses of the two differ by what they make of a context alone.

Shapes: U tasks.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np

from actors.bandits import pooled
from actors.features.features import Floats, Ints
from actors.generator.climb import Climb
from actors.generator.contexts import ContextMap, encoder
from actors.generator.generator import Generator, Report
from actors.generator.likelihood import Rows, Whitened
from actors.generator.losses import losses
from actors.generator.pretrain import Training, pretrain
from actors.generator.priors import Priors, fold_of
from actors.generator.tasks import Tasks
from actors.generator.train import FOLDS, Reading, by_users
from cluster.clock import Clock
from cluster.config import Settings


@dataclass(frozen=True)
class Tuned:
    """before_U, after_U: the loss L_u of each held-out task, nats, before and after; rows_U: rewards of each."""

    generator: Generator
    before_U: Floats
    after_U: Floats
    rows_U: Ints


def tune(
    generator: Generator, reading: Reading, held_out: Tasks, whole: pooled.Pooled, settings: Settings, progress: bool
) -> Tuned:
    """Tune a copy of the head and, in place, the language model; within the budgets of a training.

    Args:
        reading: `logged` are all rows of fit users, for μ₀ and S₀; `fit` and `stop` the tasks to learn from.
        held_out: tasks of users who are in neither.
        whole: the pooled prior on `logged`.

    Raises:
        ModelError: there is nothing to learn from.
    """
    priors = by_users(reading.logged, len(generator.mean_AD), whole)
    whitened = Whitened.of(priors)
    before_U = losses(generator.head, _rows(generator, held_out, priors, whitened))
    training = _language(generator, reading, settings, progress)
    tuned = replace(generator, contexts=_contexts(generator, reading.fit))
    head, fit_rows = copy.deepcopy(generator.head), _rows(tuned, reading.fit, priors, whitened, cross=True)
    climb = Climb(head, fit_rows, _rows(tuned, reading.stop, priors, whitened), settings)
    found = climb.run(generator.report.head, progress)
    fit, stop = len(reading.fit), len(reading.stop)
    tuned = replace(
        tuned,
        head=head,
        mean_AD=head.mean_scale.item() * priors.mean_FAD[priors.whole],
        covariance_ADD=head.base_covariance(fit_rows),
        people=generator.people and reading.people,
        report=Report(training, found, fit, reading.left_out, stop, tuned.contexts.fit),
    )
    return Tuned(tuned, before_U, losses(head, _rows(tuned, held_out, priors, whitened)), held_out.sizes_U)


def _language(generator: Generator, reading: Reading, settings: Settings, progress: bool) -> Training | None:
    own = settings.generator
    if generator.backbone is None or (own.model is not None and not own.lora):
        return None
    return pretrain(
        generator.backbone,
        reading.fit.histories,
        reading.stop.histories,
        Clock(settings.budgets.backbone_s, own.backbone_steps),
        lora=own.model is not None,
        seed=settings.seed,
        progress=progress,
        accumulate=own.accumulate,
    )


def _contexts(generator: Generator, fit: Tasks) -> ContextMap:
    """The same axes of the states; the encoder of the codes that they have now."""
    if generator.backbone is None:
        return generator.contexts
    encoder_QX, explained = encoder(fit.context_UX, generator.codes(fit))
    return replace(generator.contexts, encoder_QX=encoder_QX, fit=explained)


def _rows(generator: Generator, tasks: Tasks, priors: Priors, whitened: Whitened, cross: bool = False) -> Rows:
    """Tasks as the generator reads them, under the fit on all users, or with `cross` the one without their own fold."""
    fold_U = np.asarray([fold_of(key, FOLDS) if cross else priors.whole for key in tasks.keys], np.int64)
    return Rows(tasks, generator.codes(tasks), fold_U, priors, whitened, generator.least_variance)
