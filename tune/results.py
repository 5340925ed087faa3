"""What traffic came to: reward per 1,000 decisions with intervals by user, differences, learning curves.

Every policy answered the same situations, and the same choice earned the same reward, so differences are paired.

Shapes: N decisions, in order; U users; T points of a curve; M members.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from actors.features.features import Floats, Ints
from cluster.statistics import ratio_error

LEVEL = 0.95
POINTS = 60


@dataclass(frozen=True)
class Played:
    """What a policy chose in N situations and what it earned, in units of the reward.

    expected_N: the world's mean reward of each choice.
    """

    item_N: Sequence[str]
    reward_N: Floats
    expected_N: Floats
    propensity_N: Floats

    def __len__(self) -> int:
        return len(self.reward_N)


@dataclass(frozen=True)
class Figure:
    """A mean per 1,000 decisions with its 95 % interval; None where a single user allows no interval."""

    per_1000: float
    low: float | None
    high: float | None

    @property
    def interval(self) -> list[float | None]:
        return [self.low, self.high]


def figure(value_N: Floats, user_N: Ints) -> Figure:
    """Mean of N values per 1,000, with Student's interval over users (delta method for a ratio of totals)."""
    value, error, users = _mean(value_N, user_N)
    if not math.isfinite(error):
        return Figure(1_000 * value, None, None)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, users - 1)) * error
    return Figure(1_000 * value, 1_000 * (value - reach), 1_000 * (value + reach))


def _mean(value_N: Floats, user_N: Ints) -> tuple[float, float, int]:
    counts_U: Floats = np.bincount(user_N).astype(np.float64)
    totals_U: Floats = np.bincount(user_N, weights=value_N).astype(np.float64)
    seen_U = counts_U > 0
    value, error = ratio_error(totals_U[seen_U], counts_U[seen_U])
    return value, error, int(seen_U.sum())


def curve(value_N: Floats, user_N: Ints, points: int = POINTS) -> dict[str, list[Any]]:
    """The mean of the first n values per 1,000, with its interval, at T values of n up to N."""
    ends = np.unique(np.linspace(0, len(value_N), points + 1).astype(int)[1:])
    found = [figure(value_N[:end], user_N[:end]) for end in ends if end]
    return {
        "decisions": [int(end) for end in ends if end],
        "mean": [f.per_1000 for f in found],
        "low": [f.low for f in found],
        "high": [f.high for f in found],
    }


def summary(policies: Mapping[str, Played], user_N: Ints) -> dict[str, dict[str, Any]]:
    """Each policy's reward, realised and expected, as in the answer of `tune.drive`."""
    return {name: _figures(played.reward_N, played.expected_N, user_N) for name, played in policies.items()}


def differences(policies: Mapping[str, Played], user_N: Ints, of: str = "ensemble") -> dict[str, dict[str, Any]]:
    """The policy `of` minus each other one, paired by situation."""
    ours = policies[of]
    return {
        name: _figures(ours.reward_N - played.reward_N, ours.expected_N - played.expected_N, user_N)
        for name, played in policies.items()
        if name != of
    }


def _figures(reward_N: Floats, expected_N: Floats, user_N: Ints) -> dict[str, Any]:
    realised, expected = figure(reward_N, user_N), figure(expected_N, user_N)
    return {
        "reward_per_1000": realised.per_1000,
        "interval": realised.interval,
        "expected_per_1000": expected.per_1000,
        "expected_interval": expected.interval,
    }


def generated_weight(models: Sequence[Mapping[str, float]], generated: Sequence[str]) -> float:
    """The share of weight on generated members, mean over decisions; 0 without any."""
    return sum(share.get(name, 0.0) for share in models for name in generated) / max(len(models), 1)


def weights_over_time(
    models: Sequence[Mapping[str, float]], seconds_N: Floats, names: Sequence[str], points: int = POINTS
) -> dict[str, Any]:
    """The members' mean weights in the decisions of each of T equal spans of time; empty spans are left out."""
    weight_NM = np.array([[share.get(name, 0.0) for name in names] for share in models]).reshape(-1, len(names))
    edges = np.linspace(0, float(seconds_N.max(initial=0.0)) or 1.0, points + 1)
    span_N = np.clip(np.searchsorted(edges, seconds_N, side="right") - 1, 0, points - 1)
    spans = np.unique(span_N)
    middles = (edges[:-1] + edges[1:]) / 2
    return {
        "seconds": [float(middles[span]) for span in spans],
        "names": list(names),
        "weights": [weight_NM[span_N == span].mean(0).tolist() for span in spans],
    }
