"""Next-token training of a backbone on serialised histories, within a time budget.

The embedded default is trained whole; a given model by LoRA (Hu et al., 2021), merged into its weights
afterwards. The learning rate is constant after a warm-up, so that a step does not depend on how long the
training will last: equal steps give equal bits.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from tqdm import tqdm
from transformers.pytorch_utils import Conv1D

from actors.generator.backbone import Backbone, pad
from actors.generator.clock import Clock
from cluster.errors import ModelError

log = logging.getLogger(__name__)
RATE, LORA_RATE = 3e-3, 3e-4
WARM_UP = 20
CHECK_EVERY = 50
PATIENCE = 3
CHECKED = 64
WINDOW = 8
STEP_TOKENS = 2_048
IGNORED = -100


@dataclass(frozen=True)
class Training:
    """What a training did: steps reached, the step whose weights were kept, tokens read, losses (nats)."""

    steps: int
    best_step: int
    tokens: int
    start_loss: float
    best_loss: float
    seconds: float
    ended_by: str


def pretrain(
    backbone: Backbone,
    texts: Sequence[str],
    held_out: Sequence[str],
    clock: Clock,
    *,
    lora: bool,
    seed: int,
    progress: bool,
) -> Training:
    """Train `backbone` in place and keep the weights with the least loss on `held_out`.

    Args:
        texts: histories to learn from.
        held_out: histories that only decide which weights to keep and when to stop; the first 64 are read.
        clock: time budget.
        lora: adapters only, rank 8 on every linear layer, rather than all weights.

    Raises:
        ModelError: there is nothing to learn from, or one text does not fit the device's memory.
    """
    length = 2 * backbone.tokens
    rows = [row for row in backbone.encode(texts, length) if len(row) > 1]
    checks = [row for row in backbone.encode(held_out[:CHECKED], length) if len(row) > 1]
    if not rows or not checks:
        raise ModelError(
            f"{len(rows)} histories to train the language model on and {len(checks)} to check it with; both "
            "the fit and the stop part need users with context: import more events, or map more columns"
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _adapted(backbone.model) if lora else backbone.model
        loop = _Loop(model, backbone, rows, checks, LORA_RATE if lora else RATE, seed)
        training = loop.run(clock, progress)
    backbone.model = (model.merge_and_unload() if lora else model).eval()
    log.info("language model: %s", training)
    return training


class _Loop:
    def __init__(
        self,
        model: Any,
        backbone: Backbone,
        rows: list[list[int]],
        checks: list[list[int]],
        rate: float,
        seed: int,
    ) -> None:
        self.model, self.backbone, self.rows, self.checks, self.rate = model, backbone, rows, checks, rate
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
        self.batches = self._shuffled(np.random.default_rng(seed))

    def run(self, clock: Clock, progress: bool) -> Training:
        start = best = self._held_out_loss()
        step, best_step, tokens, kept, ended_by = 0, 0, 0, self._copy(), "time"
        with tqdm(desc="language model", unit="step", disable=not progress, file=sys.stderr) as bar:
            done = clock.spent(step)
            while not done:
                loss, count = self._step(step)
                step, tokens = step + 1, tokens + count
                bar.set_postfix_str(f"loss {loss:.3f}, {tokens / clock.elapsed_s():,.0f} tokens/s", False)
                bar.update()
                done = clock.spent(step)
                if done or step % CHECK_EVERY == 0:
                    score = self._held_out_loss()
                    if score < best:
                        best, best_step, kept = score, step, self._copy()
                    elif step - best_step >= PATIENCE * CHECK_EVERY:
                        ended_by = "held-out loss no longer falls"
                        break
        self._restore(kept)
        if clock.steps is not None and step >= clock.steps:
            ended_by = "steps"
        return Training(step, best_step, tokens, start, best, clock.elapsed_s(), ended_by)

    def _step(self, step: int) -> tuple[float, int]:
        """One update; returns its loss and the number of tokens read."""
        self.model.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (step + 1) / WARM_UP)
        while True:
            rows = next(self.batches)
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = self._loss(rows)
                loss.backward()
            except torch.OutOfMemoryError as error:
                self.backbone.halve(error)
                continue
            torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
            self.optimizer.step()
            return loss.item(), sum(map(len, rows))

    def _loss(self, rows: list[list[int]]) -> torch.Tensor:
        device = self.backbone.device
        tokens_NT, mask_NT = pad(rows, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_NTV = self.model(input_ids=tokens_NT, attention_mask=mask_NT, use_cache=False).logits
        target_NT = tokens_NT.masked_fill(mask_NT == 0, IGNORED)[:, 1:]
        return torch.nn.functional.cross_entropy(
            logits_NTV[:, :-1].float().flatten(0, 1), target_NT.flatten(), ignore_index=IGNORED
        )

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        self.model.eval()
        size, total = self.backbone.batch, 0.0
        parts = [self.checks[i : i + size] for i in range(0, len(self.checks), size)]
        for part in parts:
            total += float(self._loss(part)) * sum(len(row) - 1 for row in part)
        return total / sum(len(row) - 1 for row in self.checks)

    def _shuffled(self, rng: np.random.Generator) -> Iterator[list[list[int]]]:
        """Batches without end: shuffled, then sorted by length within windows, so that little is padding."""
        while True:
            order = rng.permutation(len(self.rows))
            for start in range(0, len(order), WINDOW * self.backbone.batch):
                window = sorted(order[start : start + WINDOW * self.backbone.batch], key=self._length)
                parts = self._parts(window)
                for k in rng.permutation(len(parts)):
                    yield [self.rows[i] for i in parts[k]]

    def _length(self, row: int) -> int:
        return len(self.rows[row])

    def _parts(self, window: list[int]) -> list[list[int]]:
        """Cut into batches of at most `STEP_TOKENS` tokens and `backbone.batch` rows."""
        parts: list[list[int]] = [[]]
        for i in window:
            count = len(parts[-1])
            if count and (count == self.backbone.batch or (count + 1) * self._length(i) > STEP_TOKENS):
                parts.append([])
            parts[-1].append(i)
        return parts

    def _copy(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.weights]

    def _restore(self, kept: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, kept, strict=True):
                weight.copy_(value)


def _adapted(model: Any) -> Any:
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    adapters = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=transposed
    )
    return get_peft_model(model, adapters)
