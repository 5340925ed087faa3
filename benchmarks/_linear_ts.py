"""Two plain Thompson samplers: what is there to beat, and why draws are joint.

Shapes: N rows, F features, K arms or items, D parameters.
"""

import numpy as np

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.features.features import Features, Floats
from actors.features.keys import item_keys
from benchmarks._floors import columns
from benchmarks._games import Game
from cluster.config import LawSettings, WeightSettings

SCALE, RIDGE = 0.25, 1.0
GROUPS, EACH, NOISE, APART = 10, 10, 0.2, 0.05
"""Near duplicates: an item's features are the one-hot of its group, and noise of deviation APART on each of the ten."""


def lin_ts(game: Game, seed: int) -> int:
    """Errors of LinTS with parameters per arm (Agrawal & Goyal 2013), θ_a ~ N(A⁻¹b, v²A⁻¹), on the columns as they are,
    scaled in hindsight; its posterior is exact after each row."""
    rng, x_NF = np.random.default_rng(seed), columns(game)
    x_NF = np.concatenate([np.ones((len(x_NF), 1)), x_NF], axis=1)
    arms, size = len(game.arms), x_NF.shape[1]
    inverse_KFF, sums_KF = np.tile(np.eye(size) / RIDGE, (arms, 1, 1)), np.zeros((arms, size))
    errors = 0
    for x_F, right in zip(x_NF, game.right_N.tolist(), strict=True):
        turned_KF = inverse_KFF @ x_F
        spread_K = np.sqrt(turned_KF @ x_F)
        arm = int(np.argmax(np.einsum("kf,kf->k", turned_KF, sums_KF) + SCALE * spread_K * rng.standard_normal(arms)))
        errors += arm != right
        sums_KF[arm] += x_F * (arm == right)
        inverse_KFF[arm] -= np.outer(turned_KF[arm], turned_KF[arm]) / (1 + spread_K[arm] ** 2)
    return errors


def duplicates(joint: bool, rounds: int, seed: int) -> float:
    """Regret of one posterior over joint features among 100 items in ten groups of near duplicates.

    Its draws are joint, by `law.decide`, or independent for each item with the same means and spreads.
    """
    rng = np.random.default_rng(seed)
    phi_KD = np.repeat(np.eye(GROUPS), EACH, axis=0)
    phi_KD = phi_KD + APART * rng.standard_normal(phi_KD.shape)
    mean_K = phi_KD @ (rng.standard_normal(GROUPS) / np.sqrt(GROUPS))
    names = [f"i{k}" for k in range(len(phi_KD))]
    zeros, places = np.zeros(len(names), np.int64), np.arange(len(names))
    features = Features(phi_KD, zeros, places, item_keys(names), np.empty(0))
    state = learn.start(_ensemble())
    regret = 0.0
    for t in range(rounds):
        published = learn.publish(state)
        slot = law.decide(published, features, None, (seed << 32) + t).slots[0]
        item = slot.index if joint else _independent(state, phi_KD, rng)
        regret += float(mean_K.max() - mean_K[item])
        reward = float(mean_K[item] + NOISE * rng.standard_normal())
        state = learn.step(state, learn.Outcome(None, phi_KD[item], 0, item, reward, slot.propensity, np.ones(1)))
    return regret


def _ensemble() -> Ensemble:
    prior = Prior("linear", GROUPS * np.eye(GROUPS)[None], np.zeros((1, GROUPS)), NOISE**2, "features")
    settings = LawSettings(epsilon=1e-9, delta=0.0)
    return Ensemble((prior,), np.full(1, 0.5), settings, WeightSettings(), GROUPS, "", history=0)


def _independent(state: learn.State, phi_KD: Floats, rng: np.random.Generator) -> int:
    mean_K, spread_K = state.posteriors["linear"].moments(phi_KD, np.zeros(len(phi_KD), np.int64))
    return int(np.argmax(mean_K + spread_K * rng.standard_normal(len(phi_KD))))
