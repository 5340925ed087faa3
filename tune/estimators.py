"""Off-policy estimation: what a policy would have earned on a log that another policy made.

`evaluate` gives the value of one policy by one method, with its interval and what it rests on; `terms` the numbers
event by event. What the methods add up is said in tune.offpolicy.terms, what the intervals hold in
tune.offpolicy.estimate. For a log that does not fit into memory see tune.offpolicy.streaming, which adds up the same
terms block by block.

Shapes: N events, K candidates (padded), U users.
"""

import numpy as np

from actors.features.features import Floats
from tune.log import Log
from tune.offpolicy.cross_fit import RewardModel, cross_fit
from tune.offpolicy.estimate import Estimate, Kind, estimate
from tune.offpolicy.terms import METHODS, MODELLED, TUNED, Method, Terms, check_policy, terms
from tune.offpolicy.totals import Sums, Totals

__all__ = [
    "METHODS",
    "MODELLED",
    "TUNED",
    "Estimate",
    "Kind",
    "Method",
    "RewardModel",
    "Sums",
    "Terms",
    "Totals",
    "by_user",
    "check_policy",
    "cross_fit",
    "estimate",
    "evaluate",
    "terms",
]


def evaluate(
    method: Method,
    log: Log,
    policy_NK: Floats,
    q_NK: Floats | None = None,
    *,
    parameter: float | None = None,
    interval: Kind = "bootstrap",
    alpha: float = 0.05,
    resamples: int = 1_000,
    seed: int = 0,
) -> Estimate:
    """The value of a policy by one method.

    Args:
        policy_NK: the policy's probabilities of each event's candidates, 0 on padding.
        q_NK: a reward model in [0, 1] that has not seen the event's user, for dm and the doubly robust methods.
        parameter: clip, switch or shrinkage (tune.offpolicy.terms); None lets SLOPE choose it (tune.offpolicy.slope).
        interval, alpha: kind and error of the bounds (tune.offpolicy.estimate).

    Raises:
        EvidenceError: as `terms` and `estimate` do.
    """
    totals = Totals([method], {} if parameter is None else {method: parameter})
    totals.add(log.user_N, log, policy_NK, q_NK)
    return estimate(totals, method, interval=interval, alpha=alpha, resamples=resamples, seed=seed)


def by_user(log: Log, values_N: Floats) -> Floats:
    """Sums over the events of each user, (U,)."""
    sums_U: Floats = np.bincount(log.user_N, values_N, minlength=log.users).astype(np.float64)
    return sums_U
