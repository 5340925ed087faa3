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
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias

import numpy as np
import torch
from sklearn.cluster import KMeans
from tqdm import tqdm

from actors.features.features import Floats, Ints
from actors.generator.batching import batches
from actors.generator.differences import Differences
from actors.generator.head import Head
from actors.generator.likelihood import Rows
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
) -> HeadTraining:
    """Train `head` in place on tasks `fit` until `stop` says so or `clock` runs out.

    Args:
        patience: checks, one every 10 steps, without gain on `stop` before it ends.
        extent: less than the whole is for comparison.
    """
    with steps("generator head", progress, clock.steps) as bar:
        loop = _Loop(head, fit, stop, clock, bar, seed)
        training = loop.run(patience, extent)
    log.info("generator head: %s", training)
    return training


def mean_loss(head: Head, rows: Rows, chosen_U: Ints | None = None, plain: bool = False) -> float:
    """L per row over all tasks, or the chosen ones."""
    sizes_U = rows.tasks.sizes_U if chosen_U is None else rows.tasks.sizes_U[chosen_U]
    return float(losses(head, rows, chosen_U, plain).sum()) / int(sizes_U.sum())


def losses(head: Head, rows: Rows, chosen_U: Ints | None = None, plain: bool = False) -> Floats:
    """L of each task, or of the chosen ones."""
    chosen_U = np.arange(len(rows.tasks)) if chosen_U is None else chosen_U
    place, loss_U = np.argsort(chosen_U), np.empty(len(chosen_U))
    with torch.no_grad():
        for b in batches(rows, chosen_U):
            loss_U[place[np.searchsorted(chosen_U, b, sorter=place)]] = head.loss(rows.batch(b), plain).numpy()
    return loss_U


def responsibilities(head: Head, rows: Rows) -> Floats:
    """Posterior share of each code in each task, (U, S)."""
    shares_US = np.empty((len(rows.tasks), head.codes))
    with torch.no_grad():
        for b in batches(rows, np.arange(len(rows.tasks))):
            shares_US[b] = head.log_normals(rows.batch(b)).softmax(-1).numpy()
    return shares_US


def spread(head: Head, rows: Rows, chosen_U: Ints) -> float:
    """Root mean square over rows of the sd over codes of Φ_u U h_s."""
    total, count = 0.0, 0
    with torch.no_grad():
        for b in batches(rows, chosen_U):
            batch = rows.batch(b)
            h_USR, _ = head.outputs(batch.code_UQ)
            shift_USN = torch.einsum("usr,unr->usn", h_USR, head.project(head.shift_ADR, batch))
            total += float(shift_USN.var(1, correction=0).sum())
            count += int(batch.mask_UN.sum())
    return float(np.sqrt(total / max(count, 1)))


class _Loop:
    def __init__(self, head: Head, fit: Rows, stop: Rows, clock: Clock, bar: "tqdm[None]", seed: int):
        self.head, self.fit, self.stop, self.clock, self.bar = head, fit, stop, clock, bar
        self.rng = np.random.default_rng(seed)
        self.seed = seed
        self.checked_U = _some(len(stop.tasks), CHECKED, self.rng)
        self.queue: Iterator[Ints] = iter(())
        parts = list(batches(fit, np.arange(len(fit.tasks))))
        self.rows_per_batch = len(fit.arm_N) / len(parts)

    def run(self, patience: int, extent: Extent) -> HeadTraining:
        step = self._plain(patience)
        self.head.silence()
        pooled_U, kept, told = self._losses(), _copy(self.head), 0.0
        if extent == "pooled":
            return self._training(step, step, pooled_U, pooled_U, told, "pooled alone")
        apart = Differences.of(self.head, self.fit, self.rng)
        before_U, used = pooled_U, 0
        if extent == "whole" and (telling := tell(self.head, self.fit, apart.basis_ADK)):
            used = put(self.head, self.fit, telling, apart.basis_ADK, self.head.rank // 2)
            told_U = self._losses()
            if told_U.sum() < pooled_U.sum():
                before_U, kept, told = told_U, _copy(self.head), telling.evidence
            else:
                self.head.load_state_dict(kept)
                used = 0
        start(self.head, apart, used, self.seed)
        if extent == "alike":
            self._without_context()
        best_step, best_U, best, misses, ended_by = step, before_U, kept, 0, "time"
        climbing = optimizer(self.head)
        first, done = step, self.clock.spent(step)
        while not done:
            self._step(climbing, plain=False)
            step += 1
            done = self.clock.spent(step)
            if done or step % CHECK_EVERY == 0:
                score_U = self._losses()
                told_of = f"held-out loss {self._per_row(score_U):.4f}, pooled {self._per_row(pooled_U):.4f}"
                self.bar.set_postfix_str(told_of, False)
                if score_U.sum() < best_U.sum() - 1e-6:
                    best_U, best_step, best, misses = score_U, step, _copy(self.head), 0
                else:
                    misses += 1
                if misses >= patience:
                    ended_by = "held-out loss no longer falls"
                    break
        if not _helps(before_U - best_U):
            best_step, best_U, best = first, before_U, kept
        self.head.load_state_dict(best)
        if self.clock.steps is not None and step >= self.clock.steps:
            ended_by = "steps"
        return self._training(step, best_step, pooled_U, best_U, told, ended_by)

    def _training(
        self, step: int, best_step: int, pooled_U: Floats, best_U: Floats, told: float, ended_by: str
    ) -> HeadTraining:
        apart, seconds = spread(self.head, self.stop, self.checked_U), self.clock.elapsed_s()
        pooled, best = self._per_row(pooled_U), self._per_row(best_U)
        return HeadTraining(step, best_step, pooled, best, apart, told, seconds, ended_by)

    def _losses(self) -> Floats:
        """Of the held-out tasks that are looked at."""
        return losses(self.head, self.stop, self.checked_U)

    def _per_row(self, loss_U: Floats) -> float:
        return float(loss_U.sum()) / int(self.stop.tasks.sizes_U[self.checked_U].sum())

    def _plain(self, patience: int) -> int:
        """Fit the pooled prior's own parameters: a coarse grid, then gradient steps."""
        head = self.head
        some_U = _some(len(self.fit.tasks), CHECKED, self.rng)
        noise = head.log_noise.item()
        scores = {}
        for tempering, extra in product(np.log([1.0, 10.0, 100.0, 1000.0]), (-20.0, -16.0, -12.0, -8.0, -6.0, -4.0)):
            _set(head, tempering, extra, noise)
            scores[(tempering, extra)] = mean_loss(head, self.fit, some_U, plain=True)
        _set(head, *min(scores, key=lambda k: scores[k]), noise)
        plain = torch.optim.Adam(
            [
                {"params": [head.mean_scale], "lr": PLAIN_RATES["mean"]},
                {"params": [head.log_noise], "lr": PLAIN_RATES["noise"]},
                {"params": [head.log_tempering, head.log_extra_AD], "lr": PLAIN_RATES["extra"]},
            ]
        )
        best, kept, step, misses = np.inf, _copy(head), 0, 0
        most = PLAIN_STEPS if self.clock.steps is None else min(PLAIN_STEPS, self.clock.steps // 2)
        while step < most and misses < patience and not self.clock.spent(step):
            self._step(plain, plain=True)
            step += 1
            if step % CHECK_EVERY == 0:
                score = mean_loss(head, self.stop, self.checked_U, plain=True)
                misses += 1
                if score < best:
                    best, kept, misses = score, _copy(head), 0
        head.load_state_dict(kept)
        return step

    def _step(self, steps: torch.optim.Optimizer, plain: bool) -> None:
        chosen_U = next(self.queue, None)
        if chosen_U is None:
            self.queue = batches(self.fit, np.arange(len(self.fit.tasks)), self.rng)
            chosen_U = next(self.queue)
        batch = self.fit.batch(chosen_U)
        steps.zero_grad(set_to_none=True)
        loss = self.head.loss(batch, plain).sum() / self.rows_per_batch
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        steps.step()
        self.bar.update()

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
