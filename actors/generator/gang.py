"""Who trains a language model together: every worker has the whole model and reads its share of each update."""

from typing import Protocol

import torch
import torch.distributed


class Workers(Protocol):
    """rank: of this worker, from 0. size: how many there are."""

    rank: int
    size: int

    def add(self, values: torch.Tensor) -> None:
        """Replace `values` by their sum over all workers."""

    def first(self, value: bool) -> bool:
        """What worker 0 says: the clocks of machines differ, and all must end at the same step."""


class Alone:
    """One process."""

    rank, size = 0, 1

    def add(self, values: torch.Tensor) -> None:
        pass

    def first(self, value: bool) -> bool:
        return value


class Gang:
    """The process group of `torch.distributed`, which is there already.

    Gradients are added up once an update, after all of its forward passes, rather than in the middle of them (as
    DistributedDataParallel does): a worker that runs out of memory then repeats its share by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = device

    def add(self, values: torch.Tensor) -> None:
        torch.distributed.all_reduce(values)

    def first(self, value: bool) -> bool:
        told = torch.tensor(float(value), device=self.device)
        torch.distributed.broadcast(told, src=0)
        return bool(told)
