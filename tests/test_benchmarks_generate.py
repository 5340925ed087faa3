"""The calculation of benchmarks.generate against what torch counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from actors.generator import embedded
from benchmarks.generate import operations, weights


@pytest.mark.parametrize("tokens", [1, 17])
def test_operations_are_those_that_torch_counts(tokens: int) -> None:
    backbone = embedded.build(["lamp number 1"] * 4, hidden=64, layers=3, tokens=24, batch=2, seed=0)
    assert weights(backbone) == sum(p.numel() for n, p in backbone.model.named_parameters() if "embed" not in n)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        backbone.model.base_model(input_ids=torch.ones(1, tokens, dtype=torch.long), use_cache=False)
    # torch multiplies every token with all others, ours with those up to it alone: 4 L H (T^2 - T (T + 1) / 2) fewer.
    counted = counter.get_total_flops() - 4 * 3 * 64 * (tokens**2 - tokens * (tokens + 1) // 2)
    assert operations(backbone, [tokens]) == pytest.approx(counted, rel=0.01)
    assert operations(backbone, [tokens, tokens]) == 2 * operations(backbone, [tokens])
