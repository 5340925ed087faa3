"""Training of the head: marginal likelihood, with early stopping on held-out users.

1. What a pooled prior has: both tempering scalars, v, σ².
2. What contexts tell, in closed form (`telling`).
3. Everything by gradients on the mixture: V and the rest of U start at the main directions in which users' own
   posteriors differ, and codes a little way toward their clusters, since equal codes are a saddle of the mixture.

What does not help held-out users is undone; the third stage must help them by more than a standard error, since of
many looks at the same few users the best is lucky.

Shapes: U tasks, A arms, D features, R rank, S codes.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal, TypeAlias

import numpy as np
import torch
from sklearn.cluster import KMeans
from tqdm import tqdm

from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.checkpoint import Checkpoint
from actors.generator.differences import Differences
from actors.generator.head import Head
from actors.generator.likelihood import Rows
from actors.generator.losses import losses, mean_loss, spread
from actors.generator.standing import Resumed, Standing, key_of
from actors.generator.telling import put, tell
from cluster.clock import Clock
from cluster.progress import steps

log = logging.getLogger(__name__)
PLAIN_STEPS = 240
"""At most, and half of the steps that a training has in all."""
CHECK_EVERY = 10
CHECKED = 1_000
START = 0.1
PLAIN_RATES = {"mean": 0.01, "noise": 0.03, "extra": 0.1}
RATES = {"mean": 0.003, "noise": 0.01, "extra": 0.01, "basis": 0.02, "network": 0.005}
"""Adam's step sizes; those of U and V (`basis`) are relative to their size at the start."""

Extent: TypeAlias = Literal["pooled", "alike", "whole"]
"""How far a training goes: the pooled prior's own parameters; V too, h = 0, all contexts alike; everything."""


@dataclass(frozen=True)
class HeadTraining:
    """Steps reached and kept, and held-out loss per row (nats): of the pooled prior and of the head.

    spread: root mean square over held-out rows of the sd over codes of Φ_u U h_s, in units of reward.
    told: nats by which contexts raise the evidence of the fit users, in closed form; 0 where that is not kept.
    """

    steps: int
    best_step: int
    pooled_loss: float
    head_loss: float
    spread: float
    told: float
    seconds: float
    ended_by: str

    @property
    def gain(self) -> float:
        return self.pooled_loss - self.head_loss

    def in_words(self) -> str:
        return (
            f"head: {self.steps:,} steps; held-out loss {self.head_loss:.4f} a row at step {self.best_step:,}, "
            f"{self.pooled_loss:.4f} with the pooled prior; ended by {self.ended_by}"
        )


def fit_head(
    head: Head,
    fit: Rows,
    stop: Rows,
    clock: Clock,
    *,
    patience: int,
    seed: int,
    progress: bool,
    extent: Extent = "whole",
    checkpoint: Checkpoint | None = None,
) -> HeadTraining:
    """Train `head` in place on tasks `fit` until `stop` says so or `clock` runs out.

    Args:
        patience: checks, one every 10 steps, without gain on `stop` before it ends.
        extent: less than the whole is for comparison.
        checkpoint: where to go on from, and to save to; None keeps nothing.
    """
    with steps("generator head", progress, clock.steps) as bar:
        training = _Loop(head, fit, stop, clock, bar, seed, checkpoint, patience).run(extent)
    log.info("generator head: %s", training)
    return training


class _Loop:
    def __init__(
        self,
        head: Head,
        fit: Rows,
        stop: Rows,
        clock: Clock,
        bar: "tqdm[None]",
        seed: int,
        checkpoint: Checkpoint | None,
        patience: int,
    ) -> None:
        self.head, self.fit, self.stop, self.bar = head, fit, stop, bar
        self.seed, self.checkpoint, self.patience = seed, checkpoint, patience
        self.checked_U = _some(len(stop.tasks), CHECKED, np.random.default_rng(seed))
        self.rows_per_batch = len(fit.arm_N) / len(list(batches(fit, np.arange(len(fit.tasks)))))
        self.key = key_of(head, fit, stop, seed, patience, clock.steps) if checkpoint else ""
        self.resumed = Resumed.of(checkpoint, self.key) if checkpoint else None
        self.at = self.resumed.standing if self.resumed else Standing()
        self.clock = replace(clock, started=clock.started - self.at.seconds)
        self.queue: Iterator[Ints] = islice(self._epoch(), self.at.done, None)
        bar.update(self.at.step)

    def run(self, extent: Extent) -> HeadTraining:
        at = self.at
        if self.resumed:
            self.head.load_state_dict(self.resumed.head)
        if at.phase == "pooled":
            self._pooled()
            self._turn(extent)
        if extent == "pooled":
            at.ended_by = "pooled alone"
        else:
            self._whole()
        self.head.load_state_dict(at.kept)
        return self._training()

    def _pooled(self) -> None:
        """Fit the pooled prior's own parameters: a coarse grid, then gradient steps."""
        if not self.resumed:
            self._first()
        head, at = self.head, self.at
        climbing = self._continued(
            torch.optim.Adam(
                [
                    {"params": [head.mean_scale], "lr": PLAIN_RATES["mean"]},
                    {"params": [head.log_noise], "lr": PLAIN_RATES["noise"]},
                    {"params": [head.log_tempering, head.log_extra_AD], "lr": PLAIN_RATES["extra"]},
                ]
            )
        )
        most = PLAIN_STEPS if self.clock.steps is None else min(PLAIN_STEPS, self.clock.steps // 2)
        while at.step < most and at.misses < self.patience and not self.clock.spent(at.step):
            self._step(climbing, plain=True)
            if at.step % CHECK_EVERY == 0:
                self._checked(self._losses(plain=True))
            self._save(climbing)
        head.load_state_dict(at.kept)

    def _first(self) -> None:
        """The best of a coarse grid."""
        head, noise, scores = self.head, self.head.log_noise.item(), {}
        some_U = _some(len(self.fit.tasks), CHECKED, self._rng(1))
        for tempering, extra in product(np.log([1.0, 10.0, 100.0, 1000.0]), (-20.0, -16.0, -12.0, -8.0, -6.0, -4.0)):
            _set(head, tempering, extra, noise)
            scores[(tempering, extra)] = mean_loss(head, self.fit, some_U, plain=True)
        _set(head, *min(scores, key=lambda k: scores[k]), noise)
        self.at.kept = _copy(head)

    def _turn(self, extent: Extent) -> None:
        """From the pooled prior to everything: what contexts tell, and where gradients start."""
        head, at = self.head, self.at
        head.silence()
        at.phase, at.first, at.best_step, at.misses = "whole", at.step, at.step, 0
        at.kept = at.before = _copy(head)
        at.pooled_U = at.before_U = at.best_U = self._losses()
        if extent == "pooled":
            return
        apart, used = Differences.of(head, self.fit, self._rng(2)), 0
        if extent == "whole" and (telling := tell(head, self.fit, apart.basis_ADK)):
            used = put(head, self.fit, telling, apart.basis_ADK, head.rank // 2)
            told_U = self._losses()
            if told_U.sum() < at.pooled_U.sum():
                at.before_U = at.best_U = told_U
                at.kept = at.before = _copy(head)
                at.told = telling.evidence
            else:
                head.load_state_dict(at.kept)
                used = 0
        start(head, apart, used, self.seed)
        if extent == "alike":
            self._without_context()

    def _whole(self) -> None:
        at = self.at
        if at.ended_by:
            return
        climbing = self._continued(optimizer(self.head))
        done = self.clock.spent(at.step)
        while not (done or at.ended_by):
            self._step(climbing, plain=False)
            done = self.clock.spent(at.step)
            if done or at.step % CHECK_EVERY == 0:
                score_U = self._losses()
                told_of = f"held-out loss {self._per_row(score_U):.4f}, pooled {self._per_row(at.pooled_U):.4f}"
                self.bar.set_postfix_str(told_of, False)
                self._checked(score_U, 1e-6)
                if at.misses >= self.patience:
                    at.ended_by = "held-out loss no longer falls"
            self._save(climbing)
        if not _helps(at.before_U - at.best_U):
            at.best_step, at.best_U, at.kept = at.first, at.before_U, at.before
        by_steps = self.clock.steps is not None and at.step >= self.clock.steps
        at.ended_by = "steps" if by_steps else at.ended_by or "time"
        self._save(climbing)

    def _checked(self, score_U: Floats, least: float = 0.0) -> None:
        """Keep the head where it is the best on held-out tasks."""
        at = self.at
        at.misses += 1
        if score_U.sum() < at.best_U.sum() - least:
            at.best_U, at.best_step, at.kept, at.misses = score_U, at.step, _copy(self.head), 0

    def _training(self) -> HeadTraining:
        at, apart = self.at, spread(self.head, self.stop, self.checked_U)
        pooled, best, seconds = self._per_row(at.pooled_U), self._per_row(at.best_U), self.clock.elapsed_s()
        return HeadTraining(at.step, at.best_step, pooled, best, apart, at.told, seconds, at.ended_by)

    def _losses(self, plain: bool = False) -> Floats:
        """Of the held-out tasks that are looked at."""
        return losses(self.head, self.stop, self.checked_U, plain)

    def _per_row(self, loss_U: Floats) -> float:
        return float(loss_U.sum()) / int(self.stop.tasks.sizes_U[self.checked_U].sum())

    def _step(self, steps: torch.optim.Optimizer, plain: bool) -> None:
        batch = self.fit.batch(self._batch())
        steps.zero_grad(set_to_none=True)
        loss = self.head.loss(batch, plain).sum() / self.rows_per_batch
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        steps.step()
        self.at.step += 1
        self.bar.update()

    def _batch(self) -> Ints:
        chosen_U = next(self.queue, None)
        if chosen_U is None:
            self.at.epoch, self.at.done = self.at.epoch + 1, 0
            self.queue = self._epoch()
            chosen_U = next(self.queue)
        self.at.done += 1
        return chosen_U

    def _epoch(self) -> Iterator[Ints]:
        return batches(self.fit, np.arange(len(self.fit.tasks)), self._rng(3, self.at.epoch))

    def _rng(self, *stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *stream])

    def _continued(self, steps: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimiser of the phase that a killed run was in, as it was."""
        if self.resumed:
            self.resumed.restore(steps)
            self.resumed = None
        return steps

    def _save(self, steps: torch.optim.Optimizer) -> None:
        if self.checkpoint and (self.at.ended_by or self.checkpoint.due):
            self.at.seconds = self.clock.elapsed_s()
            self.at.save(self.checkpoint, self.key, self.head, steps)

    def _without_context(self) -> None:
        """h = 0 and g the same for all."""
        self.head.direct.data.zero_()
        for parameter in (self.head.first, self.head.last, self.head.direct, self.head.shift_ADR):
            parameter.requires_grad_(False)


def optimizer(head: Head) -> torch.optim.Optimizer:
    """Adam; the step sizes of U and V are relative to their size now."""
    size = head.shift_ADR.detach().square().mean().sqrt().item()
    groups: list[dict[str, object]] = [
        {"params": [head.mean_scale], "lr": RATES["mean"]},
        {"params": [head.log_noise], "lr": RATES["noise"]},
        {"params": [head.log_tempering, head.log_extra_AD], "lr": RATES["extra"]},
        {"params": [head.shift_ADR, head.spread_ADR], "lr": RATES["basis"] * size},
        {"params": [head.first, head.last, head.direct], "lr": RATES["network"]},
    ]
    return torch.optim.Adam(groups, betas=(0.9, 0.98))


def start(head: Head, apart: Differences, used: int, seed: int) -> None:
    """Point V along the main differences, and U beside its first `used` directions, codes a little toward clusters."""
    rank = min(head.rank, apart.basis_ADK.shape[-1])
    if rank == 0:
        return
    end = min(head.rank, used + rank)
    place_UR = apart.place_UK[:, : end - used]
    clusters = min(head.codes, len(np.unique(place_UR, axis=0)))
    centres = KMeans(clusters, n_init=4, random_state=seed).fit(place_UR).cluster_centers_
    with torch.no_grad():
        basis = torch.from_numpy(apart.basis_ADK)
        head.shift_ADR[..., used:end] = basis[..., : end - used]
        head.spread_ADR[..., :rank] = basis[..., :rank]
        head.direct[used:end, -head.codes :][:, :clusters] = START * torch.from_numpy(centres.T.copy())


def _helps(gain_U: Floats) -> bool:
    """Whether a gain over users is above its standard error."""
    return bool(gain_U.sum() > gain_U.std() * np.sqrt(len(gain_U)))


def _set(head: Head, tempering: float, extra: float, noise: float) -> None:
    with torch.no_grad():
        head.log_tempering.fill_(tempering)
        head.log_extra_AD.fill_(extra)
        head.log_noise.fill_(noise)


def _some(count: int, most: int, rng: np.random.Generator) -> Ints:
    return np.sort(rng.permutation(count)[:most]).astype(np.int64)


def _copy(head: Head) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in head.state_dict().items()}
