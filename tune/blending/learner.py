"""PPO's update on batches of arrays, kept near the plain blend.

Beside PPO's own loss stand three. The blend should foretell what the item taken earns: its squared error teaches the
residual which members to believe, also where other weights would not change the choice. Two are zero within their
bounds: on KL(π‖π₀) above `kl_most`, and on an entropy below `entropy_least` of the plain blend's. RLlib's connectors,
which make lists of an episode's steps, are left out: with gamma 0 the advantage is the reward less what the critic
expects, which needs none of them.

Shapes: B decisions of a batch, K items.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import ALL_MODULES, DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.metrics import NUM_ENV_STEPS_TRAINED_LIFETIME

from actors.features.features import Ints
from tune.blending.gradient import Gradient, Loss, Rows
from tune.blending.module import PLAIN, BlendModule
from tune.blending.policy import BlendPolicy

PLAIN_KL, PLAIN_ENTROPY = "kl_to_plain", "plain_entropy"
"""Names in the results: KL(π‖π₀), and the entropy of π₀."""
PENALTY = 5.0
"""Loss per nat beyond a bound: well above the reward that a nat could bring, with rewards in [0, 1]."""
FORETELL = 1.0
"""Weight of the blend's squared error of the item taken, in units of the variance of what the critic misses."""
TOLD = 1024
"""Decisions of a batch by which the learning curve is told."""
Batch = dict[str, torch.Tensor]


class BlendLearner(PPOTorchLearner):
    """For episodes of `tune.blending.runner`; `learner_config_dict` has kl_most and entropy_least."""

    _foretell = FORETELL
    """Per squared reward; of the batch that is learned from."""

    def update(  # type: ignore[override]
        self,
        *,
        training_data: TrainingData,
        timesteps: dict[str, Any] | None = None,
        num_epochs: int = 1,
        minibatch_size: int | None = None,
        **kwargs: Any,
    ) -> Any:
        self._check_is_built()
        self.before_gradient_based_update(timesteps=timesteps or {})
        batch = self._arrays(training_data.episodes or [])
        decisions = len(batch[Columns.ACTIONS])
        generator = np.random.default_rng([self.config.seed or 0, self._weights_seq_no])
        self._weights_seq_no += 1
        orders = [generator.permutation(decisions) for _ in range(num_epochs)]
        if str(self._device) == "cpu":
            self._descend(batch, orders, minibatch_size or decisions)
        else:
            for rows in (rows for order in orders for rows in _minibatches(order, minibatch_size or decisions)):
                self._update({DEFAULT_MODULE_ID: {name: column[rows] for name, column in batch.items()}})
        self._tell({name: column[:TOLD] for name, column in batch.items()})
        self.metrics.log_value((ALL_MODULES, NUM_ENV_STEPS_TRAINED_LIFETIME), decisions, reduce="lifetime_sum")
        self.after_gradient_based_update(timesteps=timesteps or {})
        return self.metrics.reduce()

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        parameters = self.get_parameters(self.module[module_id])
        optimizer = torch.optim.Adam(parameters, fused=True)  # a sixth of the time of one by one
        self.register_optimizer(
            module_id=module_id, optimizer=optimizer, params=parameters, lr_or_lr_schedule=config.lr
        )

    def _descend(self, batch: Batch, orders: Sequence[Ints], minibatch: int) -> None:
        """Steps by the gradient that is written out; the loss is that of `compute_loss_for_module`."""
        policy, config = self._policy, self.config
        assert isinstance(config, PPOConfig)
        entropy = float(self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value())
        loss = Loss(
            config.clip_param,
            config.vf_loss_coeff,
            self._foretell,
            entropy,
            **config.learner_config_dict,
            penalty=PENALTY,
        )
        columns = (Columns.ACTIONS, Columns.ACTION_LOGP, Postprocessing.ADVANTAGES, Postprocessing.VALUE_TARGETS)
        rows = Rows.of(policy, batch[Columns.OBS].numpy(), *(batch[name].numpy() for name in columns))
        gradient, optimizer = Gradient(policy), self.get_optimizer(DEFAULT_MODULE_ID)
        parameters = list(policy.parameters())
        for order in orders:
            drawn = rows.take(order)
            for part in _minibatches(np.arange(len(order)), minibatch):
                gradient(drawn.take(slice(int(part[0]), int(part[-1]) + 1)), loss)
                if torch.isfinite(torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip or np.inf)):
                    optimizer.step()

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Any:
        bounds = config.learner_config_dict
        log_pi_BK, plain_BK = fwd_out[Columns.ACTION_DIST_INPUTS], fwd_out[PLAIN]
        pi_BK = log_pi_BK.exp()
        logp_B = log_pi_BK.gather(1, batch[Columns.ACTIONS][:, None])[:, 0]
        ratio_B = (logp_B - batch[Columns.ACTION_LOGP]).exp()
        advantage_B, clip = batch[Postprocessing.ADVANTAGES], config.clip_param
        gain_B = torch.min(ratio_B * advantage_B, ratio_B.clamp(1 - clip, 1 + clip) * advantage_B)
        error_B = self._policy.value(batch[Columns.OBS]) - batch[Postprocessing.VALUE_TARGETS]
        entropy, kl = -(pi_BK * log_pi_BK).sum(1).mean(), (pi_BK * (log_pi_BK - plain_BK)).sum(1).mean()
        least = -bounds["entropy_least"] * (plain_BK.exp() * plain_BK).sum(1).mean()
        beyond = torch.relu(kl - bounds["kl_most"]) + torch.relu(least - entropy)
        foretold_BK = self._policy.foretold(batch[Columns.OBS])
        miss_B = foretold_BK.gather(1, batch[Columns.ACTIONS][:, None])[:, 0] - batch[Postprocessing.VALUE_TARGETS]
        errors = config.vf_loss_coeff * error_B.square().mean() + self._foretell * miss_B.square().mean()
        loss = -gain_B.mean() + errors + PENALTY * beyond
        return loss - self.entropy_coeff_schedulers_per_module[module_id].get_current_value() * entropy

    @property
    def _policy(self) -> BlendPolicy:
        module = self.module[DEFAULT_MODULE_ID].unwrapped()
        assert isinstance(module, BlendModule)
        return module.policy

    def _arrays(self, episodes: list[Any]) -> Batch:
        """The decisions of the episodes as tensors, with advantages."""

        def joined(parts: list[Any]) -> torch.Tensor:
            return torch.from_numpy(parts[0] if len(parts) == 1 else np.concatenate(parts)).to(self._device)

        batch = {
            Columns.OBS: joined([e.observations.data[:-1] for e in episodes]),
            Columns.ACTIONS: joined([e.actions.data for e in episodes]),
            Columns.ACTION_LOGP: joined([e.extra_model_outputs[Columns.ACTION_LOGP].data for e in episodes]),
            Postprocessing.VALUE_TARGETS: joined([e.rewards.data for e in episodes]),
        }
        with torch.no_grad():
            value_B = self._policy.value(batch[Columns.OBS])
        above_B = batch[Postprocessing.VALUE_TARGETS] - value_B
        spread = above_B.std().clamp_min(1e-4)
        batch[Postprocessing.ADVANTAGES] = (above_B - above_B.mean()) / spread
        self._foretell = FORETELL / float(spread) ** 2
        return batch

    @torch.no_grad()
    def _tell(self, batch: Batch) -> None:
        """What became of the policy on this batch, for the learning curve."""
        log_pi_BK, plain_BK = self._policy(batch[Columns.OBS])
        pi_BK, plain_pi_BK = log_pi_BK.exp(), plain_BK.exp()
        logp_B = log_pi_BK.gather(1, batch[Columns.ACTIONS][:, None])[:, 0]
        ratio_B = (logp_B - batch[Columns.ACTION_LOGP]).exp()
        error_B = self._policy.value(batch[Columns.OBS]) - batch[Postprocessing.VALUE_TARGETS]
        told = {
            POLICY_LOSS_KEY: -(ratio_B * batch[Postprocessing.ADVANTAGES]).mean(),
            VF_LOSS_KEY: error_B.square().mean(),
            ENTROPY_KEY: -(pi_BK * log_pi_BK).sum(1).mean(),
            PLAIN_KL: (pi_BK * (log_pi_BK - plain_BK)).sum(1).mean(),
            PLAIN_ENTROPY: -(plain_pi_BK * plain_BK).sum(1).mean(),
        }
        self.metrics.log_dict({name: float(value) for name, value in told.items()}, key=DEFAULT_MODULE_ID, window=1)


def _minibatches(order: Any, size: int) -> list[torch.Tensor]:
    """Rows of full minibatches; what is left over is in another epoch's, since each has its own order."""
    size = min(size, len(order))
    return list(torch.from_numpy(order[: len(order) // size * size]).split(size))
