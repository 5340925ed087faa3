"""The value of a policy that fills slates, slot by slot.

Item-position model (Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay & Wen 2018, "Offline evaluation of ranking
policies with click models"): what an item earns depends on it and its position, not on its neighbours. Then every
position is a log of its own, and a slate is worth the sum. The propensities are those of the slot given the slots
before it, and the policy's must be so too; its earlier slots are then taken to be as logged, which is exact where slots
are filled independently of one another.

Shapes: N events (a filled slot each), K candidates (padded), U users.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats
from cluster.errors import EvidenceError
from tune.log import Log
from tune.offpolicy.estimate import Estimate, beside, estimate
from tune.offpolicy.intervals import Interval, studentised
from tune.offpolicy.terms import Method
from tune.offpolicy.totals import Sums, Totals


@dataclass(frozen=True)
class Slots:
    """positions: those that the log fills, ascending; values: reward per filled slot of each; shares: of the slates
    that fill it, where the position filled most often counts as every slate; slate: reward per slate."""

    positions: tuple[int, ...]
    values: tuple[Estimate, ...]
    shares: tuple[float, ...]
    slate: Interval


def slots(
    method: Method,
    log: Log,
    policy_NK: Floats,
    q_NK: Floats | None = None,
    *,
    alpha: float = 0.05,
    resamples: int = 1_000,
    seed: int = 0,
) -> Slots:
    """Value by position, and their sum per slate with an interval by user (bootstrap).

    Raises:
        EvidenceError: the log does not say positions, or as `tune.estimators.evaluate` does.
    """
    if log.position_N is None:
        raise EvidenceError("this log has no position in every event; map the column that holds it, or use evaluate")
    positions = np.unique(log.position_N)
    values, found, counts = [], [], []
    for position in positions:
        rows = np.flatnonzero(log.position_N == position)
        totals = Totals([method])
        totals.add(log.user_N[rows], log.take(rows), policy_NK[rows], None if q_NK is None else q_NK[rows])
        values.append(estimate(totals, method, alpha=alpha, resamples=resamples, seed=seed))
        found.append([totals.sums(method, values[-1].parameter), *beside(totals, method)])
        counts.append(len(rows))
    shares = np.array(counts) / max(counts)
    whole = [_slate(list(sums), shares, log.users, alpha, resamples, seed) for sums in zip(*found, strict=True)]
    slate = Interval(whole[0].value, min(one.low for one in whole), max(one.high for one in whole))
    return Slots(tuple(positions.tolist()), tuple(values), tuple(shares.tolist()), slate)


def _slate(sums: list[Sums], shares: Floats, users: int, alpha: float, resamples: int, seed: int) -> Interval:
    """Σ share · value; its linear part by user adds up those of the positions."""
    value = float(shares @ [each.value for each in sums])
    if not np.isfinite(value):
        return Interval(value, 0.0, float(shares.sum()))
    linear_U = np.zeros(users)
    for share, each in zip(shares, sums, strict=True):
        linear_U[: len(each.above_U)] += share * (each.above_U - each.value * each.below_U) / each.below_U.sum() * users
    most = float(shares.sum())
    scaled = studentised((linear_U + value) / most, np.ones(users), alpha, resamples, seed)
    return Interval(value, most * scaled.low, most * scaled.high)
