"""How much each member counts: decayed, importance-weighted average reward (docs/law.md).

Shapes: M members. ρ_m = π_m(a)/π(a), from the log.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats
from cluster.config import LawSettings, WeightSettings
from cluster.errors import ModelError

LEVEL_COUNT = 50.0
"""Effective decisions that the declared level of rewards counts for, beside the level that is met."""
LEAST_VARIANCE = 1e-4
"""Of a reward, where a value is 0 or 1."""


@dataclass
class Performance:
    """Decayed sums per member; arrays change in place.

    prior_M: value a member starts with, in scaled reward, worth `prior_count` decisions.
    sums_5M: N = Σρ, R = Σρr (decayed by γ), Q0 = Σρ², Q1 = Σρ²r, Q2 = Σρ²r² (decayed by γ²).
    error_M: standard errors of prior_M, where these are worth less than that.
    """

    prior_M: Floats
    sums_5M: Floats
    error_M: Floats | None = None

    @classmethod
    def start(cls, prior_M: Floats, error_M: Floats | None = None) -> "Performance":
        return cls(prior_M, np.zeros((5, len(prior_M))), error_M)

    def observe(self, member_M: Floats, propensity: float, reward: float, half_life: float) -> None:
        """Count one final outcome, whose item had `propensity` and `member_M` under each member."""
        if not propensity > 0:
            raise ModelError(f"propensity {propensity} of a logged outcome must be above 0")
        decay = 0.5 ** (1.0 / half_life)
        ratio_M = member_M / propensity
        self.sums_5M[:2] *= decay
        self.sums_5M[2:] *= decay * decay
        square_M = ratio_M * ratio_M
        self.sums_5M += (ratio_M, ratio_M * reward, square_M, square_M * reward, square_M * reward**2)

    def values(self, prior_count: float) -> tuple[Floats, Floats]:
        """Value v_M and its standard error se_M (delta method for a ratio).

        The prior acts as `prior_count` decisions, or as the fewer that have its own error, with the variance of a
        Bernoulli reward and the member's own typical ratio, ρ = max(1, Q0/N). With ρ = 1 instead, one rewarded
        exploration with ρ = 80 would outweigh a prior of 100 decisions: uniform's weight jumped to a half for a second
        after the first rewards.

        What the priors say is how members compare; the level that all share is soon known better than that, and they
        move with it. Members that differ much from the blend, whose priors count for many decisions, would be held
        at a level that was declared too low, and lose to whatever the blend does: where priors were ½ and rewards
        0.8, popularity kept all the weight on a table that the linear model answers right.
        """
        n_M, r_M, q0_M, q1_M, q2_M = self.sums_5M
        known_M = self._counts(prior_count)
        prior_M = np.clip(self.prior_M + self._shift(), 0.0, 1.0)
        ratio_M = np.maximum(1.0, np.divide(q0_M, n_M, out=np.ones_like(n_M), where=n_M > 0))
        count_M = n_M + known_M * ratio_M
        value_M = (r_M + known_M * ratio_M * prior_M) / count_M
        prior_variance_M = np.clip(prior_M * (1 - prior_M), LEAST_VARIANCE, None)
        square_M = q2_M - 2 * value_M * q1_M + value_M**2 * q0_M + known_M * ratio_M**2 * prior_variance_M
        return value_M, np.sqrt(np.maximum(square_M, 0)) / count_M

    def _counts(self, most: float) -> Floats:
        """Decisions of Bernoulli rewards that would have left the prior's error, `most` at most and 1 at least."""
        if self.error_M is None:
            return np.full(len(self.prior_M), most)
        variance_M = np.clip(self.prior_M * (1 - self.prior_M), LEAST_VARIANCE, None)
        least_M = np.sqrt(variance_M / most)
        return np.asarray(np.maximum(1.0, variance_M / np.maximum(self.error_M, least_M) ** 2))

    def _shift(self) -> float:
        """How far members' mean rewards lie above their priors, by effective decisions N²/Q0 (Kish 1965)."""
        n_M, r_M, q0_M = self.sums_5M[:3]
        seen_M = (n_M > 0) & (q0_M > 0)
        count_M = np.divide(n_M * n_M, q0_M, out=np.zeros_like(n_M), where=seen_M)
        above_M = np.divide(r_M, n_M, out=self.prior_M.copy(), where=seen_M) - self.prior_M
        return float(count_M @ above_M / (count_M.sum() + LEVEL_COUNT))

    def logits(self, settings: WeightSettings) -> Floats:
        """`logits` of the values now."""
        return logits(*self.values(settings.prior_count), settings)


def logits(value_M: Floats, error_M: Floats, settings: WeightSettings) -> Floats:
    """η·v_m / max(root mean square of se, se_min): the performance part of the blend logits, (M,)."""
    scale = max(float(np.sqrt(np.mean(error_M**2))), settings.least_error)
    return np.asarray(settings.eta * value_M / scale)


def blend(logits_M: Floats, predefined_M: NDArray[np.bool_], floor: float) -> Floats:
    """softmax, then the floor for predefined members, then normalised. Last axis M; broadcasts before it."""
    return floored(softmax(logits_M), predefined_M, floor)


def floored(weights_M: Floats, predefined_M: NDArray[np.bool_], floor: float, axis: int = -1) -> Floats:
    """Weights with the floor for predefined members, normalised; `axis` is that of the members."""
    weights_M = np.where(predefined_M, np.maximum(weights_M, floor), weights_M)
    normal_M: Floats = weights_M / weights_M.sum(axis, keepdims=True)
    return normal_M


def alternatives(logits_M: Floats, settings: LawSettings) -> Floats:
    """(1 − F)·softmax(performance) + F/M: who may be asked alone in the δ share of decisions."""
    return (1 - settings.floor) * softmax(logits_M) + settings.floor / len(logits_M)


def worth(value_M: Floats, error_M: Floats, weights_M: Floats) -> Floats:
    """E(v_m − v̄)₊ / E(v̄ − v_m)₊, at most 1: what asking a member alone may gain, in what it may lose.

    v_m ~ N(value, error²), v̄ = Σ_m w_m value_m what the blend is worth: the expected improvement of Jones and others
    1998 over the expected loss. 1 of a member that is not behind, near 0 of one that surely is.

    Raises:
        ModelError: a value or an error is not finite.
    """
    if not (np.isfinite(value_M).all() and np.isfinite(error_M).all()):
        raise ModelError(
            f"members' values {value_M} and errors {error_M} must be finite; a reward that was learned is not"
        )
    ahead_M = value_M - weights_M @ value_M
    return np.array([_odds(ahead, error) for ahead, error in zip(ahead_M.tolist(), error_M.tolist(), strict=True)])


def _odds(ahead: float, error: float) -> float:
    if ahead >= 0 or error <= 0:
        return float(ahead >= 0)
    z = ahead / error
    density, below = math.exp(-z * z / 2) / math.sqrt(2 * math.pi), math.erfc(-z / math.sqrt(2)) / 2
    gain = max(0.0, density + z * below)
    return gain / (gain - z)


def softmax(logits_M: Floats) -> Floats:
    weights_M = np.exp(logits_M - logits_M.max(-1, keepdims=True))
    total: Floats = weights_M / weights_M.sum(-1, keepdims=True)
    return total
