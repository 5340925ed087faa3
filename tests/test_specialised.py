"""What benchmarks.specialised is counted by: who is held out, what choices earn, and numbers by hand."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits.posterior import gaussian
from actors.features.feature_map import FeatureMap
from benchmarks import specialised
from benchmarks._audiences import Audiences, AudiencesWorld
from benchmarks._cold_logs import split
from benchmarks._specialised_logs import HeldOut, Log, marketplace
from cluster.config import ContentSettings, FeatureSettings, Settings
from cluster.marketplace.marketplace import Marketplace
from cluster.records import Dataset
from tune.groundwork import Groundwork
from tune.specialise import Content
from tune.worlds.build import on


@pytest.fixture(scope="module")
def market() -> Dataset:
    return marketplace(7, 1_500)


def test_held_out_users_and_what_the_truth_pays(market: Dataset) -> None:
    parts = split(market, 1)
    learned = np.concatenate([parts.fit, parts.stop])
    users = [set(market.events["user_id"].take(pa.array(rows)).to_pylist()) for rows in (learned, parts.test)]
    assert users[0].isdisjoint(users[1])
    feature_map = FeatureMap.fit(market, parts.fit, FeatureSettings(), 0)
    feature_map = Content().related(feature_map, market.items, ContentSettings())
    held_out = HeldOut.of(market, on(market, parts.test[:50], Settings()), learned, feature_map)
    truth, events = Marketplace(**market.facts["marketplace"]), market.events.take(pa.array(parts.test[:50]))
    means_NK = truth.mean_rewards(truth.situations(events))
    owner = dict(zip(*(market.items[name].to_pylist() for name in ("item_id", "provider_id")), strict=True))
    assert feature_map.relations is not None
    names = feature_map.relations.providers
    for n, (listed, logged) in enumerate(
        zip(events["candidates"].to_pylist(), events["item_id"].to_pylist(), strict=True)
    ):
        assert held_out.truth_NK[n, : len(listed)] == pytest.approx(means_NK[n, : len(listed)])
        assert listed[held_out.action_N[n]] == logged
        assert [names[p] for p in held_out.provider_NK[n, : len(listed)]] == [owner[item] for item in listed]
    counts = dict.fromkeys(names, 0)
    for item in market.events["item_id"].take(pa.array(learned)).to_pylist():
        counts[owner[item]] += 1
    assert held_out.rows_P.tolist() == [counts[name] for name in names]


def test_a_provider_alone_knows_nothing_of_others(market: Dataset) -> None:
    """Its posterior mean is the ridge solution of its own rows, at the scales that evidence found for all."""
    work = Groundwork.of(market, Settings(), world=0.0)
    blend = work.ensemble(*work.predefined.members())
    (own,) = specialised._own(work, blend).members
    design: Any = work.fitted(np.arange(len(market.events))).design
    mean_AD = gaussian(own.precision_ADD, own.shift_AD).mean_AD  # type: ignore[union-attr]
    prior_D = np.diag(own.precision_ADD[-1])  # type: ignore[union-attr]
    for provider in (0, 12):
        mine = design.provider_N == provider
        phi, noise = design.phi_ND[mine], own.noise  # type: ignore[union-attr]
        target_D = np.zeros(len(prior_D))
        target_D[0] = design.reward_N.mean()
        rows = np.concatenate([phi / np.sqrt(noise), np.diag(np.sqrt(prior_D))])
        goal = np.concatenate([design.reward_N[mine] / np.sqrt(noise), np.sqrt(prior_D) * target_D])
        assert mean_AD[provider] == pytest.approx(np.linalg.lstsq(rows, goal, rcond=None)[0], abs=1e-8)


def test_scores_by_hand(market: Dataset) -> None:
    """Two decisions, the second of two items; provider 0 has few rows, 1 many. Logged are items 1 and 0.

    The first choice by mean is item 1 (it earns 0), the second item 1 (it earns 1): 0.5. Among few-row items the first
    decision has 0 and 2, of which 0 has the greater mean (it earns 1), the second has only one: 1.
    """
    held_out = HeldOut(
        batch=None,  # type: ignore[arg-type]
        truth_NK=np.array([[1.0, 0.0, 0.0], [0.25, 1.0, 0.0]]),
        action_N=np.array([1, 0]),
        provider_NK=np.array([[0, 1, 0], [0, 1, -1]]),
        rows_P=np.array([specialised.FEW - 1, specialised.FEW]),
    )
    found = specialised.scores(np.array([[0.2, 0.5, 0.1], [0.001, 0.4, -np.inf]]), held_out)
    many, few = np.log(0.5), 0.25 * np.log(0.01) + 0.75 * np.log(0.99)
    assert (found.likelihood_many, found.likelihood_few) == pytest.approx((many, few))
    assert found.likelihood == pytest.approx((many + few) / 2)
    assert (found.reward, found.reward_few) == (0.5, 1.0)


def test_means_are_those_of_each_decision_alone(market: Dataset) -> None:
    work = Groundwork.of(market, Settings(law={"particles": 4}), world=0.0)  # type: ignore[arg-type]
    blend = work.ensemble(*work.predefined.members())
    held_out = HeldOut.of(market, on(market, np.arange(5), Settings()), np.arange(5, 50), work.feature_map)
    found = specialised.means(blend.only("linear"), held_out, 0)
    (linear,) = blend.only("linear").members
    theta_D = np.linalg.solve(linear.precision_ADD[0], linear.shift_AD[0])  # type: ignore[union-attr]
    expected = np.where(held_out.batch.mask_BK, held_out.batch.phi_BKD @ theta_D, -np.inf)
    assert found == pytest.approx(expected)


def test_the_planted_audiences_answer_as_they_are_said_to() -> None:
    truth = Audiences.of(3)
    log = truth.log(3_000)
    found = Content.related(
        truth.content, FeatureMap.fit(log, np.arange(500), FeatureSettings(), 0), log.items, ContentSettings()
    ).relations
    assert found is not None
    assert found.cluster_P.tolist() == truth.cluster_P.tolist()
    world = AudiencesWorld(truth, log.events)
    slopes = np.array([0.25, -0.25, 0.0])[truth.cluster_P]
    assert np.abs(truth.slope_P - slopes).max() < 0.4  # five standard deviations
    event = log.events.slice(7, 1).to_pylist()[0]
    age, item = float(dict(event["context"])["age"]), event["candidates"][4]
    p, i = int(item[1:3]), int(item[1:3]) * 5 + int(item[-1])
    expected = np.clip(0.35 + truth.slope_P[p] * (age - 45) / 25 + truth.quality_I[i], 0.02, 0.98)
    assert world.mean_rewards(7, event["candidates"])[4] == pytest.approx(expected)
    means_N = np.array([world.mean_rewards(n, [name])[0] for n, name in enumerate(log.events["item_id"].to_pylist())])
    error_N = log.events["reward"].to_numpy() - means_N
    assert abs(error_N.sum()) < 4 * np.sqrt((means_N * (1 - means_N)).sum())  # one in 16,000


def test_where_audiences_differ_the_blend_is_above_both_single_models() -> None:
    """One world of 6,000 events; the gains are four times their standard deviation between worlds and more."""
    found = specialised.contest(Log.audiences(1, 6_000), 1, None)
    for peer in ("one", "own", "without"):
        assert found["blend"].likelihood_few > found[peer].likelihood_few
        assert found["blend"].reward_few > found[peer].reward_few
