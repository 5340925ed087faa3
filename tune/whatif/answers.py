"""What a log says of one policy by one estimator: its value, and how far that is from what the log itself earned.

Shapes: U users, R resamples.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from cluster.errors import ConfigError
from cluster.statistics import ratio_error, sequence_half_width, tuned_rho
from tune.offpolicy import intervals
from tune.offpolicy.estimate import Estimate, Kind, beside, estimate
from tune.offpolicy.intervals import TUNED_AT, Interval
from tune.offpolicy.terms import Method
from tune.offpolicy.totals import Sums, Totals


@dataclass(frozen=True)
class Answer:
    """One row of the table, in the units of the reward.

    estimator: a method, or "on-policy" for the log's own mean. group: whose events, "" for all. learns: whether the
    policy learned on the way. value is NaN where nothing is claimed.
    difference: value less the log's own mean reward, with its interval paired by user; NaN where it has none.
    The rest is as in tune.offpolicy.estimate; parameter is None where the method has none.
    """

    policy: str
    estimator: str
    group: str
    learns: bool
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    events: int
    users: int
    effective_events: float
    tail: float
    unsupported_share: float
    parameter: float | None
    supported: bool
    note: str

    @property
    def label(self) -> str:
        return f"{self.policy} · {self.group}" if self.group else self.policy

    def scaled(self, low: float, high: float) -> "Answer":
        """In units of the reward kind, whose range this is, from a reward in [0, 1]."""
        span = high - low
        values = {name: low + span * getattr(self, name) for name in ("value", "low", "high")}
        gaps = {name: span * getattr(self, name) for name in ("difference", "difference_low", "difference_high")}
        return replace(self, **values, **gaps)


OUTSIDE = "its value lies outside {where}: read the bounds, or take another estimator"


def model_alone(missing: int, events: int) -> str:
    """What a value means that is the reward model's because so many of the events have no propensity."""
    alone = "the reward model's own error is not in this interval"
    if missing == events:
        return f"no propensities: {alone}"
    return (
        f"{missing:,} of {events:,} events have no propensity, hence {alone}; leave those events out, or map the "
        "column that holds them"
    )


@dataclass(frozen=True)
class Bounds:
    """What every interval of an answer is: its kind, error, resamples of the bootstrap and their seed.

    Raises ConfigError for an error rate that is none.
    """

    interval: Kind = "bootstrap"
    alpha: float = 0.05
    resamples: int = 1_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ConfigError(f"--alpha {self.alpha:g}: an error rate is above 0 and below 1, such as 0.05")


def answer(totals: Totals, method: Method, bounds: Bounds) -> Answer:
    """Value and difference in scaled reward; policy, group, learns and remarks are still to be named.

    Raises EvidenceError as `tune.offpolicy.estimate.estimate` does.
    """
    found = estimate(
        totals, method, interval=bounds.interval, alpha=bounds.alpha, resamples=bounds.resamples, seed=bounds.seed
    )
    gap = difference(totals, found, bounds)
    outside = _outside(found)
    return Answer(
        policy="",
        estimator=method,
        group="",
        learns=False,
        value=found.value,
        low=found.low,
        high=found.high,
        difference=gap.value,
        difference_low=gap.low,
        difference_high=gap.high,
        events=found.events,
        users=found.users,
        effective_events=found.effective_events,
        tail=found.tail,
        unsupported_share=found.unsupported_share,
        parameter=found.parameter,
        supported=found.supported and not outside,
        note="; ".join(filter(None, (found.note, outside))),
    )


def _outside(found: Estimate) -> str:
    """Weights that do not add up to their number, and corrections of a model, may carry a value where no mean can be;
    bounds end there."""
    if not 0 <= found.value <= 1 and math.isfinite(found.value):
        return OUTSIDE.format(where="the range of rewards")
    return OUTSIDE.format(where="its interval") if found.value < found.low or found.value > found.high else ""


def difference(totals: Totals, found: Estimate, bounds: Bounds) -> Interval:
    """The estimate less the log's mean reward: both are sums over the same users, so that what a user's luck adds to
    both cancels. As in tune.offpolicy.estimate, the interval takes in that of the unbiased estimate beside it.
    Bernstein and Cressie-Read bound values, not differences: there it has none.
    """
    log = totals.logged()
    if found.interval in ("bernstein", "likelihood") or not math.isfinite(found.value):
        return Interval(found.value - log.value, math.nan, math.nan)
    every = (totals.sums(found.method, found.parameter), *beside(totals, found.method))
    each = [_gap(sums, log, bounds) for sums in every]
    return Interval(each[0].value, min(one.low for one in each), max(one.high for one in each))


def _gap(sums: Sums, log: Sums, bounds: Bounds) -> Interval:
    value, mean = sums.value, log.value
    if bounds.interval == "sequence":
        influence_U = (sums.above_U - value * sums.below_U) / sums.below_U.mean()
        influence_U = influence_U - (log.above_U - mean * log.below_U) / log.below_U.mean()
        users = len(influence_U)
        deviation = ratio_error(influence_U, np.ones(users))[1] * math.sqrt(users)
        half = float(sequence_half_width(users, deviation, bounds.alpha, tuned_rho(TUNED_AT, bounds.alpha)))
        return Interval(value - mean, value - mean - half, value - mean + half)
    return intervals.paired(sums, log, bounds.alpha, bounds.resamples, bounds.seed)


def on_policy(totals: Totals, bounds: Bounds) -> Answer:
    """What the log itself earned, in scaled reward."""
    sums = totals.logged()
    if bounds.interval == "sequence":
        found = intervals.sequence(sums, bounds.alpha)
    else:
        found = intervals.bootstrap(sums, bounds.alpha, bounds.resamples, bounds.seed)
    events, users = int(sums.count_U.sum()), len(sums.count_U)
    gap = (0.0, 0.0, 0.0)
    return Answer("logged", "on-policy", "", False, *found, *gap, events, users, events, 0.0, 0.0, None, True, "")
