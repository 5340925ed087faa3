"""Many candidate bandits that learn online, simulated together: every event is one step of all of them.

A candidate (Setting) decides by the law of serving with one particle: it draws scores of the event's items from its
posterior, takes the best, or any with probability ε, earns what that item earns there, and learns that reward
alone. One at a time, with actors.bandits, it would choose the same items at the same scores up to rounding; together
a step is a few tensor operations on all candidates, on a CPU or a GPU by the same code.

Shapes: C candidates, N events, K items, A arms, D features, B events between two publications.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actors.bandits.ensemble import Prior
from actors.bandits.learn import FORGET_EVERY
from actors.features.features import Floats
from cluster.errors import ModelError
from tune.lockstep.beliefs import FLOAT, Beliefs, Setting
from tune.lockstep.course import Chance, Course, Drawn, Draws

BUDGET_BYTES = 32 * 2**20
PAGE = 256
"""Events, about, whose numbers are made and moved to the device at a time."""
TOGETHER = 16
"""Outcomes of joint features between two publications from which on factoring anew is the cheaper way."""


@dataclass(frozen=True)
class Simulated:
    """What some of the candidates did: the column chosen, its drawn score, and the scaled reward it earned.

    candidates: which of the settings these are.
    """

    candidates: range
    item_CN: NDArray[np.int32]
    score_CN: Floats
    reward_CN: Floats


def simulate(
    settings: Sequence[Setting],
    course: Course,
    prior: Prior,
    *,
    seed: int = 0,
    drawn: Drawn = "joint",
    publish_every: int = 1,
    budget_bytes: int = BUDGET_BYTES,
    device: str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Simulated]:
    """Simulate every candidate along the course, as many at a time as the budget allows, at least one.

    Args:
        prior: Λ₀ and b₀ that all candidates start from, each with its own strength.
        drawn: with joint features, an event's scores come from one draw of θ, or each from a draw of its own;
            parameters per item are independent as they are.
        publish_every: events between two publications; a decision sees what was learned before the last one.
        budget_bytes: memory that this takes beside course and prior. The result does not depend on it.

    Raises:
        ModelError: the prior does not fit the course's features.
    """
    _check(course, prior)
    work = _Work(course, prior, publish_every, device, drawn == "joint" and len(prior.shift_AD) == 1)
    chance = Chance(course, work.pages, seed, work.parameters)
    left_bytes = budget_bytes - work.bytes_page
    held = chance.bytes <= left_bytes // 4
    pages: Iterable[Draws] = list(chance) if held else chance
    count = max(1, (left_bytes - held * chance.bytes) // work.bytes_each)
    for start in range(0, len(settings), count):
        candidates = range(start, min(start + count, len(settings)))
        yield work.simulate(candidates, [settings[c] for c in candidates], pages)
        progress(candidates.stop, len(settings))


def _check(course: Course, prior: Prior) -> None:
    batch, (arms, dimension) = course.batch, prior.shift_AD.shape
    if prior.view != "features":
        raise ModelError(f"member {prior.name!r} does not see features; simulate one that does, such as 'linear'")
    if batch.phi_BKD.shape[2] != dimension:
        raise ModelError(f"a prior of {dimension} features does not fit the course's {batch.phi_BKD.shape[2]}")
    if int(batch.arm_BK.max(initial=0)) >= arms:
        raise ModelError(f"a prior of {arms} parameter rows does not fit arm {int(batch.arm_BK.max())}")
    if arms > 1 and not (batch.repeats or batch.phi_BKD.shape[1] == 1):
        raise ModelError("parameters per item need one row of features per event; let the batch repeat it")


@dataclass(frozen=True)
class _Page:
    """B events on the device. phi_BKD has one row per event where its items share it; bias_BK orders equal items and
    is minus infinity on padding, share_B1K the probabilities of a uniform choice."""

    phi_BKD: Tensor
    arm_BK: Tensor
    reward_BK: Tensor
    normal_BX: Tensor
    bias_B1K: Tensor
    share_B1K: Tensor
    uniform_B11: Tensor

    def take(self, events: slice) -> "_Page":
        return _Page(*(getattr(self, field.name)[events] for field in fields(self)))


@dataclass(frozen=True)
class _Work:
    """What all chunks of candidates share. parameters: whether draws are of θ."""

    course: Course
    prior: Prior
    publish_every: int
    device: str
    parameters: bool

    @property
    def pages(self) -> list[range]:
        """Of whole publications each."""
        size, events = self.publish_every * max(1, PAGE // self.publish_every), len(self.course)
        return [range(start, min(start + size, events)) for start in range(0, events, size)]

    @property
    def bytes_page(self) -> int:
        k, longest = self.course.reward_NK.shape[1], max((len(page) for page in self.pages), default=0)
        return int(8 * longest * k * (self.prior.shift_AD.shape[1] + 5))

    @property
    def bytes_each(self) -> int:
        """Memory of one candidate: its beliefs, the scores of a block, and what it did."""
        (n, k), (arms, d) = self.course.reward_NK.shape, self.prior.shift_AD.shape
        wide = 2 * d if self.parameters else max(k, arms) * (d + 3)
        return int(Beliefs.bytes_each(arms, d) + 8 * self.publish_every * (wide + 8 * k + 4 * d) + 24 * n)

    def simulate(self, candidates: range, settings: Sequence[Setting], draws: Iterable[Draws]) -> Simulated:
        beliefs = Beliefs(settings, self.prior, self.device)
        epsilon_C1 = self._tensor(np.array([s.epsilon for s in settings]))[:, None]
        item_CN = torch.empty(len(settings), len(self.course), dtype=torch.int32, device=self.device)
        score_CN, reward_CN = (torch.empty(item_CN.shape, dtype=FLOAT, device=self.device) for _ in range(2))
        for events, drawn in zip(self.pages, draws, strict=True):
            page = self._page(events, drawn)
            for start in range(0, len(events), self.publish_every):
                block = page.take(slice(start, start + self.publish_every))
                score_BCK = beliefs.scores(block.phi_BKD, block.arm_BK, block.normal_BX, self.parameters)
                item_BC1 = _choose(score_BCK.add_(block.bias_B1K), block, epsilon_C1)
                rows = slice(events.start + start, events.start + start + len(item_BC1))
                item_CN[:, rows] = item_BC1[..., 0].T
                score_CN[:, rows] = score_BCK.gather(2, item_BC1)[..., 0].T
                self._learn(beliefs, block, item_BC1[..., 0], reward_CN[:, rows], rows.start)
        return Simulated(candidates, item_CN.cpu().numpy(), score_CN.cpu().numpy(), reward_CN.cpu().numpy())

    def _learn(self, beliefs: Beliefs, block: _Page, item_BC: Tensor, reward_CB: Tensor, first: int) -> None:
        """Let every candidate learn what it chose, event by event, and note the rewards."""
        row_B1 = torch.arange(len(item_BC), device=self.device)[:, None]
        phi_BCD = block.phi_BKD[row_B1, item_BC % block.phi_BKD.shape[1]]
        arm_BC, reward_BC = block.arm_BK.gather(1, item_BC), block.reward_BK.gather(1, item_BC)
        reward_CB.copy_(reward_BC.T)
        start = 0
        while start < len(item_BC):
            stop = min(len(item_BC), start + FORGET_EVERY - (first + start) % FORGET_EVERY)
            if len(self.prior.shift_AD) == 1 and stop - start >= TOGETHER:
                beliefs.learn_together(phi_BCD[start:stop], reward_BC[start:stop])
            else:
                for b in range(start, stop):
                    beliefs.learn(phi_BCD[b], arm_BC[b], reward_BC[b])
            if (first + stop) % FORGET_EVERY == 0:
                beliefs.forget(FORGET_EVERY)
            start = stop

    def _page(self, events: range, drawn: Draws) -> _Page:
        batch, rows = self.course.batch, slice(events.start, events.stop)
        mask_BK = batch.mask_BK[rows]
        return _Page(
            self._tensor(batch.phi_BKD[rows, : 1 if batch.repeats else None]),
            torch.tensor(batch.arm_BK[rows], device=self.device),
            self._tensor(self.course.reward_NK[rows]),
            self._tensor(drawn.normal_BX),
            self._tensor(np.where(mask_BK, drawn.tie_BK, -np.inf)[:, None]),
            self._tensor((mask_BK / mask_BK.sum(1, keepdims=True))[:, None]),
            self._tensor(drawn.uniform_B[:, None, None]),
        )

    def _tensor(self, array: Floats) -> Tensor:
        return torch.tensor(array, dtype=FLOAT, device=self.device)


def _choose(score_BCK: Tensor, block: _Page, epsilon_C1: Tensor) -> Tensor:
    """The item whose share of [0, 1) holds the event's uniform number, as actors.bandits.law picks it, (B, C, 1)."""
    best_BC1 = score_BCK.argmax(2, keepdim=True)
    pi_BCK = epsilon_C1 * block.share_B1K
    edges_BCK = pi_BCK.scatter_add_(2, best_BC1, (1 - epsilon_C1).expand_as(best_BC1)).cumsum(2)
    return (edges_BCK <= block.uniform_B11 * edges_BCK[..., -1:]).sum(2, keepdim=True)
