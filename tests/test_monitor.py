"""How members stand beside the ensemble: bounds that hold at every look, also for users who come again."""

import numpy as np
import pytest
from scipy import stats

from actors.bandits.ensemble import Admission
from cluster.config import GateSettings
from tests.compose_cases import proposed
from tune.gate import Paired
from tune.monitor import bounds, standings
from tune.walk import Trail, Walk, walk


def test_bounds_by_hand() -> None:
    """Waudby-Smith's half width at ρ² = (−2 ln α + ln(−2 ln α + 1))/500, roughly what tunes it to 500 users."""
    rng = np.random.default_rng(0)
    sums_U = rng.normal(0.2, 1.0, 500)
    value, reach = bounds(Paired(sums_U, np.ones(500)), 0.05, 30)
    assert value == pytest.approx(sums_U.mean())
    square = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 500
    mixed = 500 * square + 1
    width = np.sqrt(2 * mixed / (500**2 * square) * np.log(np.sqrt(mixed) / 0.05))
    assert reach == pytest.approx(sums_U.std(ddof=1) * width, rel=0.02)
    assert bounds(Paired(sums_U[:29], np.ones(29)), 0.05, 30)[1] == np.inf


def test_a_member_as_good_as_the_ensemble_is_seldom_retired_however_often_one_looks() -> None:
    """400 shops without a true difference, users who come again for 40 looks: at most 5 % are ever retired.

    Users differ from each other four times as much as their events, so that looks have much in common. At the stated
    rate, more than 33 of 400 have a probability below 0.001.
    """
    rng, retired = np.random.default_rng(7), 0
    for _ in range(400):
        taste_U = 0.4 * rng.standard_normal(300)
        sums_U, counts_U, lost = np.zeros(300), np.zeros(300), False
        for _look in range(40):
            user_N = rng.integers(300, size=30)
            np.add.at(sums_U, user_N, taste_U[user_N] + 0.1 * rng.standard_normal(30))
            np.add.at(counts_U, user_N, 1.0)
            seen_U = counts_U > 0
            value, reach = bounds(Paired(sums_U[seen_U], counts_U[seen_U]), 0.05, 30)
            lost |= value + reach < 0
        retired += lost
    assert retired <= stats.binom.isf(0.001, 400, 0.05)


def planted(shift: float) -> Walk:
    """The select part as walked, with the value of the generated member moved by so much."""
    case = proposed()
    member = case.proposal.member
    assert member is not None
    trail = Trail.of(case.work.feature_map, case.work.events(case.work.split.select), case.work.settings.reward, 0)
    walked = walk(case.work.ensemble(*case.work.predefined.members(), member), trail.first(400), 0)
    column = walked.names.index("generated")
    walked.value_NM[:, column] = walked.blend_N + shift
    uniform = walked.names.index("uniform")
    walked.value_NM[:, uniform] = walked.blend_N + shift
    return walked


def test_a_generated_member_that_loses_is_retired_and_a_predefined_one_never() -> None:
    case = proposed()
    assert case.proposal.member is not None
    ensemble = case.work.ensemble(*case.work.predefined.members(), case.proposal.member)
    found = {each.member: each for each in standings(planted(-0.1), ensemble, GateSettings(least_users=20))}
    assert found["generated"].retired
    assert found["generated"].difference == pytest.approx(-0.1)
    assert found["uniform"].high < 0
    assert not found["uniform"].retired
    same = {each.member: each for each in standings(planted(0.0), ensemble, GateSettings(least_users=20))}
    assert not same["generated"].retired


def test_users_of_clients_that_do_not_have_a_member_say_nothing_of_it() -> None:
    case = proposed()
    assert case.proposal.member is not None
    whole = case.work.ensemble(*case.work.predefined.members(), case.proposal.member)
    nobody = type(whole)(**{**vars(whole), "admissions": {"generated": Admission(True, {"c": False})}})
    found = {each.member: each for each in standings(planted(-0.1), nobody, GateSettings(least_users=20))}
    assert found["generated"].users == 0
    assert not found["generated"].retired
    assert found["generated"].facts()["low"] is None
    assert found["linear"].users > 20
