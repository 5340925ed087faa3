"""Which lift `features.map` asks for, and how wide it may be.

A posterior of A parameter rows over D features holds A·D² numbers of 8 bytes: `features.map_bytes` bounds D.

Shapes: N fit rows, D base features, R of them read, A arms.
"""

import logging
import math
from typing import Protocol

import numpy as np
import pyarrow as pa

from actors.features.actions import Batched, actions
from actors.features.features import Ints
from actors.features.fourier import fit_fourier
from actors.features.lift import Lift
from actors.features.neural_fitting import fit_neural
from actors.features.quadratic import fit_quadratic
from cluster.config import FeatureSettings

log = logging.getLogger(__name__)
SAMPLE = 20_000
WIDTHS = {"fourier": 200, "neural": 32}


class Base(Batched, Protocol):
    """What is used of a feature map without a lift."""

    @property
    def arms(self) -> int: ...

    @property
    def plain(self) -> Ints: ...


def fit_lift(base: Base, events: pa.Table, settings: FeatureSettings, seed: int) -> Lift | None:
    """The lift of the base features of the logged actions; None where the map has none or no room."""
    if settings.map in ("auto", "linear"):
        return None
    read_R = base.plain[1:]
    room = math.isqrt(settings.map_bytes // (8 * base.arms)) - base.dimension
    if not len(read_R) or room < 1:
        log.warning(
            "features.map %s: no lift beside %d base features in %d parameter rows; raise features.map_bytes (%d)",
            settings.map, base.dimension, base.arms, settings.map_bytes,
        )  # fmt: skip
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(len(events))[:SAMPLE])
    acted = actions(base, events.take(pa.array(rows)))
    reward_N = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)[rows]
    width = min(room, settings.map_width or WIDTHS.get(settings.map, room))
    lift: Lift
    if settings.map == "quadratic":
        lift = fit_quadratic(acted.phi_ND, acted.arm_N, reward_N, width)
    elif settings.map == "fourier":
        lift = fit_fourier(acted.phi_ND, read_R, width, seed)
    else:
        lift = fit_neural(acted.phi_ND, read_R, acted.arm_N, reward_N, base.arms, width, seed)
    log.info("features.map %s: %d features beside %d", settings.map, lift.size, base.dimension)
    return lift
