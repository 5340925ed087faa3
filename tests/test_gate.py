import json

import numpy as np
import pytest
from scipy import stats

from cluster.config import GateSettings
from cluster.errors import EvidenceError
from tune import gate
from tune.gate import Paired

SETTINGS = GateSettings(bootstrap=200)


def clicks(rng: np.random.Generator, users: int, lift: float = 0.0, rate: float = 0.1) -> Paired:
    """Importance-weighted click differences of `users` users with 1 to 20 events each: rare, skewed, heavy."""
    counts = rng.integers(1, 21, users)
    user = np.repeat(np.arange(users), counts)
    click = rng.random(len(user)) < rate
    mine, theirs = (rng.choice([0.0, 3.0], len(user), p=[2 / 3, 1 / 3]) for _ in range(2))
    taste = rng.normal(0, 0.02, users)[user]
    difference = click * (mine - theirs) + taste + lift
    return Paired(np.bincount(user, difference, users), counts.astype(float))


def test_worthless_members_pass_at_most_at_the_stated_rate() -> None:
    """400 members that are worth nothing, each tested alone at 5 %: more than 34 admitted has probability
    0.001 (binomial)."""
    admitted = sum(gate.admit(clicks(np.random.default_rng(s), 60), SETTINGS, s).admitted for s in range(400))
    assert admitted <= stats.binom.isf(0.001, 400, 0.05)


def test_selection_does_not_help_the_worthless() -> None:
    """200 worthless candidates, the 10 that look best on select are tested on confirm, 100 times over: some
    member passes in at most 5 % of the runs (13 or more has probability 0.002). Tested on select itself,
    where they were chosen, about half the runs let one pass."""
    passed = cheated = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        select = [clicks(rng, 50) for _ in range(200)]
        best = sorted(range(200), key=lambda c: -select[c].sums_U.sum() / select[c].counts_U.sum())[:10]
        confirm = {str(c): clicks(rng, 50) for c in best}
        passed += any(v.admitted for v in gate.judge(confirm, SETTINGS, seed).values())
        cheated += any(v.admitted for v in gate.judge({str(c): select[c] for c in best}, SETTINGS, seed).values())
    assert passed <= 12
    assert cheated >= 30


def test_a_member_that_is_better_is_admitted() -> None:
    """Lift 0.1 per event, 200 users: the standard error of the mean is about 0.015."""
    for seed in range(20):
        verdict = gate.admit(clicks(np.random.default_rng(seed), 200, lift=0.1), SETTINGS, seed)
        assert verdict.admitted
        assert verdict.kept
        assert 0 < verdict.low < verdict.difference < verdict.high
        assert "better than the best predefined" in verdict.reason


def test_bounds_against_students_interval() -> None:
    """Equal counts: the ratio is a mean, its bound the textbook's (the bootstrap's is nearly the same)."""
    x = np.random.default_rng(3).normal(0.2, 1.0, 400)
    verdict = gate.admit(Paired(x * 5, np.full(400, 5.0)), GateSettings(bootstrap=4_000))
    expected = x.mean() - stats.t.isf(0.05, 399) * x.std(ddof=1) / 20
    assert verdict.difference == pytest.approx(x.mean())
    assert expected - 0.005 < verdict.low <= expected
    assert verdict.p_value == pytest.approx(stats.ttest_1samp(x, 0, alternative="greater").pvalue, abs=0.005)


def test_holm_over_members_is_stricter_than_each_alone() -> None:
    x = np.random.default_rng(4).normal(0, 1, 300)
    weak = Paired(x - x.mean() + 0.11, np.ones(300))  # p about 0.03
    assert gate.admit(weak, SETTINGS).admitted
    rest = {str(s): clicks(np.random.default_rng(s), 300) for s in range(4)}
    assert not gate.judge({"weak": weak, **rest}, SETTINGS)["weak"].admitted


def test_kept_means_not_worse_than_the_margin() -> None:
    x = np.random.default_rng(5).normal(0, 0.05, 400)
    level = Paired(x - x.mean(), np.ones(400))
    verdict = gate.admit(level, SETTINGS)
    assert (verdict.admitted, verdict.kept) == (False, True)
    worse = Paired(x - x.mean() - 0.05, np.ones(400))
    assert not gate.admit(worse, SETTINGS).kept
    assert gate.admit(Paired(worse.sums_U, worse.counts_U, range=10), SETTINGS).kept


def test_little_support_and_no_difference_admit_nothing() -> None:
    few = gate.admit(Paired(np.ones(5), np.ones(5)), SETTINGS)
    assert (few.admitted, few.kept) == (False, False)
    assert few.reason == "too little support: 5 confirm users, 30 needed"
    none = gate.admit(Paired(np.empty(0), np.empty(0)), SETTINGS)
    assert "0 confirm users" in none.reason
    same = gate.admit(Paired(np.zeros(100), np.ones(100)), SETTINGS)
    assert (same.admitted, same.kept) == (False, True)
    json.dumps([few.facts(), none.facts(), same.facts()], allow_nan=False)


def test_one_constant_gain_is_admitted() -> None:
    assert gate.admit(Paired(np.full(40, 0.1), np.ones(40)), SETTINGS).admitted


def test_evidence_beyond_what_resamples_resolve_still_counts() -> None:
    """0.5 ± 0.1 over 500 users is 112 standard errors: no level that a count of tests leaves can refuse it."""
    sums_U = np.random.default_rng(0).normal(5, 1, 500)
    paired = Paired(sums_U, np.full(500, 10.0))
    for tests in (1, 7, 30):
        level = GateSettings(alpha=0.05 / (tests * (tests + 1)), bootstrap=1_000)
        verdict = gate.judge({"": paired}, level)[""]
        assert verdict.admitted
        assert verdict.p_value < 1e-12


def test_differences_must_be_finite() -> None:
    with pytest.raises(EvidenceError, match="must be finite"):
        Paired(np.array([0.0, np.nan]), np.ones(2))


def planted(users: dict[str, int], lift: dict[str, float], seed: int = 0) -> tuple[Paired, np.ndarray]:
    """One event a user, differences of standard deviation 0.3 around a client's lift."""
    rng = np.random.default_rng(seed)
    client_U = rng.permutation(np.repeat(list(users), list(users.values())))
    sums_U = rng.normal([lift[client] for client in client_U], 0.3)
    return Paired(sums_U, np.ones(len(client_U))), client_U


def test_a_client_with_enough_users_has_a_verdict_of_its_own() -> None:
    """Good at one large client, harmful at the other: all users together say yes, and small clients follow that."""
    paired, client_U = planted({"big": 900, "other": 400, "small": 40}, {"big": 0.2, "other": -0.2, "small": 0.0})
    found = gate.by_client(paired, client_U, SETTINGS)
    assert sorted(found.clients) == ["big", "other"]
    assert (found.clients["big"].admitted, found.clients["other"].admitted, found.pooled.admitted) == (
        True,
        False,
        True,
    )
    assert (found.clients["big"].users, found.clients["other"].users, found.pooled.users) == (900, 400, 1340)
    admission = found.admission
    assert [admission.admits(client) for client in ("big", "other", "small", "new")] == [True, False, True, True]
    assert admission.anywhere
    assert not admission.everywhere
    assert found.facts()["admitted"]
    assert "clients of their own verdict: big yes, other no" in found.words()
    json.dumps(found.facts(), allow_nan=False)


def test_the_verdicts_of_clients_are_tests_of_holms_procedure() -> None:
    paired, client_U = planted({"big": 400, "other": 400}, {"big": 0.04, "other": 0.0}, seed=2)
    own = {name: Paired(paired.sums_U[client_U == name], np.ones(400)) for name in ("big", "other")}
    expected = gate.judge({"": paired, **own}, SETTINGS)
    found = gate.by_client(paired, client_U, SETTINGS)
    assert {"": found.pooled, **found.clients} == expected


def test_a_lone_client_and_small_ones_share_the_pooled_verdict() -> None:
    for users in ({"only": 500}, {"a": 200, "b": 299}):
        paired, client_U = planted(users, dict.fromkeys(users, 0.2))
        found = gate.by_client(paired, client_U, SETTINGS)
        assert found.clients == {}
        assert found.pooled == gate.admit(paired, SETTINGS)
        assert found.admission.everywhere


def test_worthless_members_pass_at_no_client_at_the_stated_rate() -> None:
    """200 members worth nothing at three large clients, 5 % for any yes: more than 21 has probability 0.001."""
    users = {"a": 300, "b": 300, "c": 300}
    runs = (gate.by_client(*planted(users, dict.fromkeys(users, 0.0), seed), SETTINGS, seed) for seed in range(200))
    assert sum(found.admission.anywhere for found in runs) <= stats.binom.isf(0.001, 200, 0.05)
