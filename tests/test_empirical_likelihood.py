"""Cressie-Read bounds against the optimisation problem that they solve, and their coverage."""

import numpy as np
import pytest
from scipy import stats

from cluster.errors import EvidenceError
from tune.log import Log
from tune.offpolicy.empirical_likelihood import cressie_read
from tune.offpolicy.totals import Sums, Totals


def sums_of(count: np.ndarray, ratio: np.ndarray, above: np.ndarray, largest: float) -> Sums:
    return Sums("ips", None, above, count, count, ratio, ratio, 1.0, largest)


def by_search(sums: Sums, alpha: float) -> tuple[float, float]:
    """The v in [0, 1], on a fine grid, for which a signed q exists with Σq = 1, Σ q(Σρ − n) = 0, Σ q(Σρr − vn) = 0 and
    Σ(Nq − 1)² at most its least over both users that may be added plus F. The first two leave q = base + free·x; over a
    ball of x the third ranges over base·z ± radius·|freeᵀz|, z = Σρr − vn, and must hold 0."""
    each, users = sums.count_U.mean(), len(sums.count_U)
    size, floor, problems = users + 1, np.inf, []
    for weight in (0.0, sums.largest):
        a = np.vstack([np.ones(size), np.append(sums.ratio_U - sums.count_U, each * (weight - 1))])
        base = 1 / size + np.linalg.lstsq(a, np.array([1.0, 0.0]) - a @ np.full(size, 1 / size), rcond=None)[0]
        floor = min(floor, ((base * size - 1) ** 2).sum())
        problems += [(base, np.linalg.svd(a)[2][2:].T, weight * reward) for reward in (0.0, 1.0)]
    budget, v_V, held_V = floor + stats.f.isf(alpha, 1, users), np.linspace(0, 1, 20_001), np.zeros(20_001, bool)
    for base, free, earned in problems:
        left = (budget - ((base * size - 1) ** 2).sum()) / size**2
        n, r = np.append(sums.count_U, each), np.append(sums.above_U, each * earned)
        z_UV = r[:, None] - n[:, None] * v_V
        held_V |= np.abs(base @ z_UV) <= np.sqrt(max(left, 0.0)) * np.linalg.norm(free.T @ z_UV, axis=0) * (left >= 0)
    return float(v_V[held_V][0]), float(v_V[held_V][-1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("varied", [False, True])
def test_bounds_solve_the_optimisation_problem(seed: int, varied: bool) -> None:
    rng = np.random.default_rng(seed)
    count = rng.integers(1, 4, 8).astype(float) if varied else np.ones(8)
    ratio = rng.gamma(2.0, 0.5, 8) * count
    sums = sums_of(count, ratio, ratio * rng.random(8), 6.0)
    found = cressie_read(sums, 0.2)
    assert (found.low, found.high) == pytest.approx(by_search(sums, 0.2), abs=1e-4)
    assert found.low <= found.value <= found.high


def test_what_the_weights_miss_may_earn_anything() -> None:
    """A policy of which half is on actions that the log never takes: 0.5 · 0.4 lies at one end, that plus 0.5 at the
    other."""
    n = 20_000
    rng = np.random.default_rng(0)
    log = Log(np.zeros(n, np.int64), (rng.random(n) < 0.4) * 1.0, np.ones(n), np.arange(n), np.ones((n, 2), bool))
    totals = Totals(["ips"])
    totals.add(log.user_N, log, np.full((n, 2), 0.5))
    found = totals.sums("ips")
    wide = cressie_read(sums_of(found.count_U, found.weight_U, found.above_U, 1e9))
    assert (wide.low, wide.high) == pytest.approx((0.2, 0.7), abs=0.02)


def test_coverage_where_clicks_are_rare() -> None:
    """300 logs of 60 users, rewards 4 %, ratios 0.1 and 5: normal intervals cover 0.80 there. At 95 % coverage more
    than 27 misses have probability 0.001 (binomial)."""
    rng = np.random.default_rng(1)
    misses = 0
    for _ in range(300):
        count = rng.integers(1, 6, 60)
        user = np.repeat(np.arange(60), count)
        heavy = rng.random(len(user)) < 0.9 / 4.9
        reward = rng.random(len(user)) < np.where(heavy, 0.08, 0.04)
        ratio = np.where(heavy, 5.0, 0.1)
        sums = [np.bincount(user, values) for values in (ratio, ratio * reward)]
        found = cressie_read(sums_of(count.astype(float), *sums, 5.0))
        truth = 0.9 / 4.9 * 5 * 0.08 + (1 - 0.9 / 4.9) * 0.1 * 0.04
        misses += not found.low <= truth <= found.high
    assert misses <= 27


def test_other_sums_are_refused() -> None:
    one = np.ones(2)
    with pytest.raises(EvidenceError, match="need the sums of ips and propensities"):
        cressie_read(Sums("ips", None, one, one, one, one, None, 1.0, 1.0))
