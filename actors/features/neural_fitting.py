"""How the network of `Neural` is trained: on the logged rewards, every arm with an output of its own.

Outputs read the last layer and the features themselves, so that the layer learns what they lack. AdamW (Loshchilov &
Hutter 2019) on squared errors, at most EPOCHS passes, stopped where a held-out fifth of the rows was best (Prechelt
1998). On one type of machine the same rows and seed give the same bits: training takes one thread, whatever torch is
set to.

Shapes: N rows, R features read, H units of the first layer, W of the last, A arms.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from actors.features.features import Floats, Ints
from actors.features.neural import Neural

if TYPE_CHECKING:
    import torch

HIDDEN = 64
BATCH = 128
STEPS = 3_000
EPOCHS = 150
CHECK = 50
PATIENCE = 8
RATE = 2e-3
DECAY = 0.1
HELD = 5


def fit_neural(
    base_ND: Floats, read_R: Ints, arm_N: Ints, reward_N: Floats, arms: int, width: int, seed: int
) -> Neural:
    """The network with `width` units in its last layer; rows without a finite reward or a known arm are left out."""
    import torch

    known = np.isfinite(reward_N) & (arm_N >= 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first_RH, first_H, last_HW, last_W = _train(
            base_ND[known][:, read_R], arm_N[known], reward_N[known], arms, width, seed
        )
    finally:
        torch.set_num_threads(threads)
    plain = Neural(read_R, first_RH, first_H, last_HW, last_W, np.zeros(width), np.ones(width))
    units_NW = plain.units(base_ND)
    return replace(plain, mean_W=units_NW.mean(axis=0), deviation_W=np.maximum(units_NW.std(axis=0), 1e-3))


def _train(x_NR: Floats, arm_N: Ints, reward_N: Floats, arms: int, width: int, seed: int) -> list[Floats]:
    """first_RH, first_H, last_HW, last_W; as they started where there are too few rows to hold any out."""
    import torch

    x, arm = torch.tensor(x_NR), torch.tensor(arm_N)
    target = torch.tensor((reward_N - reward_N.mean()) / max(float(reward_N.std()), 1e-9)) if len(arm_N) else arm

    def loss(weights: "list[torch.Tensor]", rows: "torch.Tensor") -> "torch.Tensor":
        first = torch.tanh(x[rows] @ weights[0] + weights[1])
        last = torch.tanh(first @ weights[2] + weights[3])
        out = torch.cat([x[rows], last], dim=1) @ weights[4] + weights[5]
        return ((out.gather(1, arm[rows, None])[:, 0] - target[rows]) ** 2).mean()

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(x), generator=generator)
    weights = _start(x.shape[1], width, arms, generator)
    if len(x) >= HELD:
        weights = _descend(weights, loss, order[: len(x) // HELD], order[len(x) // HELD :], generator)
    return [weight.detach().numpy() for weight in weights[:4]]


def _start(features: int, width: int, arms: int, generator: "torch.Generator") -> "list[torch.Tensor]":
    """Weights and offsets of the two layers and the outputs; outputs start at zero."""
    import torch

    first = torch.randn(features, HIDDEN, generator=generator, dtype=torch.float64) / features**0.5
    last = torch.randn(HIDDEN, width, generator=generator, dtype=torch.float64) / HIDDEN**0.5
    out = torch.zeros(features + width, arms, dtype=torch.float64)
    offsets = [torch.zeros(n, dtype=torch.float64) for n in (HIDDEN, width, arms)]
    return [first, offsets[0], last, offsets[1], out, offsets[2]]


def _descend(
    weights: "list[torch.Tensor]",
    loss: "Callable[[list[torch.Tensor], torch.Tensor], torch.Tensor]",
    held: "torch.Tensor",
    rows: "torch.Tensor",
    generator: "torch.Generator",
) -> "list[torch.Tensor]":
    """The weights at the check that was best on the held-out rows."""
    import torch

    live = [weight.clone().requires_grad_() for weight in weights]
    optimizer = torch.optim.AdamW(live, lr=RATE, weight_decay=DECAY)
    best, stale = float("inf"), 0
    for step in range(min(STEPS, 1 + EPOCHS * len(rows) // BATCH)):
        if step % CHECK == 0:
            with torch.no_grad():
                now = float(loss(live, held))
            stale = 0 if now < best else stale + 1
            if now < best:
                best, weights = now, [weight.detach().clone() for weight in live]
            if stale > PATIENCE:
                break
        optimizer.zero_grad()
        loss(live, rows[torch.randint(len(rows), (BATCH,), generator=generator)]).backward()
        optimizer.step()
    return weights
