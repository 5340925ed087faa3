"""What starting values that are off cost an ensemble, in a planted world of two members, one of them wrong.

Shapes: N decisions, K items, D features.
"""

from functools import cache

import numpy as np

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.members import Uniform
from actors.features.features import Features, Floats
from cluster.config import LawSettings, WeightSettings

DECISIONS, ITEMS, DIMENSION, SEEDS = 1_500, 6, 5, range(200, 224)
ERROR = 0.08
"""Of each starting value: as after some 40 events at random among six items."""
CERTAIN = 1e6
LAW = LawSettings(particles=16)


def members(rng: np.random.Generator) -> tuple[Floats, tuple[Prior, Prior]]:
    """θ of the world, a member that knows it, and one that knows a part of it."""
    theta_D = np.concatenate([[0.4], rng.choice([-0.15, 0.15], DIMENSION - 1)])
    part_D = theta_D * np.array([1, 1, 1, 1, -1])
    precision = CERTAIN * np.eye(DIMENSION)[None]
    right, wrong = (Prior(n, precision, CERTAIN * d[None], 0.2, "features") for n, d in (("a", theta_D), ("b", part_D)))
    return theta_D, (right, wrong)


def situation(rng: np.random.Generator) -> Features:
    phi_KD = np.concatenate([np.ones((ITEMS, 1)), rng.uniform(-1, 1, (ITEMS, DIMENSION - 1))], axis=1)
    places = np.arange(ITEMS)
    return Features(phi_KD, np.zeros(ITEMS, np.int64), places, places.astype(np.uint64), np.zeros(1))


@cache
def worth() -> tuple[float, float]:
    """What the two members earn in the mean of all worlds: all have the same, but for signs."""
    rng = np.random.default_rng(99)
    theta_D, both = members(rng)
    found = []
    for member in both:
        rows = [situation(rng).phi_KD for _ in range(4_000)]
        found.append(np.mean([row[(row @ member.shift_AD[0]).argmax()] @ theta_D for row in rows]))
    return float(found[0]), float(found[1])


def played(seed: int, error_M: Floats | None) -> tuple[float, float]:
    """What the ensemble's law earns less than the right member, a decision, and the weight of this one at the end."""
    rng = np.random.default_rng([seed, 1])
    theta_D, both = members(rng)
    ensemble = Ensemble((*both, Uniform()), starts(seed), LAW, WeightSettings(), DIMENSION, "", errors_M=error_M)
    state = learn.start(ensemble)
    published, lost = learn.publish(state), 0.0
    for n in range(DECISIONS):
        features = situation(rng)
        decision = law.decide(published, features, None, (seed << 32) + n)
        mean_K, slot = features.phi_KD @ theta_D, decision.slots[0]
        lost += mean_K.max() - decision.first_K @ mean_K
        reward = float(rng.random() < np.clip(mean_K[slot.index], 0, 1))
        state = learn.step(state, learn.Outcome.chosen(features, slot, None, reward))
        if n % 32 == 31:
            published = learn.publish(state)
    return lost / DECISIONS, float(published.weights_M[0])


def starts(seed: int) -> Floats:
    """True values with errors."""
    right, wrong = worth()
    return np.clip(np.array([right, wrong, 0.4]) + ERROR * np.random.default_rng([seed, 2]).normal(size=3), 0, 1)


def test_a_noisy_start_that_knows_its_error_costs_little_and_the_better_member_wins() -> None:
    """The right member earns 0.62 a decision, the wrong one 0.51. Of these seeds the cost is 0.010 in the mean
    and 0.073 at most, 0.002 of it the law's uniform share; over 84, 0 to 59 beside these, 0.012 and 0.106.
    """
    cost, weight = np.array([played(seed, np.full(3, ERROR)) for seed in SEEDS]).T
    assert cost.mean() < 0.02
    assert cost.max() < 0.1
    assert (weight > 0.5).mean() >= 0.8


def test_a_start_that_is_taken_for_certain_stays_wrong() -> None:
    """Of the seeds in which it is off by most."""
    off = min(SEEDS, key=lambda seed: starts(seed)[0] - starts(seed)[1])
    assert starts(off)[0] < starts(off)[1]
    cost, weight = played(off, None)
    assert cost > 0.09
    assert weight < 0.1
