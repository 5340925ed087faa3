"""The evidence for a change: by hand, by brute force, and its error rate over a year of looks."""

import numpy as np
import pytest
from scipy import stats

from tune.drift.alarm import SIZES_L, YEAR_S, Evidence


def test_two_looks_by_hand() -> None:
    """Two looks of one signal, each start weighing half a year: the mean over λ of ½·e₁e₂ + ½·e₂."""
    evidence = Evidence(1)
    grown = np.exp(SIZES_L * 1.5 - SIZES_L**2 / 2), np.exp(SIZES_L * -0.5 - SIZES_L**2 / 2)
    assert evidence.look(np.array([1.5]), np.zeros(1), YEAR_S / 2) == pytest.approx(0.5 * grown[0].mean(), rel=1e-2)
    expected = (0.5 * grown[0] * grown[1] + 0.5 * grown[1]).mean()
    assert evidence.look(np.array([-0.5]), np.zeros(1), YEAR_S / 2) == pytest.approx(expected, rel=1e-2)


def test_since_is_where_brute_force_puts_it() -> None:
    """The greatest of the sums over signals and sizes of the evidence from each start on."""
    rng = np.random.default_rng(4)
    z_TS = rng.standard_normal((60, 2))
    z_TS[40:, 1] += 2.0
    evidence = Evidence(2)
    for z_S in z_TS:
        level_S = evidence.look(z_S, np.zeros(2), 1_000.0)
    by_start = []
    for start in range(60):
        grown_SL = sum(np.outer(z_S, SIZES_L) - SIZES_L**2 / 2 for z_S in z_TS[start:])
        by_start.append(float(np.exp(grown_SL).sum()))
    found = evidence.since()
    assert found.look == int(np.argmax(by_start))
    assert found.first <= 40 <= found.last
    inside = sum(by_start[found.first : found.last + 1])
    assert inside >= 0.95 * sum(by_start)
    assert level_S[1] > 0.99 * level_S.sum()


@pytest.mark.parametrize("looks", [52, 700])
def test_false_alarms_in_a_year_are_as_rare_as_was_said(looks: int) -> None:
    """Normal looks without a change, a year of them, once a week or twice a day: at most 5 % of 400 years alarm.

    A detector at the bound would have more than 33 alarms with a probability of 0.001.
    """
    rng = np.random.default_rng(looks)
    alarms = 0
    for _ in range(400):
        evidence = Evidence(2)
        alarms += any(
            evidence.look(z_S, np.zeros(2), YEAR_S / looks).sum() >= 20 for z_S in rng.standard_normal((looks, 2))
        )
    assert alarms <= stats.binom.isf(0.001, 400, 0.05)
    assert alarms > 0  # it is not that nothing ever alarms


def test_a_change_is_told_soon_whatever_was_before() -> None:
    """A shift of one standard deviation after half a year is told within 40 looks in 19 of 20 years at least."""
    rng = np.random.default_rng(9)
    told = 0
    for _ in range(60):
        evidence, z_TS = Evidence(4), rng.standard_normal((240, 4))
        z_TS[200:, 2] += 1.0
        levels = [evidence.look(z_S, np.zeros(4), YEAR_S / 400).sum() for z_S in z_TS]
        told += max(levels[200:]) >= 20 > max(levels[:200])
    assert told >= 54


def test_rare_rewards_are_allowed_for() -> None:
    """Looks of 100 users of whom one in 100 is rewarded: z is far from normal, and E exp(λz − ψ(λ)) <= 1 all the same.

    The expectation over the binomial is a sum, hence exact; without the allowance it is above 1.
    """
    count = np.arange(101)
    chance = stats.binom.pmf(count, 100, 0.01)
    error = np.sqrt(100 * 0.01 * 0.99)
    by_count = np.zeros((2, 101))
    for kind, largest in enumerate((0.99 / error, 0.0)):
        for k in count:
            evidence = Evidence(1)
            by_count[kind, k] = evidence.look(np.array([(k - 1) / error]), np.array([largest]), YEAR_S).sum()
    fair, normal = by_count @ chance
    assert fair <= 1
    assert normal > 1.1
