"""The plain blend with PPO's residual, trained where a world answers: what `tune.ppo --data` trains, without its gate.

Shapes: K items.
"""

from dataclasses import replace
from pathlib import Path

from actors.bandits.ensemble import Ensemble
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from cluster.config import Settings
from tune.blend_env import Answers
from tune.blending.policy import BlendPolicy, Form
from tune.blending.situations import Situations, situations
from tune.worlds.base import World


def trained(
    blend: Ensemble,
    feature_map: FeatureMap,
    world: World,
    batches: int,
    settings: Settings,
    folder: Path,
) -> Ensemble:
    """The blend with a residual after so many batches of draws in a world's events, within its bounds. Needs Ray.

    folder: of its own, for checkpoints.
    """
    from tune.blending.training import Training, hold  # RLlib is imported once Ray is there

    seen = _seen(blend, feature_map, world, settings)
    relations = feature_map.relations
    assert relations is not None
    policy = BlendPolicy(Form.of(blend, relations, seen.contexts.mask_BK.shape[1], settings.ppo, settings.seed))
    policy.standardise(seen.contexts.observed_BKN[seen.contexts.mask_BK])
    seen_BO = policy.see(seen.contexts)
    answers = Answers(seen_BO, seen.contexts.reward_BK)
    with Training.opened(policy, answers, settings.ppo, settings.seed, folder) as training:
        training.go(batches, batches)
        policy = training.policy
    hold(policy, seen_BO, settings.ppo)
    return replace(blend, residual=policy.residual())


def _seen(blend: Ensemble, feature_map: FeatureMap, world: World, settings: Settings) -> Situations:
    """The events, and what each of their items earns."""
    listed: list[list[str]] = world.events["candidates"].to_pylist()

    def expected(n: int) -> Floats:
        return world.mean_rewards(n, listed[n])

    common = (settings.reward, settings.seed, settings.ppo.items)
    return situations(blend, feature_map, world.events, *common, expected=expected)
