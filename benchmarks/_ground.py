"""Logged clicks and candidates to value on them, drawn: what `benchmarks.evaluate` works on."""

import numpy as np

from actors.bandits.mixture import Mixture
from actors.features.features import FeatureBatch
from tune.evaluate import Ground
from tune.log import Log

USERS, EACH, ITEMS, FEATURES = 500, 20, 10, 64


def ground(rng: np.random.Generator, history: int, users: int, each: int, items: int, dimension: int) -> Ground:
    """Uniformly logged clicks."""
    n = users * each
    phi = rng.normal(size=(n, items, dimension))
    action, zeros = rng.integers(0, items, n), np.zeros((n, items), np.int64)
    click = (rng.random(n) < 0.3).astype(float)
    log = Log(action, click, np.full(n, 1 / items), np.repeat(np.arange(users), each), np.ones((n, items), bool))
    batch = FeatureBatch(phi, zeros, zeros, zeros.astype(np.uint64), log.mask_NK, rng.normal(size=(n, 4)))
    return Ground(log, batch, np.full((n, items), 0.3), np.full((n, 1), 0.3), ("uniform",), history)


def candidates(rng: np.random.Generator, count: int, arms: int, dimension: int) -> Mixture:
    return Mixture(
        name="candidates",
        means_CAD=rng.normal(size=(count, arms, dimension)),
        factor_ADD=np.tile(0.3 * np.eye(dimension), (arms, 1, 1)),
        ranks_CADR=0.1 * rng.normal(size=(count, arms, dimension, 8)),
        noise=0.2,
        encoder_HX=np.eye(4),
        prototypes_CH=np.random.default_rng(0).normal(size=(6, 4))[np.arange(count) % 6],
        temperature=0.1,
        names_C=tuple(f"{c:05d}" for c in range(count)),
    )
