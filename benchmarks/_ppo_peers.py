"""The same policy trained in four ways: ours, Stable-Baselines3, RLlib as it comes, and a loop of tensors alone.

All have the same network from the same start, the same decisions, batches, epochs, minibatches, clipping, learning rate
and Adam, gamma 0, and no loss on entropy. Each is an iterator that takes one batch of samples and learns from it.
"""

import copy
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from stable_baselines3 import PPO as StablePPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import DummyVecEnv

from tune.blend_env import Answers, BlendEnv
from tune.blending.module import BlendModule
from tune.blending.policy import BlendPolicy
from tune.blending.training import BATCH, EPOCHS, MINIBATCH, configuration

RATE, CLIP, NORM, CRITIC = 3e-4, 0.2, 0.5, 0.5
"""Learning rate, clipping of ratios, greatest norm of a gradient, weight of the critic's loss."""
ENVIRONMENTS = 32
NO_BOUNDS = {"kl_most": 1e9, "entropy_least": 0.0}
"""Ours runs without its bounds, since the peers have none."""


def ours(start: BlendPolicy, folder: Path, seed: int) -> Iterator[BlendPolicy]:
    """RLlib with our runner and learner."""
    return _rllib(configuration(start.form, folder, seed, NO_BOUNDS, RATE))


def stock(start: BlendPolicy, folder: Path, seed: int) -> Iterator[BlendPolicy]:
    """RLlib's own runner over 32 environments, its own connectors and PPO learner."""
    module = RLModuleSpec(BlendModule, model_config={"form": asdict(start.form), "start": str(folder)})
    return _rllib(
        PPOConfig()
        .environment(BlendEnv, env_config={"answers": str(folder), "seed": seed})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVIRONMENTS)
        .learners(num_learners=0)
        .rl_module(rl_module_spec=module)
        .training(
            gamma=0.0,
            lambda_=1.0,
            lr=RATE,
            train_batch_size_per_learner=BATCH,
            num_epochs=EPOCHS,
            minibatch_size=MINIBATCH,
            clip_param=CLIP,
            vf_loss_coeff=CRITIC,
            grad_clip=NORM,
            use_kl_loss=False,
            entropy_coeff=0.0,
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def _rllib(config: PPOConfig) -> Iterator[BlendPolicy]:
    algorithm = config.build_algo()
    try:
        while True:
            algorithm.train()
            yield algorithm.get_module().policy
    finally:
        algorithm.stop()


def stable(start: BlendPolicy, folder: Path, seed: int) -> Iterator[BlendPolicy]:
    """Stable-Baselines3 over 32 environments in this process."""

    class Policy(ActorCriticPolicy):  # type: ignore[misc]
        """The blend in the place of Stable-Baselines3's own networks."""

        def _build(self, lr_schedule: Any) -> None:
            self.blend = copy.deepcopy(start)
            self.optimizer = torch.optim.Adam(self.blend.parameters(), lr=lr_schedule(1))

        def forward(self, obs: torch.Tensor, deterministic: bool = False) -> tuple[torch.Tensor, ...]:
            log_pi_BK = self.blend(obs)[0]
            action_B = torch.multinomial(log_pi_BK.exp(), 1)
            return action_B[:, 0], self.blend.value(obs), log_pi_BK.gather(1, action_B)[:, 0]

        def evaluate_actions(self, obs: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
            log_pi_BK = self.blend(obs)[0]
            entropy_B = -(log_pi_BK.exp() * log_pi_BK).sum(1)
            return self.blend.value(obs), log_pi_BK.gather(1, actions[:, None])[:, 0], entropy_B

        def predict_values(self, obs: torch.Tensor) -> torch.Tensor:
            return self.blend.value(obs)

    def environment(number: int) -> BlendEnv:
        return BlendEnv({"answers": str(folder), "seed": ENVIRONMENTS * seed + number})

    model = StablePPO(
        Policy,
        DummyVecEnv([partial(environment, number) for number in range(ENVIRONMENTS)]),
        n_steps=BATCH // ENVIRONMENTS,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        learning_rate=RATE,
        gamma=0.0,
        gae_lambda=1.0,
        clip_range=CLIP,
        ent_coef=0.0,
        vf_coef=CRITIC,
        max_grad_norm=NORM,
        seed=seed,
        device="cpu",
    )
    while True:
        model.learn(BATCH, reset_num_timesteps=False)
        yield model.policy.blend


def tensors(start: BlendPolicy, folder: Path, seed: int) -> Iterator[BlendPolicy]:
    """Nothing but tensors: what is left when a library costs nothing."""
    policy, answers = copy.deepcopy(start), Answers.load(str(folder))
    seen_BO, reward_BK = torch.from_numpy(answers.seen_BO.copy()), torch.from_numpy(answers.reward_BK).float()
    optimizer = torch.optim.Adam(policy.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    while True:
        places = torch.randint(len(seen_BO), (BATCH,), generator=generator)
        batch = seen_BO[places]
        with torch.no_grad():
            log_pi_BK, value_B = policy(batch)[0], policy.value(batch)
        action_B1 = torch.multinomial(log_pi_BK.exp(), 1, generator=generator)
        expected_B = reward_BK[places].gather(1, action_B1)[:, 0]
        got_B = (torch.rand(BATCH, generator=generator) < expected_B).float()
        above_B = got_B - value_B
        above_B, old_B = (above_B - above_B.mean()) / above_B.std(), log_pi_BK.gather(1, action_B1)[:, 0]
        for _ in range(EPOCHS):
            for rows in torch.randperm(BATCH, generator=generator).split(MINIBATCH):
                ratio_B = (policy(batch[rows])[0].gather(1, action_B1[rows])[:, 0] - old_B[rows]).exp()
                gain_B = torch.min(ratio_B * above_B[rows], ratio_B.clamp(1 - CLIP, 1 + CLIP) * above_B[rows])
                loss = -gain_B.mean() + CRITIC * (policy.value(batch[rows]) - got_B[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), NORM)
                optimizer.step()
        yield policy
