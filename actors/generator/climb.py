"""Training of a head that goes on from where it stands: gradient steps, stopped by held-out users.

Shapes: U tasks.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from actors.features.features import Ints
from actors.generator.batching import batches
from actors.generator.fitting import CHECK_EVERY, HeadTraining, optimizer
from actors.generator.head import Head
from actors.generator.likelihood import Rows
from actors.generator.losses import mean_loss, spread
from cluster.clock import Clock
from cluster.config import Settings
from cluster.progress import steps


class Climb:
    """Steps of `head` on `fit`; what is kept is never worse on `stop` than where it began."""

    def __init__(self, head: Head, fit: Rows, stop: Rows, settings: Settings) -> None:
        self.head, self.fit, self.stop, self.patience = head, fit, stop, settings.generator.patience
        self.clock = Clock(settings.budgets.head_s, settings.generator.head_steps)
        self.batches = self._endless(np.random.default_rng(settings.seed))
        self.optimizer = optimizer(head)

    def run(self, before: HeadTraining, progress: bool) -> HeadTraining:
        """What it did, in place of what the training `before` it did."""
        start = best = mean_loss(self.head, self.stop)
        kept, best_step, step, ended_by = copy.deepcopy(self.head.state_dict()), 0, 0, "time"
        with steps("tuning of the head", progress, self.clock.steps) as bar:
            while not self.clock.spent(step):
                self._step()
                step += 1
                bar.update()
                if step % CHECK_EVERY and not self.clock.spent(step):
                    continue
                score = mean_loss(self.head, self.stop)
                bar.set_postfix_str(f"held-out loss {score:.4f}, at the start {start:.4f}", False)
                if score < best - 1e-6:
                    best, best_step, kept = score, step, copy.deepcopy(self.head.state_dict())
                elif step - best_step >= self.patience * CHECK_EVERY:
                    ended_by = "held-out loss no longer falls"
                    break
        self.head.load_state_dict(kept)
        if self.clock.steps is not None and step >= self.clock.steps:
            ended_by = "steps"
        return replace(
            before,
            steps=step,
            best_step=best_step,
            pooled_loss=mean_loss(self.head, self.stop, plain=True),
            head_loss=best,
            spread=spread(self.head, self.stop, np.arange(len(self.stop.tasks))),
            seconds=self.clock.elapsed_s(),
            ended_by=ended_by,
        )

    def _step(self) -> None:
        chosen_U = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.head.loss(self.fit.batch(chosen_U)).sum() / int(self.fit.tasks.sizes_U[chosen_U].sum())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()

    def _endless(self, rng: np.random.Generator) -> Iterator[Ints]:
        while True:
            yield from batches(self.fit, np.arange(len(self.fit.tasks)), rng)
