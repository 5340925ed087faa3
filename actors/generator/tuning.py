"""Fine-tuning: a generator goes on from where it stands, on tasks that it has not read, and says what that gained.

The language model goes on by next-token prediction (a given one by LoRA), the head by the likelihood that it was
trained on, both stopped by the stop users. The code keeps its axes; the encoder that stands in for the language model
is fitted anew. μ₀ and S₀ are those of all rows that there are now, for the generator before and after alike, so that
the losses of the two differ by what they make of a context alone.

Shapes: U tasks.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from actors.bandits import pooled
from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.clock import Clock
from actors.generator.contexts import ContextMap, ridge
from actors.generator.fitting import CHECK_EVERY, RATES, HeadTraining, mean_loss, spread
from actors.generator.generator import Generator, Report
from actors.generator.head import Head
from actors.generator.likelihood import Rows, Whitened
from actors.generator.pretrain import Training, pretrain
from actors.generator.priors import Priors, crossfit, fold_of
from actors.generator.tasks import Tasks, user_keys
from actors.generator.train import FOLDS, Reading
from cluster.config import Settings
from cluster.progress import steps


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
    logged = reading.logged
    fold_N = np.asarray([fold_of(key, FOLDS) for key in user_keys(logged.events)])
    arms = len(generator.mean_AD)
    priors = crossfit(logged.phi_ND, logged.arm_N, logged.reward_N, fold_N, arms, FOLDS, whole)
    before_U = losses(generator.head, _rows(generator, held_out, priors))
    training = _language(generator, reading, settings, progress)
    tuned = replace(generator, contexts=_contexts(generator, reading.fit))
    head, fit_rows = copy.deepcopy(generator.head), _rows(tuned, reading.fit, priors, cross=True)
    found = _climb(head, generator.report.head, fit_rows, _rows(tuned, reading.stop, priors), settings, progress)
    fit, stop = len(reading.fit), len(reading.stop)
    tuned = replace(
        tuned,
        head=head,
        mean_AD=head.mean_scale.item() * priors.mean_FAD[priors.whole],
        covariance_ADD=head.base_covariance(fit_rows),
        people=generator.people and reading.people,
        report=Report(training, found, fit, reading.left_out, stop, tuned.contexts.fit),
    )
    return Tuned(tuned, before_U, losses(head, _rows(tuned, held_out, priors)), held_out.sizes_U)


def _climb(head: Head, last: HeadTraining, fit: Rows, stop: Rows, settings: Settings, progress: bool) -> HeadTraining:
    """Gradient steps on `fit` from where the head stands; the weights of the least loss on `stop` are kept."""
    own = settings.generator
    clock, rng = Clock(settings.budgets.head_s, own.head_steps), np.random.default_rng(settings.seed)
    optimizer = torch.optim.Adam(_groups(head), betas=(0.9, 0.98))
    start = best = mean_loss(head, stop)
    best_step, kept, step, ended_by = 0, copy.deepcopy(head.state_dict()), 0, "time"
    with steps("tuning of the head", progress, clock.steps) as bar:
        for chosen_U in _endless(fit, rng):
            if clock.spent(step):
                break
            optimizer.zero_grad(set_to_none=True)
            (head.loss(fit.batch(chosen_U)).sum() / fit.tasks.sizes_U[chosen_U].sum()).backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.update()
            if step % CHECK_EVERY == 0 or clock.spent(step):
                score = mean_loss(head, stop)
                bar.set_postfix_str(f"held-out loss {score:.4f}, at the start {start:.4f}", False)
                if score < best - 1e-6:
                    best, best_step, kept = score, step, copy.deepcopy(head.state_dict())
                elif step - best_step >= own.patience * CHECK_EVERY:
                    ended_by = "held-out loss no longer falls"
                    break
    head.load_state_dict(kept)
    if clock.steps is not None and step >= clock.steps:
        ended_by = "steps"
    everyone = np.arange(len(stop.tasks))
    return replace(
        last,
        steps=step,
        best_step=best_step,
        pooled_loss=mean_loss(head, stop, plain=True),
        head_loss=best,
        spread=spread(head, stop, everyone),
        seconds=clock.elapsed_s(),
        ended_by=ended_by,
    )


def _groups(head: Head) -> list[dict[str, object]]:
    size = head.shift_ADR.detach().square().mean().sqrt().item()
    return [
        {"params": [head.mean_scale], "lr": RATES["mean"]},
        {"params": [head.log_noise], "lr": RATES["noise"]},
        {"params": [head.log_tempering, head.log_extra_AD], "lr": RATES["extra"]},
        {"params": [head.shift_ADR, head.spread_ADR], "lr": RATES["basis"] * size},
        {"params": [head.first, head.last, head.direct], "lr": RATES["network"]},
    ]


def _endless(rows: Rows, rng: np.random.Generator) -> Iterator[Ints]:
    while True:
        yield from batches(rows, np.arange(len(rows.tasks)), rng)


def losses(head: Head, rows: Rows) -> Floats:
    """L_u of each task, (U,)."""
    loss_U = np.empty(len(rows.tasks))
    for chosen_U in batches(rows, np.arange(len(loss_U))):
        loss_U[chosen_U] = head.loss(rows.batch(chosen_U)).detach().numpy()
    return loss_U


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
    code_UQ = generator.codes(fit)
    encoder_QX = ridge(fit.context_UX, code_UQ)
    left = ((code_UQ - fit.context_UX @ encoder_QX.T) ** 2).sum() / max((code_UQ**2).sum(), 1e-12)
    return replace(generator.contexts, encoder_QX=encoder_QX, fit=float(1 - left))


def _rows(generator: Generator, tasks: Tasks, priors: Priors, cross: bool = False) -> Rows:
    """Tasks as the generator reads them, under the fit on all users, or with `cross` the one without their own fold."""
    fold_U = np.asarray([fold_of(key, FOLDS) if cross else priors.whole for key in tasks.keys], np.int64)
    return Rows(tasks, generator.codes(tasks), fold_U, priors, Whitened.of(priors), generator.binomial)
