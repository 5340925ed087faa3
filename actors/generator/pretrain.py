"""Next-token training of a backbone on serialised histories, within a time budget.

The embedded default is trained whole; a given model by LoRA (Hu et al., 2021), merged into its weights
afterwards. The learning rate is constant after a warm-up, so that a step does not depend on how long the
training will last: equal steps give equal bits, also over a kill and a resumption from the last checkpoint.
An update adds up as many forward passes as memory asks for: its rows are the same however it is cut.
"""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from actors.features.features import Ints
from actors.generator.backbone import Backbone, pad
from actors.generator.checkpoint import Checkpoint
from actors.generator.gang import Alone, Workers
from actors.generator.updates import Updates, cut
from cluster.clock import Clock
from cluster.errors import ModelError
from cluster.progress import steps

log = logging.getLogger(__name__)
RATE, LORA_RATE = 3e-3, 3e-4
WARM_UP = 20
CHECK_EVERY = 50
PATIENCE = 3
CHECKED = 64
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

    def in_words(self) -> str:
        return (
            f"language model: {self.steps:,} steps at {self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s; held-out "
            f"loss {self.start_loss:.3f} -> {self.best_loss:.3f} at step {self.best_step:,}; ended by {self.ended_by}"
        )


@dataclass(frozen=True)
class Standing:
    """How far a training is: updates made, their tokens, the place in the data, and the best so far."""

    step: int
    tokens: int
    epoch: int
    done: int
    start_loss: float
    best_loss: float
    best_step: int
    seconds: float = 0.0
    ended_by: str = ""


def pretrain(
    backbone: Backbone,
    texts: Sequence[str],
    held_out: Sequence[str],
    clock: Clock,
    *,
    lora: bool,
    seed: int,
    progress: bool,
    accumulate: int = 1,
    checkpoint: Checkpoint | None = None,
    workers: Workers | None = None,
) -> Training:
    """Train `backbone` in place and keep the weights with the least loss on `held_out`.

    Args:
        texts: histories to learn from.
        held_out: histories that only decide which weights to keep and when to stop; the first 64 are read.
        clock: time budget; what a killed run spent before its checkpoint counts.
        lora: adapters only, rank 8 on every linear layer, rather than all weights.
        accumulate: batches of `backbone.batch` texts per update; more, and smaller, where memory is short.
        checkpoint: where to go on from, and to save to; None keeps nothing.
        workers: who shares each update; None for this process alone.

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
    with torch.random.fork_rng(devices=[] if backbone.device.type == "cpu" else [backbone.device]):
        torch.manual_seed(seed)
        model = _adapted(backbone.model) if lora else backbone.model
        updates = Updates(_lengths(rows), backbone.batch, accumulate, seed)
        loop = _Loop(model, backbone, rows, checks, LORA_RATE if lora else RATE, updates, workers or Alone())
        training = loop.run(clock, checkpoint, progress)
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
        updates: Updates,
        workers: Workers,
    ) -> None:
        self.model, self.backbone, self.rows, self.checks, self.rate = model, backbone, rows, checks, rate
        self.updates, self.workers = updates, workers
        self.weights = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=rate, weight_decay=0.01, betas=(0.9, 0.98))
        self.kept = self._copy()

    def run(self, clock: Clock, checkpoint: Checkpoint | None, progress: bool) -> Training:
        key = self._key() if checkpoint else ""
        at = self._resumed(checkpoint, key) or self._fresh()
        clock = replace(clock, started=clock.started - at.seconds)
        ahead = self.updates.after(at.epoch, at.done)
        with steps("language model", progress, clock.steps, at.step) as bar:
            ended = bool(at.ended_by) or self.workers.first(clock.spent(at.step))
            while not ended:
                epoch, done, chosen = next(ahead)
                loss = self._step(at.step, chosen)
                tokens = at.tokens + sum(len(self.rows[i]) for i in chosen)
                at = replace(at, step=at.step + 1, tokens=tokens, epoch=epoch, done=done)
                rate = at.tokens / clock.elapsed_s()
                bar.set_postfix_str(f"loss {loss:.3f}, best {at.best_loss:.3f}, {rate:,.0f} tokens/s", False)
                bar.update()
                ended = self.workers.first(clock.spent(at.step))
                if ended or at.step % CHECK_EVERY == 0:
                    at = self._checked(at)
                    ended = ended or bool(at.ended_by)
                if checkpoint and self.workers.rank == 0 and (ended or checkpoint.due):
                    at = replace(at, seconds=clock.elapsed_s())
                    checkpoint.save(key, self._tensors(), asdict(at))
        self._restore(self.kept)
        by = "steps" if clock.steps is not None and at.step >= clock.steps else at.ended_by or "time"
        return Training(at.step, at.best_step, at.tokens, at.start_loss, at.best_loss, clock.elapsed_s(), by)

    def _fresh(self) -> Standing:
        start = self._held_out_loss()
        return Standing(0, 0, 0, 0, start, start, 0)

    def _checked(self, at: Standing) -> Standing:
        """Keep the weights where they are the best on the held-out rows; end where they no longer get better."""
        score = self._held_out_loss()
        if score < at.best_loss:
            self.kept = self._copy()
            return replace(at, best_loss=score, best_step=at.step)
        if at.step - at.best_step >= PATIENCE * CHECK_EVERY:
            return replace(at, ended_by="held-out loss no longer falls")
        return at

    def _step(self, step: int, chosen: list[int]) -> float:
        """One update; returns its loss (nats a token)."""
        self.model.train()
        # Dropout, where a model has it: a stream per update and worker, so that a resumed run draws the same.
        torch.manual_seed(hash((self.updates.seed, step, self.workers.rank)) % 2**63)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * min(1.0, (step + 1) / WARM_UP)
        targets = sum(len(self.rows[i]) - 1 for i in chosen)
        mine = chosen[self.workers.rank :: self.workers.size]
        while True:
            self.optimizer.zero_grad(set_to_none=True)
            try:
                loss = sum((self._backward(part, targets) for part in self._passes(mine)), 0.0)
                break
            except torch.OutOfMemoryError as error:
                self.backbone.halve(error, len(mine))
        loss = self._shared(loss)
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        return loss

    def _passes(self, mine: list[int]) -> list[list[int]]:
        return cut(mine, self.updates.lengths_N, self.backbone.batch) if mine else []

    def _backward(self, part: list[int], targets: int) -> float:
        loss = self._loss([self.rows[i] for i in part]) / targets
        loss.backward()
        return loss.item()

    def _shared(self, loss: float) -> float:
        """Gradients and loss added up over the workers."""
        if self.workers.size == 1:
            return loss
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.weights]
        flat = torch.cat([g.flatten().float() for g in grads] + [torch.tensor([loss], device=grads[0].device)])
        self.workers.add(flat)
        start = 0
        for weight, grad in zip(self.weights, grads, strict=True):
            weight.grad = flat[start : start + grad.numel()].view_as(grad).to(grad.dtype)
            start += grad.numel()
        return float(flat[-1])

    def _loss(self, rows: list[list[int]]) -> torch.Tensor:
        """Nats of all tokens but the first of each row, summed."""
        device = self.backbone.device
        tokens_NT, mask_NT = pad(rows, device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits_NTV = self.model(input_ids=tokens_NT, attention_mask=mask_NT, use_cache=False).logits
        target_NT = tokens_NT.masked_fill(mask_NT == 0, IGNORED)[:, 1:]
        return torch.nn.functional.cross_entropy(
            logits_NTV[:, :-1].float().flatten(0, 1), target_NT.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Nats a token; each worker reads its share."""
        self.model.eval()
        mine = list(range(len(self.checks)))[self.workers.rank :: self.workers.size]
        lengths_N = _lengths(self.checks)
        total = torch.zeros((), dtype=torch.float64, device=self.backbone.device)
        while mine:
            part = cut(mine, lengths_N, self.backbone.batch)[0]
            try:
                total += self._loss([self.checks[i] for i in part])
            except torch.OutOfMemoryError as error:
                self.backbone.halve(error, len(part))
                continue
            mine = [i for i in mine if i not in part]
        self.workers.add(total)
        return float(total) / sum(len(row) - 1 for row in self.checks)

    def _copy(self) -> list[torch.Tensor]:
        return [p.detach().clone() for p in self.weights]

    def _restore(self, kept: list[torch.Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, kept, strict=True):
                weight.copy_(value)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """Weights as they are and as they were best, and Adam's moments."""
        state = self.optimizer.state_dict()["state"]
        moments = {f"moment/{i}/{name}": value for i, values in state.items() for name, value in values.items()}
        now = {f"weight/{i}": weight for i, weight in enumerate(self.weights)}
        return now | moments | {f"kept/{i}": weight for i, weight in enumerate(self.kept)}

    def _resumed(self, checkpoint: Checkpoint | None, key: str) -> Standing | None:
        """Take up what the checkpoint holds."""
        found = checkpoint.load(key) if checkpoint else None
        if found is None:
            return None
        tensors, facts = found
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("moment/"):
                _, i, moment = name.split("/")
                state.setdefault(int(i), {})[moment] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self._restore([tensors[f"weight/{i}"] for i in range(len(self.weights))])
        self.kept = [tensors[f"kept/{i}"].to(w.device) for i, w in enumerate(self.weights)]
        at = Standing(**facts)
        log.warning("language model: going on from step %d of a run that was ended", at.step)
        return at

    def _key(self) -> str:
        """What the bits depend on: rows, checks, seed, batches, starting weights and the library."""
        digest = hashlib.blake2b(digest_size=16)
        about = (self.updates.batch, self.updates.batches, self.updates.seed, self.rate, self.workers.size)
        digest.update(repr((torch.__version__, about)).encode())
        for rows in (self.rows, self.checks):
            digest.update(_lengths(rows).tobytes() + np.concatenate(rows).astype(np.int64).tobytes())
        for name, weight in self.model.named_parameters():
            some = weight.detach().flatten()[:256].float().cpu().numpy()
            digest.update(name.encode() + repr(tuple(weight.shape)).encode() + some.tobytes())
        return digest.hexdigest()


def _lengths(rows: Sequence[list[int]]) -> Ints:
    return np.asarray([len(row) for row in rows], np.int64)


def _adapted(model: Any) -> Any:
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    adapters = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", fan_in_fan_out=transposed
    )
    return get_peft_model(model, adapters)
