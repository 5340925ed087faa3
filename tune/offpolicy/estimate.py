"""A value with its interval, and what it rests on.

The interval is by user: their events hang together. Clipping, switching, shrinking and reward models bring a bias that
no resampling shows, and the log that chose the parameter cannot vouch for it. So:

- *bootstrap* and *sequence* take in the interval of the unbiased estimate beside it as well (ips for clipped_ips, dr
  for switch_dr, dros and dm; none for dm without propensities). A choice by the same log then costs no coverage. What
  clipping buys is a value with less error, not a narrower interval.
- *bernstein* holds at every number of users and for every distribution: what clipping left out of the policy's
  probability, 1 − mean w, may have earned anything between 0 and 1. Without a fixed parameter the bounds are the best
  of the whole grid, each at its share of alpha.
- cressie_read has bounds of its own, whatever kind is asked for.

Shapes: U users.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import special

from actors.features.features import Floats
from cluster.statistics import ratio_error
from tune.offpolicy import intervals
from tune.offpolicy.empirical_likelihood import cressie_read
from tune.offpolicy.intervals import Interval
from tune.offpolicy.slope import choose
from tune.offpolicy.terms import MODELLED, TUNED, Method
from tune.offpolicy.totals import Sums, Totals

Kind: TypeAlias = Literal["bootstrap", "bernstein", "sequence"]
"""Bootstrap by user; empirical Bernstein; a confidence sequence, which may be looked at any time."""

LEAST_EFFECTIVE = 30.0
"""Events that the weights must amount to."""
LEAST_CARRIERS = 5.0
"""Users that the spread of the value must amount to, (Σl²)²/Σl⁴ with l what each moves it by."""
MOST_TAIL = 0.5
"""Largest share of the weight that 1 % of users may hold."""
MOST_UNSUPPORTED = 0.05
"""Largest share of the policy's choices that the log may lack."""


@dataclass(frozen=True)
class Estimate:
    """Mean reward per event, scaled to [0, 1], and what it rests on.

    value: NaN where the policy takes none of the logged actions and no reward model speaks for it.
    low, high: bounds at error alpha, of the kind `interval`.
    parameter: λ, None where the method has none. chosen: whether SLOPE chose it.
    bias: this value less the unbiased one beside it, 0 where there is none.
    effective_events: (Σw)²/Σw², the number of events that the weights amount to (N for dm, and where λ is 0).
    unsupported_share: share of the policy's probability on actions that the log never takes, estimated as
        1 − mean ρ and never below 0 (0 without propensities, where it cannot be seen).
    tail: share of Σw that the heaviest 1 % of users hold.
    supported: false where `note` says that the log cannot carry the estimate.
    """

    method: Method
    value: float
    low: float
    high: float
    interval: Kind | Literal["likelihood"]
    parameter: float | None
    chosen: bool
    bias: float
    events: int
    users: int
    effective_events: float
    unsupported_share: float
    tail: float
    supported: bool
    note: str

    @property
    def model_based(self) -> bool:
        return self.method == "dm"


def estimate(
    totals: Totals,
    method: Method,
    *,
    interval: Kind = "bootstrap",
    alpha: float = 0.05,
    resamples: int = 1_000,
    seed: int = 0,
) -> Estimate:
    """The estimate of a method whose terms were added up; a parameter that was not fixed is SLOPE's choice.

    Raises:
        EvidenceError: there is no event, or a bernstein interval was asked for where values have no range.
    """
    tried = totals.parameters(method)
    chosen = len(tried) > 2
    every = [totals.sums(method, parameter) for parameter in tried] or [totals.sums(method)]
    place = -1
    if chosen:
        place = choose(np.stack([intervals.linear(each) for each in every]), np.array([each.value for each in every]))
    sums, others = every[place], beside(totals, method)
    value = sums.value if method in MODELLED or sums.weight_U.sum() > 0 else float("nan")
    faults = _faults(sums)
    if not np.isfinite(value):
        bounds = Interval(value, 0.0, 1.0)
    elif method == "cressie_read":
        bounds = cressie_read(sums, alpha)
    elif interval == "bernstein":
        bounds = _best_of([each for each in every if each.parameter != np.inf], sums, alpha)
    else:
        bounds = _taking_in([sums, *others], interval, alpha, resamples, seed)
    ratio_U = sums.count_U if sums.ratio_U is None else sums.ratio_U
    return Estimate(
        method,
        bounds.value,
        bounds.low,
        bounds.high,
        "likelihood" if method == "cressie_read" else interval,
        sums.parameter,
        chosen,
        value - others[0].value if others else 0.0,
        int(sums.count_U.sum()),
        len(sums.count_U),
        _effective(sums),
        max(0.0, 1.0 - float(ratio_U.sum() / sums.count_U.sum())),
        _tail(sums.weight_U),
        not faults,
        "; ".join(faults),
    )


def _best_of(every: list[Sums], chosen: Sums, alpha: float) -> Interval:
    each = [intervals.bernstein(sums, alpha / len(every)) for sums in every]
    return Interval(chosen.value, max(one.low for one in each), min(one.high for one in each))


def beside(totals: Totals, method: Method) -> list[Sums]:
    """The unbiased estimate from the same terms, if there is another."""
    if method in TUNED:
        return [totals.sums(method, np.inf)]
    return [totals.sums("dr")] if method == "dm" and totals.known else []


def _taking_in(found: list[Sums], kind: Kind, alpha: float, resamples: int, seed: int) -> Interval:
    each = [
        intervals.sequence(sums, alpha) if kind == "sequence" else intervals.bootstrap(sums, alpha, resamples, seed)
        for sums in found
    ]
    return Interval(each[0].value, min(one.low for one in each), max(one.high for one in each))


def _tail(weight_U: Floats) -> float:
    heaviest = max(1, len(weight_U) // 100)
    total = float(weight_U.sum())
    return float(np.partition(weight_U, -heaviest)[-heaviest:].sum()) / total if total > 0 else 0.0


def _faults(sums: Sums) -> list[str]:
    """Why the log cannot carry the estimate, in words."""
    if sums.ratio_U is None:
        return []
    if not sums.ratio_U.sum() > 0:
        spoken = "the value is the reward model's alone" if sums.method in MODELLED else "no value is claimed"
        return [f"no support: the policy takes none of the {int(sums.count_U.sum())} logged actions; {spoken}"]
    faults = []
    mean, error = ratio_error(sums.ratio_U, sums.count_U)
    reach = float(special.ndtri(0.999)) * error
    if mean + reach < 1 - MOST_UNSUPPORTED:
        faults.append(f"the log lacks {1 - mean:.0%} of what the policy does")
    if mean - reach > 1 + MOST_UNSUPPORTED:
        faults.append(f"weights average {mean:.3g}, not 1: propensities are not those of the policy that logged")
    if (effective := _effective(sums)) < LEAST_EFFECTIVE:
        faults.append(f"it rests on the weight of {effective:.0f} events")
    if sums.method != "dm" and (carriers := _carriers(sums)) < LEAST_CARRIERS:
        faults.append(f"its spread is that of {carriers:.0f} users")
    if (tail := _tail(sums.weight_U)) > MOST_TAIL and len(sums.weight_U) >= 100:
        faults.append(f"1 % of users hold {tail:.0%} of the weight")
    return faults


def _carriers(sums: Sums) -> float:
    square_U = intervals.linear(sums) ** 2
    total = float(square_U.sum())
    return total**2 / float(square_U @ square_U) if total > 0 else 0.0


def _effective(sums: Sums) -> float:
    if sums.square:
        return float(sums.weight_U.sum()) ** 2 / sums.square
    return float(sums.count_U.sum()) if sums.method in MODELLED else 0.0
