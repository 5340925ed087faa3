from dataclasses import replace

import numpy as np
import pytest

from actors.features.features import Floats
from cluster.errors import EvidenceError
from cluster.statistics import bootstrap_by_user
from tune.estimators import METHODS, Method, evaluate, terms
from tune.log import Log


def make(action: list[int], reward: list[float], propensity: list[float] | None, user: list[int], k: int = 2) -> Log:
    n = len(action)
    given = None if propensity is None else np.array(propensity)
    return Log(np.array(action), np.array(reward), given, np.array(user), np.ones((n, k), dtype=bool))


LOG = make([0, 1, 0, 1], [1.0, 0.0, 0.0, 1.0], [0.5, 0.5, 0.25, 0.8], [0, 0, 1, 2])
POLICY = np.array([[1.0, 0.0], [0.5, 0.5], [0.2, 0.8], [0.6, 0.4]])
Q = np.array([[0.8, 0.2], [0.4, 0.4], [0.1, 0.9], [0.5, 0.5]])


def test_values_worked_by_hand() -> None:
    """ρ = 1/.5, .5/.5, .2/.25, .4/.8 = 2, 1, 0.8, 0.5."""
    assert evaluate("ips", LOG, POLICY).value == pytest.approx((2 + 0 + 0 + 0.5) / 4)
    assert evaluate("snips", LOG, POLICY).value == pytest.approx(2.5 / 4.3)
    # Σπq = .8, .4, .02 + .72, .3 + .2
    assert evaluate("dm", LOG, POLICY, Q).value == pytest.approx((0.8 + 0.4 + 0.74 + 0.5) / 4)
    # + ρ(r − q) = 2(.2), 1(−.4), .8(−.1), .5(.5)
    assert evaluate("dr", LOG, POLICY, Q).value == pytest.approx((2.44 + 0.4 - 0.4 - 0.08 + 0.25) / 4)


def test_tuned_values_worked_by_hand() -> None:
    """ρ = 2, 1, 0.8, 0.5; residuals 0.2, −0.4, −0.1, 0.5; direct 2.44 in sum. Clipped at 0.9: w = 0.9, 0.9, 0.8, 0.5;
    switched at 0.9: 0, 0, 0.8, 0.5; shrunk with λ = 2: ρ·2/(ρ² + 2) = 4/6, 2/3, 1.6/2.64, 1/2.25."""
    clipped, switched, shrunk = (
        evaluate(method, LOG, POLICY, Q, parameter=parameter)
        for method, parameter in (("clipped_ips", 0.9), ("switch_dr", 0.9), ("dros", 2.0))
    )
    assert clipped.value == pytest.approx((0.9 + 0.5) / 4)
    assert switched.value == pytest.approx((2.44 - 0.08 + 0.25) / 4)
    corrections = 4 / 6 * 0.2 - 2 / 3 * 0.4 - 1.6 / 2.64 * 0.1 + 1 / 2.25 * 0.5
    assert shrunk.value == pytest.approx((2.44 + corrections) / 4)
    assert clipped.bias == pytest.approx((1.4 - 2.5) / 4)
    assert shrunk.bias == pytest.approx(shrunk.value - (2.44 + 0.4 - 0.4 - 0.08 + 0.25) / 4)
    assert clipped.effective_events == pytest.approx(3.1**2 / (0.81 + 0.81 + 0.64 + 0.25))
    assert not clipped.chosen
    for method, ends in (("clipped_ips", "ips"), ("switch_dr", "dr"), ("dros", "dr")):
        whole = evaluate(method, LOG, POLICY, Q, parameter=np.inf)
        assert whole.value == pytest.approx(evaluate(ends, LOG, POLICY, Q).value)
    for method in ("switch_dr", "dros"):
        assert evaluate(method, LOG, POLICY, Q, parameter=0.0).value == pytest.approx(0.61)


def test_a_biased_estimate_takes_in_the_unbiased_one() -> None:
    log, policy, q, _ = simulated(np.random.default_rng(8), 150)
    for method, other in (("clipped_ips", "ips"), ("switch_dr", "dr"), ("dros", "dr"), ("dm", "dr")):
        for interval in ("bootstrap", "sequence"):
            found, plain = (evaluate(each, log, policy, q, interval=interval) for each in (method, other))
            assert found.low <= plain.low <= plain.high <= found.high


def test_what_an_estimate_rests_on() -> None:
    found = evaluate("ips", LOG, POLICY)
    assert (found.events, found.users) == (4, 3)
    assert found.effective_events == pytest.approx(4.3**2 / (4 + 1 + 0.64 + 0.25))
    assert found.unsupported_share == 0.0  # mean ρ is 1.075
    narrow = np.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.8], [0.6, 0.4]])
    assert evaluate("ips", LOG, narrow).unsupported_share == pytest.approx(1 - 1.3 / 4)
    assert evaluate("dm", LOG, POLICY, Q).model_based
    assert not evaluate("dr", LOG, POLICY, Q).model_based


def test_the_bootstrap_agrees_with_a_loop() -> None:
    """Every resample of 3 users, all 27 of them, against many drawn ones."""
    above, below = np.array([2.0, 0.0, 0.5]), np.array([2.0, 1.0, 1.0])
    every = [above[[i, j, k]].sum() / below[[i, j, k]].sum() for i in range(3) for j in range(3) for k in range(3)]
    drawn = bootstrap_by_user(above[:, None], below[:, None], 40_000, 1)[:, 0]
    assert drawn.mean() == pytest.approx(np.mean(every), abs=4 * np.std(every) / 200)
    assert drawn.std() == pytest.approx(np.std(every), rel=0.02)


def test_the_expectation_of_ips_and_dr_is_the_value_by_brute_force() -> None:
    """One context, three items, every possible log of one event weighted by its probability."""
    p, policy, mean = np.array([0.2, 0.5, 0.3]), np.array([[0.1, 0.2, 0.7]]), np.array([0.9, 0.1, 0.4])
    q = np.array([[0.3, 0.6, 0.2]])
    expected = {"ips": 0.0, "dr": 0.0}
    for action in range(3):
        for reward in (0.0, 1.0):
            log = make([action], [reward], [p[action]], [0], k=3)
            chance = p[action] * (mean[action] if reward else 1 - mean[action])
            expected["ips"] += chance * terms("ips", log, policy).above_N[0]
            expected["dr"] += chance * terms("dr", log, policy, q).above_N[0]
    truth = float(policy[0] @ mean)
    assert expected == pytest.approx({"ips": truth, "dr": truth})


def simulated(rng: np.random.Generator, users: int) -> tuple[Log, Floats, Floats, float]:
    """Users with their own click rates, five events each; the true value is exact."""
    n, k = users * 5, 4
    user_N = np.repeat(np.arange(users), 5)
    mean_K = np.array([0.1, 0.2, 0.3, 0.4])
    shift_N = rng.uniform(-0.1, 0.1, users)[user_N]
    p_NK = rng.dirichlet(np.full(k, 3.0), n) * 0.8 + 0.05
    policy_NK = rng.dirichlet(np.ones(k), n)
    action_N = (rng.random((n, 1)) > np.cumsum(p_NK, 1)).sum(1)
    reward_N = (rng.random(n) < mean_K[action_N] + shift_N).astype(float)
    rows = np.arange(n)
    log = Log(action_N, reward_N, p_NK[rows, action_N], user_N, np.ones((n, k), dtype=bool))
    return log, policy_NK, np.broadcast_to(mean_K, (n, k)), 0.25


@pytest.mark.parametrize("method", ["ips", "snips", "dr"])
def test_intervals_cover_the_truth(method: Method) -> None:
    """400 logs of 200 users. At 95 % coverage the number of misses exceeds 34 with probability 0.002
    (binomial), and is below 8 with 0.001; the policy's own value varies little around 0.25."""
    rng = np.random.default_rng(5)
    misses = 0
    for _ in range(400):
        log, policy, q, truth = simulated(rng, 200)
        found = evaluate(method, log, policy, q, resamples=300)
        misses += not found.low <= truth <= found.high
    assert 6 <= misses <= 36


def test_doubly_robust_is_narrower_than_ips() -> None:
    log, policy, q, _ = simulated(np.random.default_rng(1), 400)
    log = replace(log, reward_N=1 - log.reward_N)
    ips, dr = evaluate("ips", log, policy), evaluate("dr", log, policy, 1 - q)
    assert dr.high - dr.low < 0.8 * (ips.high - ips.low)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (POLICY[:2], "shape"),
        (np.where(POLICY == 0.8, np.nan, POLICY), "event 2: policy has NaN"),
        (POLICY * 0.5, "event 0: policy's probabilities sum to, 0.5, not to 1"),
        (np.array([[1.0, 0.0], [1.5, -0.5], [0.2, 0.8], [0.6, 0.4]]), "event 1: policy has probability below"),
    ],
)
def test_a_policy_that_is_no_distribution_is_refused(policy: Floats, message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        evaluate("ips", LOG, policy)


def test_missing_propensities_are_not_invented() -> None:
    without = LOG.without_propensities()
    for method in METHODS:
        if method != "dm":
            with pytest.raises(EvidenceError, match=f"{method} needs the propensity .* map the column that holds them"):
                evaluate(method, without, POLICY, Q)
    assert evaluate("dm", without, POLICY, Q).value == pytest.approx(0.61)


def test_parameters_are_asked_for_and_refused() -> None:
    with pytest.raises(EvidenceError, match="clipped_ips needs a parameter of 0 or more, found None"):
        terms("clipped_ips", LOG, POLICY)
    with pytest.raises(EvidenceError, match="dros needs a parameter of 0 or more, found -1"):
        evaluate("dros", LOG, POLICY, Q, parameter=-1.0)
    with pytest.raises(EvidenceError, match="snips has no parameter, found 3; leave it out"):
        evaluate("snips", LOG, POLICY, parameter=3.0)
    with pytest.raises(EvidenceError, match="there is no estimator 'magic'; choose ips, clipped_ips"):
        terms("magic", LOG, POLICY)  # type: ignore[arg-type]
    for method in ("ips", "snips", "dm", "dr"):
        with pytest.raises(EvidenceError, match=f"{method} has no bound .* use clipped_ips, switch_dr or dros"):
            evaluate(method, LOG, POLICY, Q, interval="bernstein")


def test_rewards_and_models_outside_the_unit_interval_are_named() -> None:
    with pytest.raises(EvidenceError, match=r"event 1: the scaled reward is not in \[0, 1\] \(1 such\); declare"):
        evaluate("ips", replace(LOG, reward_N=np.array([0.0, 1.5, 0.0, 1.0])), POLICY)
    with pytest.raises(EvidenceError, match=r"event 2: the reward model is not finite or not in \[0, 1\] \(1 such\)"):
        evaluate("dr", LOG, POLICY, np.where(Q == 0.9, 1.2, Q))


def test_an_estimate_that_the_log_cannot_carry_says_why() -> None:
    """2,000 users of one event, three actions; the log takes the first two half of the time each."""
    rng, n = np.random.default_rng(4), 2_000
    action = rng.integers(0, 2, n)
    log = Log(action, rng.random(n), np.full(n, 0.5), np.arange(n), np.ones((n, 3), bool))
    good = evaluate("ips", log, np.tile([0.3, 0.7, 0.0], (n, 1)))
    assert (good.supported, good.note) == (True, "")
    absent = evaluate("ips", log, np.tile([0.2, 0.4, 0.4], (n, 1)))
    assert not absent.supported
    assert absent.note == "the log lacks 40% of what the policy does"
    assert absent.unsupported_share == pytest.approx(0.4, abs=0.02)
    wrong = evaluate("ips", replace(log, propensity_N=np.full(n, 0.25)), np.tile([0.3, 0.7, 0.0], (n, 1)))
    assert wrong.note.startswith("weights average 2.0")
    assert wrong.note.endswith("propensities are not those of the policy that logged")
    few = evaluate("ips", LOG, POLICY)
    assert few.note == "it rests on the weight of 3 events; its spread is that of 2 users"
    one = np.tile([0.5, 0.5, 0.0], (n, 1))
    one[:5], tiny = [1.0, 0.0, 0.0], np.where(np.arange(n) < 5, 0.001, 0.5)
    heavy = evaluate("ips", replace(log, action_N=np.zeros(n, np.int64), propensity_N=tiny), one)
    assert "1 % of users hold 7" in heavy.note
    assert heavy.tail == pytest.approx((5 * 1_000 + 15) / (5 * 1_000 + 1_995))
    alone = evaluate("dr", LOG, np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), Q)
    assert alone.value == pytest.approx((0.2 + 0.4 + 0.9 + 0.5) / 4)
    assert alone.note.endswith("the value is the reward model's alone")


def test_no_overlap_no_events_and_no_model_are_errors() -> None:
    never = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    for method in ("ips", "snips", "clipped_ips"):
        found = evaluate(method, LOG, never)
        assert np.isnan(found.value)
        assert (found.low, found.high, found.supported) == (0.0, 1.0, False)
        assert found.note == "no support: the policy takes none of the 4 logged actions; no value is claimed"
    with pytest.raises(EvidenceError, match="no event"):
        evaluate("ips", LOG.take(np.empty(0, np.int64)), np.empty((0, 2)))
    with pytest.raises(EvidenceError, match="reward model of shape"):
        evaluate("dm", LOG, POLICY, Q[:, :1])
    with pytest.raises(EvidenceError, match="not finite"):
        evaluate("dr", LOG, POLICY, np.full((4, 2), np.nan))
