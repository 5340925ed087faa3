"""Where the head's training stands, so that one that was killed goes on to the same bits.

Shapes: U held-out tasks.
"""

import hashlib
import logging
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch

from actors.features.features import Floats
from actors.generator.checkpoint import Checkpoint
from actors.generator.head import Head
from actors.generator.likelihood import Rows

log = logging.getLogger(__name__)
State = dict[str, torch.Tensor]


@dataclass
class Standing:
    """What a training has done and found; the head's and the optimiser's own state are saved beside it.

    before: the head that gradients on everything began with; kept: the best so far. pooled_U, before_U, best_U: losses
    of the pooled prior, of `before` and of `kept`. step: in all; first: those of the pooled prior. epoch, done: batches
    taken. told: as in `HeadTraining`.
    """

    before: State = field(default_factory=dict)
    kept: State = field(default_factory=dict)
    pooled_U: Floats = field(default_factory=lambda: np.zeros(0))
    before_U: Floats = field(default_factory=lambda: np.zeros(0))
    best_U: Floats = field(default_factory=lambda: np.full(1, np.inf))
    phase: Literal["pooled", "whole"] = "pooled"
    step: int = 0
    first: int = 0
    best_step: int = 0
    misses: int = 0
    epoch: int = 0
    done: int = 0
    told: float = 0.0
    seconds: float = 0.0
    ended_by: str = ""

    def save(self, checkpoint: Checkpoint, key: str, head: Head, steps: torch.optim.Optimizer) -> None:
        state = steps.state_dict()
        tensors = {f"head/{name}": value for name, value in head.state_dict().items()}
        tensors |= {f"moment/{i}/{name}": v for i, values in state["state"].items() for name, v in values.items()}
        facts: dict[str, Any] = {"rates": [group["lr"] for group in steps.param_groups]}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, dict):
                tensors |= {f"{each.name}/{name}": tensor for name, tensor in value.items()}
            elif isinstance(value, np.ndarray):
                tensors[each.name] = torch.from_numpy(value)
            else:
                facts[each.name] = value
        apart = {name: tensor.clone() for name, tensor in tensors.items()}  # what shares memory cannot be saved
        checkpoint.save(key, apart, facts)


@dataclass(frozen=True)
class Resumed:
    """A training as it was saved."""

    standing: Standing
    head: State
    moments: dict[int, State]
    rates: list[float]

    @classmethod
    def of(cls, checkpoint: Checkpoint, key: str) -> "Resumed | None":
        found = checkpoint.load(key)
        if found is None:
            return None
        tensors, facts = found
        moments: dict[int, State] = {}
        for name, value in tensors.items():
            if name.startswith("moment/"):
                _, i, moment = name.split("/")
                moments.setdefault(int(i), {})[moment] = value
        rates = facts.pop("rates")
        standing = Standing(
            _under("before", tensors),
            _under("kept", tensors),
            tensors["pooled_U"].numpy(),
            tensors["before_U"].numpy(),
            tensors["best_U"].numpy(),
            **facts,
        )
        log.warning("head: going on from step %d of a run that was ended", standing.step)
        return cls(standing, _under("head", tensors), moments, rates)

    def restore(self, steps: torch.optim.Optimizer) -> None:
        """The optimiser's moments and step sizes."""
        steps.load_state_dict({**steps.state_dict(), "state": self.moments})
        for group, rate in zip(steps.param_groups, self.rates, strict=True):
            group["lr"] = rate


def key_of(head: Head, fit: Rows, stop: Rows, *about: object) -> str:
    """What the bits of a training depend on: its tasks, the head that it starts from, settings, and the library."""
    digest = hashlib.blake2b(repr((torch.__version__, *about)).encode(), digest_size=16)
    for rows in (fit, stop):
        tasks = rows.tasks
        for array in (tasks.start_U, rows.arm_N, tasks.reward_N, rows.mean_N, rows.code_UQ, tasks.phi_ND):
            digest.update(array.tobytes())
    for name, value in head.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _under(prefix: str, tensors: State) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
