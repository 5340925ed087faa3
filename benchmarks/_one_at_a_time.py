"""One bandit simulated by a plain loop of actors.bandits: what lock step must agree with, and its peer.

Only the posteriors that changed are factored anew, at each publication.
"""

import numpy as np

from actors.bandits.ensemble import Prior
from actors.bandits.law import TIE_SIZE
from actors.bandits.learn import FORGET_EVERY
from actors.bandits.noise import CHOICE, ITEM, TIE, Noise
from actors.bandits.posterior import Gaussian, Statistics, gaussian
from actors.features.features import Features, Floats, Ints
from tune.lockstep.beliefs import Setting
from tune.lockstep.course import Course, Drawn


def play(
    setting: Setting, course: Course, prior: Prior, seed: int = 0, drawn: Drawn = "joint", publish_every: int = 1
) -> tuple[Ints, Floats, Floats]:
    """The columns chosen, their drawn scores and what they earned, (N,) each."""
    strength, sigma = setting.prior_strength, prior.noise if setting.noise is None else setting.noise
    statistics = Statistics.start(strength * prior.precision_ADD, strength * prior.shift_AD, sigma)
    belief, stale = statistics.gaussian(), set[int]()
    found = []
    for n in range(len(course)):
        if n % publish_every == 0:
            for arm in stale:
                part = slice(arm, arm + 1)
                fresh = gaussian(statistics.precision_ADD[part], statistics.shift_AD[part])
                belief.mean_AD[part], belief.factor_ADD[part] = fresh.mean_AD, fresh.factor_ADD
            stale.clear()
        features, noise = course.batch.row(n), Noise((seed << 32) + n, 1)
        score_K = _scores(belief, features, noise, setting.exploration_scale, drawn)
        k = _choose(score_K, setting.epsilon, noise.uniform(CHOICE))
        arm, reward = int(features.arm_K[k]), float(course.reward_NK[n, k])
        if arm >= 0:
            statistics.learn(features.phi_KD[k], arm, reward)
            stale.add(arm)
        if (n + 1) % FORGET_EVERY == 0 and setting.half_life is not None:
            statistics.forget(0.5 ** (FORGET_EVERY / setting.half_life))
            stale.update(range(len(belief.mean_AD)))
        found.append((k, score_K[k], reward))
    item_N, score_N, reward_N = zip(*found, strict=True)
    return np.array(item_N), np.array(score_N), np.array(reward_N)


def _scores(belief: Gaussian, features: Features, noise: Noise, scale: float, drawn: Drawn) -> Floats:
    tie_K = TIE_SIZE * noise.uniforms(TIE, features.key_K)
    if drawn == "joint" and len(belief.mean_AD) == 1:
        scores = belief.scores(features.phi_KD, features.arm_K, features.key_K, noise, scale)
        return scores.mean_K + scores.deviation_PK[0] + tie_K
    mean_K, spread_K = belief.moments(features.phi_KD, features.arm_K % len(belief.mean_AD))
    return mean_K + scale * spread_K * noise.keyed(ITEM, features.key_K)[0] + tie_K


def _choose(score_K: Floats, epsilon: float, uniform: float) -> int:
    pi_K = np.full(len(score_K), epsilon / len(score_K))
    pi_K[score_K.argmax()] += 1 - epsilon
    edges_K = np.cumsum(pi_K)
    return int(np.searchsorted(edges_K, uniform * edges_K[-1], side="right"))
