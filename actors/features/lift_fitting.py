"""Which lift `features.map` asks for, and how many features it may add.

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
from actors.features.kernel import fit_kernel
from actors.features.lift import Lift
from actors.features.neural_fitting import fit_neural
from actors.features.quadratic import fit_quadratic
from cluster.config import FeatureSettings

log = logging.getLogger(__name__)
SAMPLE = 20_000
TWO = 3
"""Parameter rows of two items, with the one for all others: theirs become a pair (`pair.py`)."""
WIDTHS = {"quadratic": 200, "fourier": 200, "kernel": 200, "neural": 32, "hashed": 256}


class Base(Batched, Protocol):
    """What is used of a feature map without a lift."""

    @property
    def arms(self) -> int: ...

    @property
    def plain(self) -> Ints: ...


def room(base: Base, settings: FeatureSettings) -> int:
    """How many features the map may add; 0 where it adds none, or none fit, which the log says."""
    if settings.map in ("auto", "linear"):
        return 0
    left = math.isqrt(settings.map_bytes // (8 * base.arms)) - base.dimension
    if left < 1:
        log.warning(
            "features.map %s: no room beside %d features in %d parameter rows; raise features.map_bytes (%d)",
            settings.map, base.dimension, base.arms, settings.map_bytes,
        )  # fmt: skip
        return 0
    return min(left, settings.map_width or WIDTHS[settings.map])


def fit_lift(base: Base, events: pa.Table, settings: FeatureSettings, width: int, seed: int) -> Lift | None:
    """At most `width` functions of the base features, fitted on the logged actions; None where none of them varies."""
    read_R = base.plain[1:]
    if not len(read_R):
        return None
    rows = np.sort(np.random.default_rng(seed).permutation(len(events))[:SAMPLE])
    acted = actions(base, events.take(pa.array(rows)))
    reward_N = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)[rows]
    if settings.map == "quadratic":
        return fit_quadratic(acted.phi_ND, acted.arm_N, reward_N, width)
    if settings.map == "fourier":
        return fit_fourier(acted.phi_ND, read_R, width, seed)
    if settings.map == "kernel":
        return fit_kernel(acted.phi_ND, read_R, acted.arm_N, reward_N, base.arms == TWO, width, seed)
    return fit_neural(acted.phi_ND, read_R, acted.arm_N, reward_N, base.arms, width, seed)
