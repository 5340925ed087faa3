"""The features of what was done: of each event, those of its logged item alone.

Shapes: N events, D features, X context features.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from actors.features.features import FeatureBatch, Floats, Ints

BLOCK = 4_096
"""Events per batch, for bounded memory."""


class Batched(Protocol):
    """What is used of a feature map."""

    @property
    def dimension(self) -> int: ...

    def batch(self, events: pa.Table) -> FeatureBatch: ...


@dataclass(frozen=True)
class Actions:
    """phi_ND, arm_N, item_N and context_NX of the logged items."""

    phi_ND: Floats
    arm_N: Ints
    item_N: Ints
    context_NX: Floats


def actions(feature_map: Batched, events: pa.Table) -> Actions:
    """Features of the logged item of each event, as `FeatureMap.batch` gives them."""
    place = events.schema.get_field_index("candidates")
    blocks = []
    for start in range(0, max(len(events), 1), BLOCK):
        block = events.slice(start, BLOCK)
        item = block["item_id"].combine_chunks()
        alone = pa.ListArray.from_arrays(pa.array(np.arange(len(item) + 1), pa.int32()), item)
        batch = feature_map.batch(block.set_column(place, "candidates", alone))
        phi_ND = batch.phi_BKD.reshape(len(item), feature_map.dimension)
        blocks.append((phi_ND, batch.arm_BK.reshape(-1), batch.item_BK.reshape(-1), batch.context_BX))
    return Actions(*(np.concatenate(column) for column in zip(*blocks, strict=True)))
