"""Contrastive training of the embedded CLIP on a catalogue, within a time budget.

Two views of each item are drawn near to each other and away from those of other items (Radford et al., 2021): its text
and its picture; where there is no picture, its text twice with other words left out; where there is no text, its
picture twice, cropped otherwise. All examples of one product that meet in a batch are positives of each other (Yang et
al., 2022, UniCL). The weights that are kept are an average over the last steps. The learning rate is constant after a
warm-up, so that a step does not depend on how long the training will last: equal steps give equal bits.

Shapes: N examples, B of a batch, E size of the embedding.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from actors.content.augment import plain, thinned, varied
from actors.content.encoder import Encoder
from actors.content.examples import Examples
from cluster.clock import Clock
from cluster.errors import ModelError
from cluster.progress import steps

log = logging.getLogger(__name__)
Rows: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]
RATE, DECAY, WARM_UP = 1e-3, 0.1, 50
BATCH = 64
AVERAGED = 0.998
"""Weight of the past in the average of the weights; less in the first steps."""
SHARPEST = 50.0
"""Greatest factor on cosines in the loss."""
CHECK_EVERY, PATIENCE = 50, 8
CHECKED, LEAST_CHECKED = 256, 16
FEW = 64
"""Examples below which none is held out, and the check is on what was trained on."""
THINNED, THINNED_ALONE = 0.1, 0.3
"""Share of words left out beside a picture, and where a text has only itself to be compared with."""


@dataclass(frozen=True)
class Training:
    """Steps reached, the step whose weights were kept; losses (nats) and share of right matches on the held-out."""

    examples: int
    steps: int
    best_step: int
    start_loss: float
    best_loss: float
    matched: float
    seconds: float
    ended_by: str


def train(encoder: Encoder, examples: Examples, clock: Clock, *, seed: int, progress: bool) -> Training:
    """Train the embedded CLIP in place and keep the weights with the least loss on held-out examples.

    Raises:
        ModelError: there are fewer than two products to tell apart.
    """
    products = len(np.unique(examples.product_N))
    if products < 2:
        raise ModelError(
            f"{products} items with text or a picture to train the embedded CLIP on, and two are needed: give items a "
            "title, a description or an image, or set content.model to a trained encoder"
        )
    training = _Loop(encoder, examples, seed).run(clock, progress)
    encoder.refresh()
    log.info("content encoder: %s", training)
    return training


@dataclass(frozen=True)
class Draws:
    """What the variations are drawn by: words of texts, crops and colours of pictures."""

    words: np.random.Generator
    pixels: torch.Generator

    @classmethod
    def of(cls, seed: int) -> "Draws":
        return cls(np.random.default_rng(seed), torch.Generator().manual_seed(seed))


class _Loop:
    def __init__(self, encoder: Encoder, examples: Examples, seed: int) -> None:
        self.examples, self.model = examples, encoder.model
        self.tokenizer = encoder.towers["text"].processor
        self.pixels = self.model.config.vision_config.image_size
        images = encoder.towers["image"].processor
        self.mean_311, self.spread_311 = (torch.tensor(v).view(3, 1, 1) for v in (images.image_mean, images.image_std))
        self.seed = seed
        order = np.random.default_rng(seed)
        rows = order.permutation(len(examples))
        held = min(CHECKED, max(len(rows) // 10, LEAST_CHECKED))
        self.checks, self.rows = (rows, rows) if len(rows) < FEW else (rows[:held], rows[held:])
        self.batches = self._shuffled(order)
        self.draws = Draws.of(seed)
        self.weights = list(self.model.parameters())
        self.average = [w.detach().clone() for w in self.weights]
        matrices, others = [w for w in self.weights if w.ndim > 1], [w for w in self.weights if w.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": DECAY}]
        groups.append({"params": others, "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.98))

    def run(self, clock: Clock, progress: bool) -> Training:
        (start, matched), step, best_step, ended_by = self._check(), 0, 0, "time"
        best, kept = start, self._copy(self.average)
        with steps("content encoder", progress) as bar:
            done = clock.spent(step)
            while not done:
                loss = self._step(step)
                step += 1
                bar.set_postfix_str(f"loss {loss:.3f}, held-out {best:.3f}, {matched:.0%} matched", False)
                bar.update()
                done = clock.spent(step)
                if done or step % CHECK_EVERY == 0:
                    score, share = self._check()
                    if score < best:
                        best, best_step, matched, kept = score, step, share, self._copy(self.average)
                    elif step - best_step >= PATIENCE * CHECK_EVERY:
                        ended_by = "held-out loss no longer falls"
                        break
        self._put(kept)
        if clock.steps is not None and step >= clock.steps:
            ended_by = "steps"
        return Training(len(self.rows), step, best_step, start, best, matched, clock.elapsed_s(), ended_by)

    def _step(self, step: int) -> float:
        """One update and its part in the average; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        rows = next(self.batches)
        first_BE, second_BE = self._views(rows, self.draws, vary=True)
        loss, _ = self._loss(first_BE, second_BE, self.examples.product_N[rows])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        past = min(AVERAGED, (1 + step) / (10 + step))
        with torch.no_grad():
            for average, weight in zip(self.average, self.weights, strict=True):
                average.lerp_(weight, 1 - past)
        return loss.item()

    @torch.no_grad()
    def _check(self) -> tuple[float, float]:
        """Loss and share of right matches of the averaged weights on the held-out examples."""
        own = self._copy(self.weights)
        self._put(self.average)
        self.model.eval()
        draws, count = Draws.of(self.seed), -(-len(self.checks) // BATCH)
        parts = [self._views(part, draws, vary=False) for part in np.array_split(self.checks, count)]
        first_NE, second_NE = (torch.cat(side) for side in zip(*parts, strict=True))
        loss, matched = self._loss(first_NE, second_NE, self.examples.product_N[self.checks])
        self._put(own)
        return float(loss), float(matched)

    def _loss(
        self, first_BE: torch.Tensor, second_BE: torch.Tensor, product_B: Rows
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The symmetric cross-entropy, and the share of second views whose nearest first view is of their product."""
        scale = self.model.logit_scale.exp().clamp(max=SHARPEST)
        logits_BB = scale * normalize(second_BE, dim=1) @ normalize(first_BE, dim=1).T
        same_BB = torch.from_numpy(product_B[:, None] == product_B[None]).to(logits_BB)
        target_BB = same_BB / same_BB.sum(1, keepdim=True)
        both = logits_BB.log_softmax(1) + logits_BB.T.log_softmax(1)
        matched = same_BB.gather(1, logits_BB.argmax(1, keepdim=True)).mean()
        return -(target_BB * both).sum(1).mean() / 2, matched

    def _views(self, rows: Rows, draws: "Draws", vary: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of the two views of each row, (B, E): the first a text where there is one, the second a picture."""
        text_B, picture_B = self.examples.text_N[rows], self.examples.picture_N[rows]
        first_BE = self._side(rows, text_B, text_B & picture_B, draws, vary)
        return first_BE, self._side(rows, ~picture_B, text_B & picture_B, draws, vary)

    def _side(self, rows: Rows, as_text_B: Mask, both_B: Mask, draws: "Draws", vary: bool) -> torch.Tensor:
        """One view of each row. What has only itself to be compared with is varied in checks too."""
        out_BE = torch.zeros(len(rows), self.model.config.projection_dim, device=self.model.device)
        for mask_B, read in ((as_text_B, self._texts), (~as_text_B, self._pictures)):
            for alone in (False, True):
                chosen_B = mask_B & (both_B != alone)
                if chosen_B.any():
                    out_BE[torch.from_numpy(chosen_B)] = read(rows[chosen_B], draws, alone, vary or alone)
        return out_BE

    def _texts(self, rows: Rows, draws: "Draws", alone: bool, vary: bool) -> torch.Tensor:
        texts = [self.examples.texts[i] for i in rows]
        if vary:
            texts = thinned(texts, THINNED_ALONE if alone else THINNED, draws.words)
        limit = self.model.config.text_config.max_position_embeddings
        inputs = self.tokenizer(texts, truncation=True, max_length=limit, padding=True, return_tensors="pt")
        wanted = {name: inputs[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        return self.model.get_text_features(**wanted).pooler_output  # type: ignore[no-any-return]

    def _pictures(self, rows: Rows, draws: "Draws", alone: bool, vary: bool) -> torch.Tensor:
        pictures = self.examples.pictures_N3SS[torch.from_numpy(rows)]
        seen = varied(pictures, self.pixels, draws.pixels) if vary else plain(pictures, self.pixels)
        values = ((seen - self.mean_311) / self.spread_311).to(self.model.device)
        return self.model.get_image_features(pixel_values=values).pooler_output  # type: ignore[no-any-return]

    def _shuffled(self, order: np.random.Generator) -> Iterator[Rows]:
        while True:
            yield from np.array_split(order.permutation(self.rows), max(1, len(self.rows) // BATCH))

    def _copy(self, weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [w.detach().clone() for w in weights]

    def _put(self, values: Sequence[torch.Tensor]) -> None:
        with torch.no_grad():
            for weight, value in zip(self.weights, values, strict=True):
                weight.copy_(value)
