"""Sampling by the batch: RLlib's runner with one forward pass for thousands of decisions.

RLlib steps an environment at a time, and one decision a step drowns in Python: 600 to 5,400 decisions a second. Here a
batch is one episode of NumPy arrays, which `tune.blending.learner` reads as such. What is drawn follows from the seed
and the number of decisions drawn before, so a run that goes on from a checkpoint draws what it would have drawn.
"""

from typing import Any

import numpy as np
import torch
from gymnasium.vector import SyncVectorEnv
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer

from actors.features.features import Floats, Ints
from tune.blend_env import BlendEnv


class BatchEnvRunner(SingleAgentEnvRunner):
    """Draws whole batches; for BlendEnv and BlendModule."""

    def make_env(self) -> None:
        """One, whose batches are drawn; RLlib goes by gymnasium's registry, which warns at every second one."""
        self.env = SyncVectorEnv([lambda: BlendEnv(self.config.env_config)])
        self.num_envs = 1

    def _sample(self, *, num_timesteps: int | None = None, **kwargs: Any) -> list[SingleAgentEpisode]:
        count = num_timesteps or self.config.get_rollout_fragment_length(self.worker_index) * self.num_envs
        assert self.env is not None
        assert self.module is not None
        env = self.env.unwrapped.envs[0]
        assert isinstance(env, BlendEnv)
        seed, drawn = self.config.seed or 0, int(self.num_env_steps_sampled_lifetime)
        rng = np.random.default_rng([seed, self.worker_index, drawn])
        places, seen_BO = env.batch(count + 1, rng)  # an episode ends with one observation more
        with torch.no_grad():
            out = self.module.forward_exploration({Columns.OBS: torch.from_numpy(seen_BO[:-1])})
        log_pi_BK = out[Columns.ACTION_DIST_INPUTS].numpy()
        action_B = _drawn(log_pi_BK, rng)
        reward_B = env.answers.draw(places[:-1], action_B, rng)
        logp_B = np.take_along_axis(log_pi_BK, action_B[:, None], 1)[:, 0]
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=count)
        self._increase_sampled_metrics(count, count)  # type: ignore[no-untyped-call]
        self._log_episode_metrics(1, float(reward_B.mean()), 0.0)  # type: ignore[no-untyped-call]
        return [episode(seen_BO, action_B, reward_B, logp_B)]


def episode(seen_BO: Floats, action_B: Ints, reward_B: Floats, logp_B: Floats) -> SingleAgentEpisode:
    """A batch of decisions as one episode of arrays; seen_BO has one row more than there are decisions."""

    def buffer(array: Floats | Ints) -> InfiniteLookbackBuffer:
        made = InfiniteLookbackBuffer(lookback=0)
        made.data, made.finalized = array, True
        return made

    return SingleAgentEpisode(
        observations=buffer(seen_BO),
        actions=buffer(action_B),
        rewards=buffer(reward_B),
        extra_model_outputs={Columns.ACTION_LOGP: buffer(logp_B)},
        terminated=True,
        len_lookback_buffer=0,
    )


def _drawn(log_pi_BK: Floats, rng: np.random.Generator) -> Any:
    """An item of each row, with these probabilities; rounding never takes one of probability 0."""
    edges_BK = np.cumsum(np.exp(log_pi_BK, dtype=np.float64), axis=1)
    return (rng.random((len(edges_BK), 1)) * edges_BK[:, -1:] >= edges_BK).sum(axis=1)
