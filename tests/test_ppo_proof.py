"""The proof of a residual, without Ray: against the plain blend, against the one in service, and with what is known.

The residuals are made by hand. In the misled world the trait that decides which specialist is right shows on an axis of
the embedding; an item's number on it, times a strength, moves the two specialists' logits apart.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.residual import Residual
from cluster.config import GateSettings, RewardKind, Settings
from tests.misled import TRAIT, Planted, planted
from tune.blending.proof import Proof, prove
from tune.proof import warmed
from tune.walk import Trail

EVENTS, LEARNED = 3_000, 2_000
GATE = GateSettings()


@cache
def world() -> Planted:
    return planted(misleads=True, events=EVENTS)


@cache
def trail() -> Trail:
    known = world()
    return Trail.of(known.version.feature_map, known.dataset.events.slice(LEARNED), RewardKind(), 0)


def residual(strength: float) -> Residual:
    """g = ±strength for items of trait 0 and 1: + for the specialist who knows them."""
    relations = world().version.feature_map.relations
    assert relations is not None
    axes_EQ, sizes = relations.axes_EQ, (relations.axes_EQ.shape[1], relations.neighbours)
    inputs, members = sum(sizes) + 4 * 3, world().version.ensemble.names
    direction_Q, *_ = np.linalg.lstsq(axes_EQ, np.eye(len(axes_EQ))[-1], rcond=None)
    first_WN = np.zeros((2, inputs))
    first_WN[0, : sizes[0]], first_WN[1, : sizes[0]] = direction_Q, -direction_Q
    last_MW = strength / TRAIT * np.array([[0.0, 0.0], [-1.0, 1.0], [1.0, -1.0]])
    shift, scale, none = np.zeros(inputs), np.ones(inputs), np.zeros(2)
    return Residual(members, *sizes, shift, scale, first_WN, none, np.eye(2), none, last_MW, np.zeros(3))


def proven(new: float, running: float | None, at: Trail | None = None) -> Proof:
    ensemble = replace(world().version.ensemble, residual=None if running is None else residual(running))
    return prove(ensemble, residual(new), at or trail(), GATE, 0)


def test_one_that_is_right_is_published_where_none_is_in_service() -> None:
    proof = proven(2.0, None)
    assert (proof.publish, proof.plain.admitted, proof.running) == (True, True, None)
    wrong = proven(-2.0, None)
    assert (wrong.publish, wrong.plain.difference < 0) == (False, True)


@pytest.mark.parametrize(
    ("new", "running", "publish", "sign"),
    [(2.0, -2.0, True, 1), (2.0, 2.0, False, 0), (0.3, 2.0, False, -1), (2.0, 0.3, True, 1)],
    ids=["over a wrong one", "over itself", "a weaker one", "over a weaker one"],
)
def test_one_in_service_must_be_done_better_than(new: float, running: float, publish: bool, sign: int) -> None:
    """All of them are better than the plain blend for sure; what decides is the comparison with the one in service."""
    proof = proven(new, running)
    assert proof.plain.admitted
    assert proof.running is not None
    assert (proof.publish, np.sign(proof.running.difference)) == (publish, sign)
    told = proof.facts()["running"]
    assert told["difference"] == proof.running.difference


def test_a_proof_begins_with_what_the_learners_know() -> None:
    """Other weights than those of a version that has just been made, so another difference."""
    known, settings, asked = world(), Settings(), []
    events, feature_map = known.dataset.events, known.version.feature_map

    def learned(ensemble: Ensemble) -> learn.State:
        asked.append(ensemble.residual is None)
        return warmed(ensemble, feature_map, events.slice(0, LEARNED), settings)

    found = prove(known.version.ensemble, residual(2.0), trail(), GATE, 0, learned=learned)
    assert asked == [True, False]
    state = learned(known.version.ensemble)
    assert state.count == LEARNED
    assert found.plain.difference != proven(2.0, None).plain.difference
