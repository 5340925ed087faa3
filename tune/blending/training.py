"""PPO by RLlib's new API stack: configuration, checkpoints, and what comes out of it."""

from dataclasses import asdict
from pathlib import Path

from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from tune.blend_env import BlendEnv
from tune.blending.learner import BlendLearner
from tune.blending.module import BlendModule
from tune.blending.policy import Form
from tune.blending.runner import BatchEnvRunner

BATCH, EPOCHS, MINIBATCH = 4096, 4, 512
"""Decisions of a batch, passes over it, and decisions of a gradient step."""


def configuration(form: Form, folder: Path, seed: int, bounds: dict[str, float], rate: float) -> PPOConfig:
    """PPO on the decisions of a folder (`Answers.save`), sampled and learned by the batch.

    Args:
        folder: also of the policy that it starts from (`BlendPolicy.save`).
        bounds: kl_most and entropy_least (tune.blending.learner).
        rate: of learning.
    """
    module = RLModuleSpec(BlendModule, model_config={"form": asdict(form), "start": str(folder)})
    return (
        PPOConfig()
        .environment(BlendEnv, env_config={"answers": str(folder), "seed": seed})
        .env_runners(env_runner_cls=BatchEnvRunner, num_env_runners=0, rollout_fragment_length=BATCH)
        .learners(num_learners=0, learner_class=BlendLearner, learner_config_dict=bounds)
        .rl_module(rl_module_spec=module)
        .training(
            gamma=0.0,
            lr=rate,
            train_batch_size_per_learner=BATCH,
            num_epochs=EPOCHS,
            minibatch_size=MINIBATCH,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            grad_clip=0.5,
            use_kl_loss=False,
            entropy_coeff=0.0,
        )
        .debugging(seed=seed, log_level="ERROR")
    )
