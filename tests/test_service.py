"""A version in service without a server: as the baselines of a drive decide, until it is replaced."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits import learn
from actors.bandits.version import Version
from actors.features.actions import actions
from cluster.config import Settings
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.records import EVENTS
from tune.baselines import Schedule, play
from tune.groundwork import Groundwork
from tune.service import Service
from tune.worlds.base import World
from tune.worlds.build import on

DATA = {"marketplace_events": 1_500, "marketplace_users": 120}


@pytest.fixture(scope="module")
def served() -> tuple[Version, World, Schedule]:
    settings = Settings.model_validate({"data": DATA, "law": {"particles": 16}, "features": {"max_dimension": 24}})
    dataset = read_marketplace([], Options(), settings.data, 0).dataset
    past = replace(dataset, format="feedback", events=dataset.events.slice(0, 1_000))
    work = Groundwork.of(past, settings)
    version = Version(work.feature_map, work.ensemble(*work.predefined.members()), dataset.items)
    world = on(dataset, np.arange(1_000, 1_500), settings)
    second_N = world.events["timestamp"].cast(pa.int64()).to_numpy() / 1e6
    return version, world, Schedule(np.arange(500), second_N - second_N[0], 1_800.0, 3_600.0)


def test_it_decides_as_the_same_ensemble_in_a_drive(served: tuple[Version, World, Schedule]) -> None:
    """Every item and propensity, in whatever steps the traffic is served."""
    version, world, schedule = served
    played = play({"ensemble": version.ensemble}, version, world, schedule, seed=3)["ensemble"]
    service = Service(version, 1, world, schedule, 3)
    for until in (120, 121, 500):
        service.serve(until)
    assert [each.item for each in service.done] == list(played.item_N)
    np.testing.assert_array_equal([each.propensity for each in service.done], played.propensity_N)
    np.testing.assert_array_equal([each.expected for each in service.done], played.expected_N)


def test_the_journal_has_what_is_final(served: tuple[Version, World, Schedule]) -> None:
    version, world, schedule = served
    service = Service(version, 4, world, schedule, 3)
    service.serve(300)
    events = service.journal()
    assert events.schema.equals(EVENTS)
    now_s = schedule.visible(schedule.second_N[299])
    assert len(events) == int((schedule.second_N[:300] + 1_800.0 <= now_s).sum())
    assert events["item_id"].to_pylist() == [each.item for each in service.done[: len(events)]]
    assert set(events["version"].to_pylist()) == {4}
    assert events["candidates"].to_pylist() == world.events["candidates"].to_pylist()[: len(events)]


def test_a_new_version_learns_what_waited_with_its_own_features(served: tuple[Version, World, Schedule]) -> None:
    """And nothing from before; its members had no say in it, so weights stay those of its priors."""
    version, world, schedule = served
    service = Service(version, 1, world, schedule, 3)
    service.serve(200)
    final, waiting = len(service.journal()), 200 - len(service.journal())
    assert waiting > 0
    fitted = version.feature_map
    other = Version(fitted.with_items(version.items.slice(0, 100)), version.ensemble, version.items.slice(0, 100))
    service.replace(other, 2)
    service.serve(500)
    assert {each.version for each in service.done[200:]} == {2}
    events = service.journal()
    acted = actions(other.feature_map, events.slice(final, waiting))
    clients = events["client_id"].to_pylist()[final : final + waiting]
    prior = learn.start(version.ensemble.of(clients[0])).statistics["linear"]
    for row in np.flatnonzero(np.array(clients) == clients[0]):
        prior.learn(acted.phi_ND[row], int(acted.arm_N[row]), float(events["reward"][final + int(row)].as_py()))
    learner = Service(version, 1, world, schedule, 3)
    learner.serve(200)
    learner.replace(other, 2)
    learner._advance(schedule.second_N[199] + 7_200.0)
    state = learner._learners[clients[0]].state
    np.testing.assert_allclose(state.statistics["linear"].data_shift_AD, prior.data_shift_AD)
    np.testing.assert_array_equal(state.performance.sums_5M, 0.0)
