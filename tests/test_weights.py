from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.bandits.weights import Performance, alternatives, blend, softmax, worth
from cluster.config import LawSettings, WeightSettings
from cluster.errors import ModelError

HALF_LIFE = 1.0
"""γ = 1/2, so that three outcomes can be worked by hand."""


def three_outcomes() -> Performance:
    """Two members; propensities 1/2, 1/4, 1/2, rewards 1, 0, 1.

    ρ of member 0: 2, 0, 1; of member 1: 0, 2, 1. With γ = 1/2 an outcome of age 0, 1, 2 counts 1, 1/2, 1/4 in N and
    R, and 1, 1/4, 1/16 in Q.
        N  = 2/4 + 0 + 1 = 3/2        and 0 + 2/2 + 1 = 2
        R  = 2/4 + 0 + 1 = 3/2        and 0 + 0   + 1 = 1
        Q0 = 4/16 + 0 + 1 = 5/4       and 0 + 4/4 + 1 = 2
        Q1 = Q2 = 4/16 + 0 + 1 = 5/4  and 0 + 0   + 1 = 1
    """
    performance = Performance.start(np.array([0.5, 0.2]))
    performance.observe(np.array([1.0, 0.0]), 0.5, 1.0, HALF_LIFE)
    performance.observe(np.array([0.0, 0.5]), 0.25, 0.0, HALF_LIFE)
    performance.observe(np.array([0.5, 0.5]), 0.5, 1.0, HALF_LIFE)
    return performance


def test_sums_of_three_outcomes_by_hand() -> None:
    np.testing.assert_allclose(three_outcomes().sums_5M, [[1.5, 2], [1.5, 1], [1.25, 2], [1.25, 1], [1.25, 1]])


def by_hand() -> tuple[list[Fraction], list[Fraction]]:
    """Values and squared errors of `three_outcomes`: prior count 2, prior values 1/2 and 1/5.

    Effective decisions N²/Q0 = 9/5 and 2; means R/N = 1 and 1/2 lie 1/2 and 3/10 above the priors, so these move by
    (9/5 · 1/2 + 2 · 3/10)/(9/5 + 2 + 50) = 15/538 to p = 142/269 and 613/2690.
    v  = (3/2 + 2p)/(3/2 + 2)   and (1 + 2p)/(2 + 2)
    se² = (Q2 − 2vQ1 + v²Q0 + 2·p(1 − p))/(N + 2)²:
        (5/4)(1 − v)² + 2p(1 − p) over 49/4;   1 − 2v + 2v² + 2p(1 − p) over 16
    """
    p, q = Fraction(142, 269), Fraction(613, 2690)
    v, w = (Fraction(3, 2) + 2 * p) / Fraction(7, 2), (1 + 2 * q) / 4
    square = (Fraction(5, 4) * (1 - v) ** 2 + 2 * p * (1 - p)) / Fraction(49, 4)
    return [v, w], [square, (1 - 2 * w + 2 * w**2 + 2 * q * (1 - q)) / 16]


def test_values_and_errors_of_three_outcomes_by_hand() -> None:
    value_M, error_M = three_outcomes().values(2.0)
    values, squares = by_hand()
    np.testing.assert_allclose(value_M, np.array(values, float))
    np.testing.assert_allclose(error_M**2, np.array(squares, float))


def test_one_rewarded_exploration_moves_a_value_by_one_decision() -> None:
    """π_m(a)/π(a) = 0.8/0.01: ρ = 80, N = R = 80, Q0 = 6400, so the prior's 100 decisions have ρ = 80 each.

    v = (80 + 100·80·p)/(80 + 100·80) = (1 + 100p)/101, as after one reward of a hundred and one equal decisions; and
    p = 0.07 + 0.93/51, one effective decision of 51 on the level of rewards.
    """
    performance = Performance.start(np.array([0.07]))
    performance.observe(np.array([0.8]), 0.01, 1.0, 1e9)
    np.testing.assert_allclose(performance.values(100.0)[0], [(1 + 100 * (0.07 + 0.93 / 51)) / 101])


def test_logits_divide_by_the_common_error() -> None:
    settings = WeightSettings(eta=2.0, prior_count=2.0, half_life_decisions=HALF_LIFE)
    values, squares = by_hand()
    scale = float(sum(squares) / 2) ** 0.5
    np.testing.assert_allclose(three_outcomes().logits(settings), 2 * np.array(values, float) / scale)


def test_the_least_error_bounds_the_logits() -> None:
    """After many equal outcomes the error is nearly 0; se_min = 0.01 takes its place."""
    performance = Performance.start(np.array([0.5, 0.5]))
    performance.sums_5M += 1e6
    value_M, _ = performance.values(100.0)
    np.testing.assert_allclose(performance.logits(WeightSettings(eta=1.0, prior_count=100.0)), value_M / 0.01)


def test_before_any_outcome_values_are_the_prior() -> None:
    """se² = p(1 − p)/n₀, that of n₀ Bernoulli rewards."""
    value_M, error_M = Performance.start(np.array([0.5, 0.2])).values(100.0)
    np.testing.assert_allclose(value_M, [0.5, 0.2])
    np.testing.assert_allclose(error_M**2, [0.0025, 0.0016])


def test_a_prior_of_large_error_is_worth_fewer_decisions() -> None:
    """Errors 0.1, 0.02 and 5 of ½, 0.2 and ½: ¼/0.01 = 25 decisions, 0.16/0.0004 = 400 cut to 100, and 1 at least.

    An outcome of ρ = 1 and reward 1, after which the priors move by (3/3)·(½ + 0.8 + ½)/(3 + 50), is one decision more.
    """
    performance = Performance.start(np.array([0.5, 0.2, 0.5]), np.array([0.1, 0.02, 5.0]))
    value_M, error_M = performance.values(100.0)
    np.testing.assert_allclose(value_M, [0.5, 0.2, 0.5])
    np.testing.assert_allclose(error_M, [0.1, 0.04, 0.5])
    performance.observe(np.ones(3), 1.0, 1.0, 1e12)
    shift = 1.8 / 53
    np.testing.assert_allclose(
        performance.values(100.0)[0],
        [(1 + 25 * (0.5 + shift)) / 26, (1 + 100 * (0.2 + shift)) / 101, (1.5 + shift) / 2],
    )


def test_an_outcome_counts_half_after_its_half_life() -> None:
    performance = Performance.start(np.zeros(1))
    performance.observe(np.ones(1), 1.0, 1.0, 50.0)
    for _ in range(50):
        performance.observe(np.zeros(1), 1.0, 0.0, 50.0)
    np.testing.assert_allclose(performance.sums_5M[:, 0], [0.5, 0.5, 0.25, 0.25, 0.25])


def test_values_find_the_members_true_rewards() -> None:
    """20,000 outcomes of a known law; within 4 of its own standard errors (rate 2·10⁻⁴)."""
    rng = np.random.default_rng(0)
    reward_K, member_MK = np.array([0.1, 0.5, 0.3]), np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [1 / 3] * 3])
    pi_K = member_MK.mean(0)
    performance = Performance.start(np.full(3, 0.3))
    for k in rng.choice(3, 20_000, p=pi_K):
        performance.observe(member_MK[:, k], float(pi_K[k]), float(rng.random() < reward_K[k]), 1e9)
    value_M, error_M = performance.values(1.0)
    assert (abs(value_M - member_MK @ reward_K) < 4 * error_M).all()
    assert (error_M < 0.01).all()
    assert value_M.argmax() == 1


def test_a_level_declared_too_low_does_not_hold_down_who_differs_from_the_blend() -> None:
    """Rewards of 0.77 for the member that decides nine times in ten and 0.83 for the other, both declared ½.

    Its prior counts for more decisions (Q0/N is near 5), but moves with the level: it is ahead, as it should be. The
    difference of means over 4,000 outcomes has a standard error near 0.012; the rate of a false alarm is below 10⁻⁴.
    """
    rng = np.random.default_rng(0)
    performance = Performance.start(np.array([0.5, 0.5]))
    for _ in range(4_000):
        agree, first = rng.random() < 0.8, rng.random() < 0.9
        one, two = (1.0, 1.0) if agree else (float(first), float(not first))
        propensity = 1.0 if agree else (0.9 if first else 0.1)
        mean = 0.85 if agree else (0.45 if first else 0.75)  # 0.8·0.85 + 0.2·(0.45 or 0.75) = 0.77 or 0.83
        performance.observe(np.array([one, two]), propensity, float(rng.random() < mean), 1e9)
    value_M, _ = performance.values(1_000.0)
    assert value_M[1] > value_M[0]


@given(st.lists(st.tuples(st.floats(0.05, 1), st.floats(0, 1), st.floats(0, 1)), max_size=30), st.floats(0.3, 0.6))
@settings(max_examples=50)
def test_priors_that_are_all_off_alike_change_nothing_between_equal_members(
    outcomes: list[tuple[float, float, float]], prior: float
) -> None:
    performance = Performance.start(np.array([prior, prior]))
    for propensity, share, reward in outcomes:
        performance.observe(np.full(2, share), propensity, reward, 100.0)
    value_M, error_M = performance.values(50.0)
    assert value_M[0] == value_M[1]
    assert 0 <= value_M[0] <= 1
    assert np.isfinite(error_M).all()


@pytest.mark.parametrize("propensity", [0.0, -0.1, float("nan")])
def test_a_logged_propensity_must_be_positive(propensity: float) -> None:
    with pytest.raises(ModelError, match="must be above 0"):
        Performance.start(np.zeros(1)).observe(np.ones(1), propensity, 1.0, 1.0)


def test_blend_by_hand() -> None:
    """softmax(ln 1, ln 2, ln 7) = 0.1, 0.2, 0.7; a floor of 0.3 for the first lifts it, then all over 1.2."""
    logits_M = np.log([1.0, 2.0, 7.0])
    np.testing.assert_allclose(softmax(logits_M), [0.1, 0.2, 0.7])
    found = blend(logits_M, np.array([True, False, False]), 0.3)
    np.testing.assert_allclose(found, np.array([0.3, 0.2, 0.7]) / 1.2)


def test_blend_weights_items_each_by_themselves() -> None:
    logits_KM = np.log([[1.0, 3.0], [3.0, 1.0]])
    np.testing.assert_allclose(blend(logits_KM, np.zeros(2, np.bool_), 0.0), [[0.25, 0.75], [0.75, 0.25]])


def test_alternatives_by_hand() -> None:
    """F = 0.3 over three: 0.7·(0.1, 0.2, 0.7) + 0.1."""
    found = alternatives(np.log([1.0, 2.0, 7.0]), LawSettings(floor=0.3))
    np.testing.assert_allclose(found, [0.17, 0.24, 0.59])


def test_worth_by_hand() -> None:
    """v̄ = 0.5. Level with it: 1. An error of 0.1 behind by one: φ(1) − Φ(−1) = 0.24197 − 0.15866 = 0.08331 errors may
    be gained, 1 + 0.08331 lost. Nothing is gained where the value is certain, or forty errors behind."""
    found = worth(
        np.array([0.5, 0.4, 0.4, 0.1, 0.9]), np.array([0.1, 0.1, 0.0, 0.01, 0.1]), np.array([1.0, 0, 0, 0, 0])
    )
    np.testing.assert_allclose(found, [1, 0.08331 / 1.08331, 0, 0, 1], atol=1e-5)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_worth_of_what_is_not_finite_is_refused(number: float) -> None:
    whole, broken = np.array([0.5, 0.4]), np.array([0.5, number])
    for value_M, error_M in ((whole, broken), (broken, whole)):
        with pytest.raises(ModelError, match="must be finite"):
            worth(value_M, error_M, np.array([1.0, 0.0]))


def test_a_prior_count_below_one_is_one() -> None:
    """se² = ½·½/1, as of one reward."""
    _, error_M = Performance.start(np.array([0.5]), np.array([0.1])).values(0.5)
    np.testing.assert_allclose(error_M**2, [0.25])


@given(st.floats(0.01, 1), st.floats(0, 1))
def test_worth_is_the_expected_gain_in_the_expected_loss(error: float, behind: float) -> None:
    """By numerical integration of the normal density."""
    grid = np.linspace(-12, 12, 200_001)
    ahead, density = error * grid - behind, np.exp(-grid * grid / 2)
    expected = (np.maximum(ahead, 0) @ density) / (np.maximum(-ahead, 0) @ density)
    found = worth(np.array([0.0, -behind]), np.array([0.1, error]), np.array([1.0, 0.0]))
    assert found[1] == pytest.approx(expected, rel=1e-5, abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12), st.floats(0, 1))
def test_weights_are_a_distribution(logits: list[float], floor: float) -> None:
    logits_M = np.array(logits)
    predefined_M = np.arange(len(logits)) % 2 == 0
    for found in (blend(logits_M, predefined_M, floor), alternatives(logits_M, LawSettings(floor=floor))):
        assert found.sum() == pytest.approx(1)
        assert (found >= 0).all()
    assert (alternatives(logits_M, LawSettings(floor=floor)) >= floor / len(logits) - 1e-12).all()
