"""Small courses for the tests of tune.lockstep.simulate. Shapes as in tune/lockstep/course.py."""

import numpy as np

from actors.bandits.ensemble import Prior
from actors.features.features import FeatureBatch
from tests import bandit_cases
from tune.lockstep.course import Course


def course(rng: np.random.Generator, events: int, items: int, dimension: int, arms: int = 1) -> Course:
    """Clicks by a planted θ. Every third event has one item less; with arms, an item in ten is unknown."""
    shape = (events, items)
    phi = rng.normal(size=(events, 1 if arms > 1 else items, dimension))
    phi[..., 0] = 1
    arm = rng.integers(0, arms, shape)
    mean = np.einsum("nkd,nkd->nk", np.broadcast_to(phi, (*shape, dimension)), rng.normal(size=(arms, dimension))[arm])
    arm[(rng.random(shape) < 0.1) & (arms > 1)] = -1
    mask = np.ones(shape, dtype=bool)
    mask[::3, -1] = items == 1
    keys = rng.integers(0, 2**63, shape).astype(np.uint64)
    batch = FeatureBatch(np.broadcast_to(phi, (*shape, dimension)), arm, arm, keys, mask, rng.normal(size=(events, 2)))
    return Course(batch, (rng.random(shape) < 1 / (1 + np.exp(1 - mean))).astype(float))


def prior(rng: np.random.Generator, dimension: int, arms: int = 1) -> Prior:
    """Of proper precision and shift; the last of several arms is never learned from."""
    rows = arms + (arms > 1)
    shift = rng.normal(size=(rows, dimension))
    return Prior("linear", bandit_cases.precision(rng, rows, dimension), shift, 0.2, "features")
