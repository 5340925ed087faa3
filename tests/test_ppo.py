"""PPO on Ray: it learns where similarity misleads, goes on from a checkpoint, and publishes through the gate only."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.version import Version
from cluster.config import PpoSettings, Settings
from cluster.registry import Registry
from tests.misled import Planted, planted, served
from tune.blend_env import Answers
from tune.blending.job import PpoJob
from tune.blending.policy import BlendPolicy, Form
from tune.blending.situations import Situations, situations
from tune.memory import Memory
from tune.stages import Stages

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session"), pytest.mark.filterwarnings("ignore")]
LEARNED, JUDGED = 1_000, 300


def policy_of(world: Planted, seen: Situations) -> BlendPolicy:
    ensemble, relations = world.version.ensemble, world.version.feature_map.relations
    assert relations is not None
    sizes = relations.axes_EQ.shape[1], relations.neighbours, seen.contexts.mask_BK.shape[1]
    policy = BlendPolicy(Form(ensemble.names, (1, 2), (0, 1, 2), ensemble.weights.predefined_floor, *sizes))
    policy.standardise(seen.contexts.observed_BKN[seen.contexts.mask_BK])
    return policy


def earned(world: Planted, ensemble: Ensemble) -> float:
    """Expected reward under the real law, after the first events: what is served, in NumPy."""
    feature_map, events = world.version.feature_map, world.dataset.events.slice(LEARNED, JUDGED)
    batch, state, found = feature_map.batch(events), learn.start(ensemble), []
    for n in range(JUDGED):
        if n % 32 == 0:
            published = learn.publish(state)
        features, row = batch.row(n), LEARNED + n
        told = law.probabilities(published, features, None, row)
        found.append(float(told.pi_K @ world.expected(row)))
        action = int(np.argmax(told.pi_K))
        reward = float(np.random.default_rng(row).random() < world.expected(row)[action])
        outcome = learn.Outcome.of(
            features,
            action,
            user=None,
            reward=reward,
            propensity=float(told.pi_K[action]),
            member_propensities_M=told.member_MK[:, action],
            member_means_M=told.member_means_MK[:, action],
        )
        state = learn.step(state, outcome)
    return float(np.mean(found[64:]))


def trained(world: Planted, folder: Path, batches: int) -> tuple[BlendPolicy, Any]:
    from tune.blending.training import Training, hold

    settings, version = PpoSettings(), world.version
    known = version.ensemble, version.feature_map, world.dataset.events.slice(0, LEARNED), Settings().reward
    seen = situations(*known, 0, 50, None, world.expected)
    start = policy_of(world, seen)
    seen_BO = start.see(seen.contexts)
    with Training.opened(start, Answers(seen_BO, seen.contexts.reward_BK), settings, 0, folder) as training:
        training.go(batches, every=100)
        return training.policy, (hold(training.policy, seen_BO, settings), training.curve)


@pytest.mark.parametrize("misleads", [True, False])
def test_what_is_served_earns_more_where_similarity_misleads_and_no_less_elsewhere(
    misleads: bool, tmp_path: Path
) -> None:
    """Exact expected rewards, one seed. Misled, the plain blend earns less than chance would."""
    world = planted(misleads, LEARNED + JUDGED)
    policy, (kept, curve) = trained(world, tmp_path, 10)
    plain = earned(world, world.version.ensemble)
    found = earned(world, replace(world.version.ensemble, residual=policy.residual()))
    assert kept.kl <= PpoSettings().kl_most
    assert kept.entropy >= PpoSettings().entropy_least
    assert len(curve) == 10
    assert curve[-1]["reward"] > curve[0]["reward"]
    if misleads:
        assert plain < world.earns_I.mean() < 0.5
        assert found > plain + 0.05
    else:
        assert found > plain - 0.01


def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(tmp_path: Path) -> None:
    world = planted(True, LEARNED)
    whole, (_, curve) = trained(world, tmp_path / "whole", 4)
    trained(world, tmp_path / "halves", 2)
    resumed, (_, again) = trained(world, tmp_path / "halves", 4)
    assert again == curve
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_bounds_shrink_a_residual_that_went_too_far() -> None:
    from tune.blending.training import distance, hold

    world = planted(True, 200)
    version = world.version
    seen = situations(version.ensemble, version.feature_map, world.dataset.events, Settings().reward, 0, 50)
    policy = policy_of(world, seen)
    with torch.no_grad():
        policy.last.bias.copy_(torch.tensor([0.0, 20.0, -20.0]))
    seen_BO = policy.see(seen.contexts)
    far, _ = distance(policy, seen_BO)
    kept = hold(policy, seen_BO, PpoSettings(kl_most=0.05))
    assert far > 0.1
    assert 0 <= kept.factor < 1
    assert kept.kl == pytest.approx(distance(policy, seen_BO)[0])
    assert kept.kl <= 0.05


def job(world: Planted, settings: Settings, events: pa.Table, folder: Path) -> PpoJob:
    registry = Registry(settings.registry_uri)
    registry.ensure("medley")
    registry.publish("medley", world.version.save)
    dataset = replace(world.dataset, events=events, facts={"watermark": 77})
    stages = Stages(folder / "ppo.json")
    return PpoJob.of(dataset, settings, "medley", stages, folder, events["event_id"].combine_chunks())


def test_from_the_journal_to_a_published_version(settings: Settings, tmp_path: Path) -> None:
    """A log that the version itself decided is worth most of its decisions; a pass over it is proven and published."""
    world = planted(True, events=8_000)
    found = job(world, settings, served(world, 8_000).events, tmp_path).go(memory := Memory())
    assert found["action"] == "publish", found
    assert found["effective"] > 0.5
    assert found["proof"]["plain"]["low"] > 0
    assert memory.tries("medley/1/ppo") == 1
    published = Version.load(Registry(settings.registry_uri).fetch("medley", 2))
    assert published.ensemble.residual is not None
    assert published.facts["parents"] == [1]
    assert published.facts["ppo"]["watermark"] == 77
    assert json.loads((tmp_path / "ppo.json").read_text())["version"] == 2


def test_from_an_import_to_a_published_version(settings: Settings, tmp_path: Path) -> None:
    """The held-out part of an import answers as a world, whose judges PPO has not seen; the next try on it waits."""
    world, registry = planted(True, events=16_000), Registry(settings.registry_uri)
    registry.ensure("medley")
    registry.publish("medley", world.version.save)
    settings = settings.model_copy(update={"ppo": settings.ppo.model_copy(update={"batches": 12})})
    job = partial(PpoJob.of, world.dataset, settings, "medley", Stages(tmp_path / "ppo.json"), tmp_path, None)
    found = job().go(memory := Memory())
    assert (found["action"], found["version"]) == ("publish", 2), found
    assert found["proof"]["plain"]["low"] > 0
    assert found["curve"][-1]["reward"] > found["plain_reward"]
    published = Version.load(registry.fetch("medley", 2))
    assert published.ensemble.residual is not None
    assert (published.facts["parents"], published.facts["ppo"]["batches"]) == ([1], 12)
    assert earned(world, published.ensemble) > earned(world, world.version.ensemble)
    assert memory.tries("medley/misled/ppo") == 1
    again = job()
    assert again.number == 2
    assert len(again.older) == 0


def test_a_log_that_is_worth_too_little_is_refused(settings: Settings, tmp_path: Path) -> None:
    """Choices at random among 8 say little of a policy that mostly takes one: (Σρ)²/(nΣρ²) = 1/(8·Σπ²) < 0.3."""
    world = planted(True, events=2_000)
    found = job(world, settings, world.dataset.events, tmp_path).go(memory := Memory())
    assert found["action"] == "keep"
    assert found["effective"] < 0.3
    assert "30% needed" in found["waits"]
    assert memory.tries("medley/1/ppo") == 0
    assert Registry(settings.registry_uri).versions("medley") == [1]


def test_what_is_not_shown_to_be_better_is_not_published(settings: Settings, tmp_path: Path) -> None:
    """Rewards by chance alone: nothing can be gained, and one user in twenty is no reason to publish."""
    world = planted(True, events=2_000)
    events = served(replace(world, earns_I=np.full(len(world.earns_I), 0.4)), 2_000).events
    found = job(world, settings, events, tmp_path).go(memory := Memory())
    assert found["action"] == "keep", found
    assert memory.tries("medley/1/ppo") == 1
    assert [memory.tried(f"medley/1/ppo/{source}") for source in ("journal", "world")] == [len(events), 0]
    again = PpoJob.of(
        replace(world.dataset, events=events),
        settings,
        "medley",
        Stages(None),
        tmp_path,
        events["event_id"].combine_chunks(),
    ).go(memory)
    assert again["action"] == "wait"
    assert "2,000 at the last try" in again["waits"]


def test_few_decisions_wait(settings: Settings, tmp_path: Path) -> None:
    world = planted(True, events=400)
    found = job(world, settings, world.dataset.events, tmp_path).go(Memory())
    assert found["action"] == "wait"
    assert "500 needed" in found["waits"]
    plain = replace(world.version, feature_map=replace(world.version.feature_map, relations=None))
    Registry(settings.registry_uri).publish("medley", plain.save)
    events = world.dataset.events["event_id"].combine_chunks()
    blind = PpoJob.of(world.dataset, settings, "medley", Stages(None), tmp_path, events)
    assert "knows nothing of its items' content" in blind.go(Memory())["waits"]
