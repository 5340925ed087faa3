"""The policy as RLlib's new API stack takes it.

The action distribution is RLlib's categorical one: its logits are the law's log π, from which items that are not there
have dropped out.
"""

from pathlib import Path
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.apis.value_function_api import ValueFunctionAPI
from ray.rllib.core.rl_module.torch import TorchRLModule

from tune.blending.policy import BlendPolicy, Form

PLAIN = "plain_logits"
"""Column of log π₀."""


class BlendModule(TorchRLModule, ValueFunctionAPI):
    """Made by `model_config={"form": Form's fields, "start": folder of a policy}`."""

    policy: BlendPolicy

    def setup(self) -> None:
        assert isinstance(self.model_config, dict)
        self.policy = BlendPolicy(Form(**self.model_config["form"]))
        self.policy.load(Path(self.model_config["start"]))

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        log_pi_BK, plain_BK = self.policy(batch[Columns.OBS])
        return {Columns.ACTION_DIST_INPUTS: log_pi_BK, PLAIN: plain_BK}

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        return self.policy.value(batch[Columns.OBS])
