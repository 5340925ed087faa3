"""Provider clusters: planted ones are found, nobody moves for nothing, a changed audience is followed, moves undone."""

import itertools
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scipy.special import expit
from scipy.stats import binom, norm
from sklearn.metrics import adjusted_rand_score

from actors.content.regrouping import kept
from actors.content.regrouping.groups import Groups
from actors.content.regrouping.regrouping import Regrouping
from actors.content.regrouping.tree import grow, performance
from actors.content.regrouping.trial import BETS, START_DAYS, STARTS, Trial, looks_needed
from cluster.errors import EvidenceError, ModelError, RequestError, StateError

DAY = date(2026, 1, 1)
ALPHA = 0.05


def outcomes(theta_D: np.ndarray, users: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Features (U, D) and click or not of each user."""
    phi_UD = rng.standard_normal((users, len(theta_D)))
    return phi_UD, (rng.random(users) < expit(phi_UD @ theta_D)).astype(float)


def planted(kinds: int, providers: int, users: int, seed: int) -> tuple[list[int], list[np.ndarray]]:
    """Audiences of so many kinds; the kind of each provider, and its users' scores under a linear model of each
    provider, fitted on other users of that provider."""
    rng = np.random.default_rng(seed)
    theta_KD = rng.standard_normal((kinds, 6))
    kind_P = [p % kinds for p in range(providers)]
    models = []
    for kind in kind_P:
        phi_UD, click_U = outcomes(theta_KD[kind], users, rng)
        models.append(np.linalg.solve(phi_UD.T @ phi_UD + 10 * np.eye(6), phi_UD.T @ (click_U - 0.5)))
    found = []
    for kind in kind_P:
        phi_UD, click_U = outcomes(theta_KD[kind], users, rng)
        chance_UC = np.clip(0.5 + phi_UD @ np.array(models).T, 0.01, 0.99)
        found.append(np.log(np.where(click_U[:, None] > 0, chance_UC, 1 - chance_UC)))
    return kind_P, found


def test_planted_clusters_are_recovered() -> None:
    agreement = []
    for seed in range(10):
        kind_P, scores = planted(kinds=4, providers=24, users=300, seed=seed)
        agreement.append(adjusted_rand_score(kind_P, grow(*performance(scores), ALPHA, seed).labels_P))
    assert min(agreement) >= 0.95, agreement


def test_one_audience_is_one_cluster() -> None:
    """At alpha = 0.05 of 60 worlds without clusters at most 8 may have two (binomial, 99.6 %)."""
    assert binom.cdf(7, 60, ALPHA) > 0.99
    parted = 0
    for seed in range(60):
        _, scores = planted(kinds=1, providers=8, users=200, seed=seed)
        parted += grow(*performance(scores), ALPHA, seed).labels_P.max() > 0
    assert parted <= 7


def test_the_tree_of_known_rows() -> None:
    """Two pairs, far apart against a noise of 0.01; what is common to a row does not count."""
    mean_PC = np.array([[0.0, 1.0], [1.0, 0.0], [5.01, 6.0], [1.0, 0.01]])
    noise_PCC = np.broadcast_to(1e-4 * np.eye(2), (4, 2, 2))
    tree = grow(mean_PC, noise_PCC, ALPHA, 0)
    assert tree.labels_P.tolist() == [0, 1, 0, 1]
    assert tree.chance == 1 / 1_000, "none of 999"
    assert tree.linkage[:, 2] == pytest.approx([0.01 / 2**0.5, 0.01 / 2**0.5, 2 * 0.995]), "by hand"
    assert grow(mean_PC, 1e4 * noise_PCC, ALPHA, 0).labels_P.tolist() == [0, 0, 0, 0]
    assert grow(mean_PC, noise_PCC, ALPHA, 0, lambda *_: False).labels_P.tolist() == [0, 0, 0, 0], "it does not pay"
    assert grow(mean_PC[:1], noise_PCC[:1], ALPHA, 0).labels_P.tolist() == [0]


def test_rows_without_support_are_refused() -> None:
    with pytest.raises(EvidenceError, match="two users"):
        performance([np.zeros((1, 2))])
    with pytest.raises(EvidenceError, match="provider 1"):
        performance([np.zeros((2, 2)), np.full((2, 2), np.nan)])


def test_evidence_is_worth_one_where_there_is_no_difference() -> None:
    """All 2^8 courses of values +0.6 (chance 1/4) and -0.2 (3/4), mean 0: the evidence's expectation is 1 exactly."""
    expected = 0.0
    for course in itertools.product((0.6, -0.2), repeat=8):
        trial = Trial.begin(("b",), DAY.toordinal())
        for n, value in enumerate(course):
            trial = trial.look(DAY.toordinal() + 20 * n, np.array([[value]]))
        chance = np.prod([0.25 if value > 0 else 0.75 for value in course])
        expected += chance * np.exp(trial.log_e()[0])
    assert expected == pytest.approx(1.0, abs=1e-12)


def test_evidence_by_hand() -> None:
    """One look of two users, of whom one is cut to 1 nat: Π (1 + λ·x) of the first start; the others hold their 1."""
    trial = Trial.begin(("b",), DAY.toordinal()).look(DAY.toordinal(), np.array([[0.5], [7.0]]))
    first = np.mean([(1 + bet * 0.5) * (1 + bet) for bet in BETS])
    assert np.exp(trial.log_e()[0]) == pytest.approx((first + len(STARTS) - 1) / len(STARTS), rel=1e-12)
    assert trial.since(0) == (DAY.toordinal(), 0.75, 2)
    assert trial.needed(0.05) == pytest.approx(np.log(40)), "the first of a year's tests has half of alpha"
    assert Trial.begin(("b",), 0).again(("b", "c"), 9).needed(0.05) == pytest.approx(np.log(2 * 6 / 0.05))
    assert trial.at(DAY.toordinal() + 364) is trial
    assert trial.at(DAY.toordinal() + 365).users_S.sum() == 0, "a new year"


def test_nobody_moves_for_nothing_in_a_year_of_daily_looks() -> None:
    """100 providers, no rival better on average, values as skewed as a rare click makes them. At most 5 % may move;
    by an ordinary test at 5 % per look more than six times as many do."""
    providers, users = 100, 10
    rng = np.random.default_rng(11)
    moved, each_look = 0, 0
    for _ in range(providers):
        value_LU = rng.choice([0.8, -0.2], p=[0.2, 0.8], size=(365, users))
        trial = Trial.begin(("b",), DAY.toordinal())
        for day in range(365):
            trial = trial.look(DAY.toordinal() + day, value_LU[day][:, None])
            if trial.winner(ALPHA) is not None:
                moved += 1
                break
        seen_L = users * np.arange(1, 366)
        each_look += (value_LU.sum(1).cumsum() / np.sqrt(seen_L * 0.16) > norm.ppf(1 - ALPHA)).any()
    assert moved <= ALPHA * providers
    assert each_look > 0.3 * providers, "daily looks at an ordinary test do move them"


@pytest.mark.parametrize("changed", [0, 100])
def test_a_changed_audience_is_followed_within_the_stated_looks(changed: int) -> None:
    """Nineteen of twenty move within `looks_needed` of the change: of 60 at least 52 (binomial, 99 %)."""
    gain, deviation, users = 0.05, 0.3, 40
    stated = looks_needed(gain, deviation, users, rivals=2, alpha=ALPHA)
    assert START_DAYS < stated < 90
    assert binom.sf(51, 60, 0.95) > 0.99
    rng = np.random.default_rng(changed)
    in_time = 0
    for _ in range(60):
        groups = Groups().move("p", "a", DAY.isoformat(), "start", {})
        for name in ("b", "c"):
            groups = groups.move(f"of-{name}", name, DAY.isoformat(), "start", {})
        state = Regrouping(groups, ALPHA)
        for day in range(changed + int(stated)):
            mean = gain if day >= changed else -gain
            score_UC = np.stack([np.zeros(users), rng.normal(mean, deviation, users), np.full(users, -0.01)], axis=1)
            state = state.look(DAY + timedelta(day), {"p": score_UC})
        in_time += state.groups.cluster_of["p"] == "b"
        if state.groups.cluster_of["p"] == "b":
            assert state.groups.moves[-1].facts["gain"] > 0, "told from where the evidence comes from"
    assert in_time >= 52
    assert looks_needed(-0.01, 0.3, 40, 2, ALPHA) == float("inf")


def two(alpha: float = ALPHA) -> Regrouping:
    groups = Groups()
    for provider, cluster in (("p", "a"), ("q", "b"), ("r", "b")):
        groups = groups.move(provider, cluster, DAY.isoformat(), "start", {})
    return Regrouping(groups, alpha)


def test_a_move_spends_and_undoing_it_restores() -> None:
    better = np.tile([0.0, 0.8], (40, 1))
    state = two().look(DAY, {"p": better})
    assert dict(state.groups.cluster_of) == {"p": "b", "q": "b", "r": "b"}
    assert (state.trials["p"].number, state.trials["p"].rivals, state.trials["p"].users_S.sum()) == (2, ("a",), 0)
    move = state.groups.moves[-1]
    assert move.facts["gain"] == pytest.approx(0.8)
    assert move.facts["evidence"] >= move.facts["needed"]
    back = state.undo(move.number, DAY + timedelta(1))
    assert back.groups.cluster_of == two().groups.cluster_of
    assert (back.trials["p"].number, back.trials["p"].rivals) == (3, ("b",))
    for number, match in ((99, "no move 99"), (1, "placed a new"), (4, "has been undone"), (5, "took back move 4")):
        with pytest.raises(RequestError, match=match):
            back.undo(number, DAY)


def test_a_move_by_hand_is_logged_watched_anew_and_undone() -> None:
    state = two().look(DAY, {"q": np.tile([0.0, 0.01], (5, 1))})
    moved = state.move("q", "a", DAY)
    last = moved.groups.moves[-1]
    assert (last.provider, last.before, last.after, last.reason) == ("q", "b", "a", "moved by hand")
    assert (moved.trials["q"].number, moved.trials["q"].rivals, moved.trials["q"].users_S.sum()) == (2, ("b",), 0)
    assert moved.undo(last.number, DAY).groups.cluster_of == two().groups.cluster_of
    for provider, cluster, match in (
        ("x", "a", "no provider 'x'"),
        ("q", "x", "no cluster 'x'"),
        ("q", "b", "already"),
    ):
        with pytest.raises(RequestError, match=match):
            state.move(provider, cluster, DAY)


def test_a_new_provider_starts_where_its_content_is_nearest() -> None:
    centroids = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    placed = two().place("new", DAY, np.array([0.9, 0.3]), centroids)
    assert placed.groups.cluster_of["new"] == "a"
    assert placed.groups.moves[-1].facts["cosine"] == pytest.approx(0.9 / np.hypot(0.9, 0.3))
    assert two().place("new", DAY, None, centroids).groups.cluster_of["new"] == "b", "it has most providers"
    with pytest.raises(RequestError, match="already"):
        two().place("p", DAY, np.array([0.9, 0.3]), centroids)


def test_scores_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="in cluster None"):
        two().look(DAY, {"new": np.zeros((1, 2))})
    with pytest.raises(ModelError, match="each of 2 clusters"):
        two().look(DAY, {"p": np.zeros((1, 3))})
    with pytest.raises(ModelError, match="finite"):
        two().look(DAY, {"p": np.full((1, 2), -np.inf)})


def test_a_log_that_was_cut_or_changed_is_refused(tmp_path: Path) -> None:
    state = two().look(DAY, {"p": np.tile([0.0, 0.8], (40, 1)), "q": np.tile([0.1, 0.0], (9, 1))})
    kept.save(state, {"until": 7}, tmp_path)
    loaded, about = kept.load(tmp_path)
    assert (loaded.groups, loaded.alpha, about) == (state.groups, ALPHA, {"until": 7})
    better = {"q": np.tile([0.2, 0.0], (9, 1))}
    one, other = (each.look(DAY + timedelta(1), better).trials["q"] for each in (state, loaded))
    np.testing.assert_array_equal(one.wealth_RSL, other.wealth_RSL)
    facts = state.groups.facts()
    for broken in ({**facts, "format": 9}, {**facts, "moves": facts["moves"][1:]}, {"moves": []}):
        with pytest.raises(StateError, match="not a log of moves"):
            Groups.of(broken)
    for name in ("regroup.json", "wealth.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:-9])
        with pytest.raises(StateError, match="no regrouping can be read"):
            kept.load(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_where_a_provider_was_on_a_day() -> None:
    groups = Groups().move("p", "a", "2026-03-01", "", {}).move("p", "b", "2026-03-05", "", {})
    days = {"2026-01-01": "a", "2026-03-05": "a", "2026-03-06": "b"}
    assert {day: groups.before("p", day) for day in days} == days


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_users_within_a_look_does_not_matter(values: list[float], random) -> None:
    shuffled = random.sample(values, len(values))
    one, other = (Trial.begin(("b",), 0).look(0, np.array([v]).T) for v in (values, shuffled))
    np.testing.assert_allclose(one.wealth_RSL, other.wealth_RSL, atol=1e-9)


class MovesMachine(RuleBasedStateMachine):
    """Against a plain dictionary with a stack of earlier places."""

    def __init__(self) -> None:
        super().__init__()
        self.groups, self.stacks = Groups(), {}

    @rule(provider=st.sampled_from("pqr"), to=st.sampled_from("abc"))
    def move(self, provider: str, to: str) -> None:
        stack = self.stacks.setdefault(provider, [])
        if stack and stack[-1][0] == to:
            with pytest.raises(RequestError):
                self.groups.move(provider, to, "2026-01-01", "", {})
            return
        self.groups = self.groups.move(provider, to, "2026-01-01", "", {})
        stack.append((to, len(self.groups.moves)))

    @precondition(lambda self: self.groups.moves)
    @rule(data=st.data())
    def undo(self, data) -> None:
        number = data.draw(st.integers(1, len(self.groups.moves)))
        stack = self.stacks[self.groups.moves[number - 1].provider]
        if len(stack) > 1 and stack[-1][1] == number:
            stack.pop()
            self.groups = self.groups.undo(number, "2026-01-02")
        else:
            with pytest.raises(RequestError):
                self.groups.undo(number, "2026-01-02")

    @invariant()
    def agree(self) -> None:
        assert dict(self.groups.cluster_of) == {name: stack[-1][0] for name, stack in self.stacks.items()}
        assert Groups.of(self.groups.facts()) == self.groups


TestMoves = MovesMachine.TestCase
TestMoves.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
