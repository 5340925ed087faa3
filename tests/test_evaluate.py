import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from actors.bandits.mixture import Mixture
from actors.bandits.posterior import gaussian
from actors.features.features import Floats
from cluster.config import DataSettings, Settings
from cluster.errors import EvidenceError
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from tests import bandit_cases
from tests.test_progressive import logged, one_at_a_time
from tune import evaluate, progressive
from tune.evaluate import Ground
from tune.groundwork import Groundwork
from tune.log import Log
from tune.offpolicy import balance
from tune.progressive import Draws
from tune.walk import Trail, walk


def ground(rng: np.random.Generator, users: list[int], items: int = 4, arms: int = 1, history: int = 64) -> Ground:
    batch, log = logged(rng, users, items, 4, arms)
    base = rng.random((len(users), 2))
    return Ground(log, batch, rng.random((len(users), items)), base, ("linear", "uniform"), history)


def mixture(rng: np.random.Generator, candidates: int, arms: int = 1) -> Mixture:
    return bandit_cases.mixture(rng, candidates, arms, 4)


@pytest.mark.parametrize("arms", [1, 4])
@pytest.mark.parametrize("history", [0, 2, 64])
@pytest.mark.parametrize("budget", [1, 2**25])
def test_values_agree_with_one_candidate_and_event_at_a_time(arms: int, history: int, budget: int) -> None:
    """g(k) = q(k) + 1[k = a](r − q(a))/p at the item of greatest posterior mean, by a plain loop."""
    rng = np.random.default_rng(arms + history)
    found, prior = ground(rng, list(rng.integers(0, 5, 60)), arms=arms, history=history), mixture(rng, 5, arms)
    log = found.log
    assert log.propensity_N is not None
    means = one_at_a_time(prior, found.batch, log, history)
    expected = np.empty((60, 5))
    for n in range(60):
        for c in range(5):
            k, a = int(np.nanargmax(means[n, :, c])), int(log.action_N[n])
            taken = (log.reward_N[n] - found.q_NK[n, a]) / log.propensity_N[n] if k == a else 0.0
            expected[n, c] = found.q_NK[n, k] + taken
    np.testing.assert_allclose(evaluate.values(prior, found, Draws(), budget), expected, atol=1e-6)
    model = replace(found, log=log.without_propensities())
    best = np.nanargmax(means, axis=1)
    share_NCK = (best[:, :, None] == np.arange(4)).astype(float)
    weight_NC = balance.ratios(log, found.batch, share_NCK)
    missed_N = log.reward_N - found.q_NK[np.arange(60), log.action_N]
    expected = np.take_along_axis(found.q_NK, best, 1) + weight_NC * missed_N[:, None]
    np.testing.assert_allclose(evaluate.values(prior, model, Draws(), budget), expected, atol=1e-6)
    np.testing.assert_array_equal(evaluate.favourites(prior, found, budget), best)


def test_thompson_values_are_the_mean_over_particles() -> None:
    """Against choices of the drawn scores, by a loop; and a mixture that does not explore is greedy."""
    rng = np.random.default_rng(3)
    found, prior = ground(rng, [0, 0, 1, 0, 1, 2]), mixture(rng, 3)
    draws = Draws(particles=7, scale=0.5, seed=2)
    value = evaluate.values(prior, found, draws)
    gains = found.gains()
    for rows, scores in progressive.scores(prior, found.batch, found.log, 64, draws, 2**25):
        for i, n in enumerate(rows):
            open_K = found.log.mask_NK[n]
            for c in range(3):
                chosen = [int(np.argmax(np.where(open_K, scores[i, :, c, p], -np.inf))) for p in range(7)]
                assert value[n, c] == pytest.approx(np.mean([gains[n, k] for k in chosen]))
    still = replace(prior, exploration=0.0)
    np.testing.assert_array_equal(evaluate.values(still, found, draws), evaluate.values(prior, found, Draws()))


def test_a_candidate_is_compared_with_the_best_predefined_model_on_its_own_users() -> None:
    rng = np.random.default_rng(4)
    users = list(np.repeat(np.arange(20), 3))
    found, prior = ground(rng, users), mixture(rng, 2)
    domain = np.zeros((20, 2), dtype=bool)
    domain[:12, 0] = domain[12:, 1] = True
    rows = evaluate.assess(prior, found, domain, Draws())
    value = evaluate.values(prior, found, Draws())
    for c, (row, inside) in enumerate(zip(rows, (slice(0, 36), slice(36, 60)), strict=True)):
        base = found.base_NM[inside].mean(0)
        assert (row.candidate, row.users, row.events) == (f"c{c}", [12, 8][c], [36, 24][c])
        assert row.baseline == ("linear", "uniform")[int(np.argmax(base))]
        assert row.baseline_value == pytest.approx(base.max())
        assert row.value == pytest.approx(value[inside, c].mean())
        by_user = (value[inside, c] - found.base_NM[inside, int(np.argmax(base))]).reshape(-1, 3).mean(1)
        expected = stats.ttest_1samp(by_user, 0).confidence_interval(0.95)  # equal counts: ratio is a mean
        assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_a_lone_user_or_none_is_the_whole_range() -> None:
    rng = np.random.default_rng(5)
    found, prior = ground(rng, [0, 0, 1]), mixture(rng, 2)
    rows = evaluate.assess(prior, found, np.array([[True, False], [False, False]]), Draws())
    assert (rows[0].low, rows[0].high, rows[0].users) == (-1.0, 1.0, 1)
    assert (rows[1].low, rows[1].high, rows[1].users, rows[1].value) == (-1.0, 1.0, 0, 0.0)


def test_domains_are_the_nearest_prototypes() -> None:
    rng = np.random.default_rng(6)
    found = ground(rng, [0, 0, 1, 2, 2, 2])
    prior = mixture(rng, 4)
    twice = replace(prior, prototypes_CH=prior.prototypes_CH[[0, 0, 1, 2]])
    domain = evaluate.domains(twice, found)
    assert domain.shape == (3, 4)
    np.testing.assert_array_equal(domain[:, 0], domain[:, 1])
    for u in range(3):
        code = twice.encoder_HX @ found.batch.context_BX[found.log.user_N == u].mean(0)
        cosine = [
            code @ h / np.linalg.norm(code) / np.linalg.norm(h) for h in (prior.prototypes_CH[c] for c in range(3))
        ]
        assert domain[u, [0, 2, 3]].tolist() == [c == int(np.argmax(cosine)) for c in range(3)]


def test_the_top_are_diverse() -> None:
    """c1 copies c0, c2 agrees with c0 on 3 of 4, c3 on none."""
    chosen = np.array([[0, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 1], [1, 1, 0, 0]])
    low = np.array([0.3, 0.2, 0.1, 0.0])
    assert evaluate.top_k(low, chosen, 10, 0.95) == [0, 2, 3]
    assert evaluate.top_k(low, chosen, 2, 0.95) == [0, 2]
    assert evaluate.top_k(low, chosen, 10, 0.7) == [0, 3]
    assert evaluate.top_k(low[::-1], chosen, 10, 0.95) == [3, 2, 1]
    assert evaluate.top_k(np.zeros(4), chosen, 1, 1.0) == [0]


def test_selecting_names_uses_whole_users_only() -> None:
    rng = np.random.default_rng(7)
    found, prior = ground(rng, list(rng.integers(0, 8, 80))), mixture(rng, 6)
    rows = evaluate.assess(prior, found, np.ones((8, 6), dtype=bool), Draws())
    names = evaluate.select(rows, prior, found, 3, 0.95, events=40)
    by_low = sorted(rows, key=lambda row: -row.low)
    assert names[0] == by_low[0].candidate
    assert len(names) == 3
    assert evaluate.select([], prior, found, 3, 0.95) == []
    shuffled = [rows[i] for i in (3, 1, 5, 0, 2, 4)]
    assert evaluate.select(shuffled, prior, found, 3, 0.95, events=40) == names


def test_planted_candidates_are_ranked() -> None:
    """Users follow a known θ; the candidate whose prior is at θ is valued above those that are not, and its
    interval is above 0 against a predefined model of uniform choices."""
    rng = np.random.default_rng(8)
    batch, log = logged(rng, list(np.repeat(np.arange(80), 10)), 4, 4, 1)
    truth = np.array([0.0, 0.3, -0.2, 0.1])
    mean_NK = np.clip(0.5 + batch.phi_BKD @ truth, 0, 1)
    open_NK = log.mask_NK / log.mask_NK.sum(1, keepdims=True)
    action = np.array([rng.choice(4, p=p) for p in open_NK])
    reward = (rng.random(800) < mean_NK[np.arange(800), action]).astype(float)
    logged_right = Log(action, reward, open_NK[np.arange(800), action], log.user_N, log.mask_NK)
    q: Floats = np.full((800, 4), 0.5)
    base = (open_NK * np.where(log.mask_NK, mean_NK, 0)).sum(1, keepdims=True)
    prior = mixture(rng, 3)
    prior = replace(prior, means_CAD=np.stack([truth, -truth, 0 * truth])[:, None], ranks_CADR=0 * prior.ranks_CADR)
    prior = replace(prior, factor_ADD=0.05 * prior.factor_ADD)
    found = Ground(logged_right, batch, q, base, ("uniform",))
    good, bad, _ = evaluate.assess(prior, found, np.ones((80, 3), dtype=bool), Draws())
    assert good.low > 0
    assert bad.high < 0
    best = np.where(log.mask_NK, batch.phi_BKD @ truth, -np.inf).argmax(1)
    exact = mean_NK[np.arange(800), best].mean()
    assert good.low + good.baseline_value < exact < good.high + good.baseline_value


def test_a_ground_that_does_not_fit_is_refused() -> None:
    found = ground(np.random.default_rng(9), [0, 1])
    with pytest.raises(EvidenceError, match="does not fit"):
        replace(found, q_NK=found.q_NK[:1])
    with pytest.raises(EvidenceError, match="not finite"):
        replace(found, base_NM=np.full((2, 2), np.nan))


def test_the_pooled_posterior_as_a_candidate_is_worth_what_the_linear_member_is() -> None:
    """The whole way from a log, on both kinds of parameters: with a history that it hardly listens to (its spread
    is the pooled posterior's), the candidate chooses nearly as the predefined linear model does."""
    data = DataSettings(marketplace_users=200, marketplace_items=30, marketplace_events=4_000)
    dataset = read_marketplace([], Options(), data, seed=1).dataset
    for kind in ("joint", "arms"):
        settings = Settings.model_validate({"features": {"kind": kind, "max_dimension": 24}})
        work = Groundwork.of(dataset, settings)
        trail = Trail.of(work.feature_map, work.events(work.split.select), settings.reward, 0)
        base = walk(work.ensemble(*work.predefined.members()), trail, 0)
        log, batch = base.log, trail.batch.take(np.arange(len(base.log)))
        found = Ground(log, batch, trail.q_NK[: len(log)], base.value_NM, base.names, 64)
        pooled = work.predefined.linear
        belief = gaussian(pooled.precision_ADD, pooled.shift_AD)
        context = batch.context_BX.shape[1]
        candidate = Mixture(
            "pooled",
            belief.mean_AD[None],
            belief.factor_ADD,
            np.zeros((1, *belief.mean_AD.shape, 1)),
            pooled.noise,
            np.eye(context),
            np.ones((1, context)),
            1.0,
            ("pooled",),
        )
        value = evaluate.values(candidate, found, Draws(64, 1.0))[:, 0]
        linear = base.value_NM[:, base.names.index("linear")]
        error = (value - linear).std() / np.sqrt(len(value))
        assert abs((value - linear).mean()) < max(4 * error, 0.005)
        assert value.mean() > base.mean()["uniform"] + 0.01


@pytest.mark.parametrize("arms", [1, 8])
@pytest.mark.parametrize(
    ("history", "particles", "users"),
    [(0, 0, 1_000), (0, 8, 200), (64, 0, 40), (8, 0, 10), (64, 4, 40), (64, 0, 1)],
    ids=["frozen", "frozen-particles", "learning", "windows", "particles", "one-long-user"],
)
def test_memory_stays_within_the_budget(arms: int, history: int, particles: int, users: int) -> None:
    """NumPy reports its arrays to tracemalloc: beside the table of values at most the budget, and not so little that it
    means nothing. One user alone would take four times as much if its candidates were not divided."""
    rng, budget = np.random.default_rng(11), 4 * 2**20
    found = ground(rng, list(np.sort(rng.integers(0, users, max(200, 3 * users)))), 8, arms, history)
    prior = bandit_cases.mixture(rng, 400 if history == 0 else 60, arms, 4)
    draws = Draws(particles, seed=1)
    tracemalloc.start()
    value = evaluate.values(prior, found, draws, budget)
    peak = tracemalloc.get_traced_memory()[1] - value.nbytes
    tracemalloc.stop()
    assert 0.1 * budget < peak < budget
    np.testing.assert_allclose(value, evaluate.values(prior, found, draws, 2**26), atol=1e-9)
