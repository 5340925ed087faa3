"""The decision law with a residual in its blend, smoothed so that it has a gradient (docs/ppo.md).

    π(k) = (1 − ε)(1 − δ)·mean_p softmax_k(score_kp/T) + floor_k,    score_kp = Σ_m w_mk μ_mk + ξ_kp·Σ_m w_mk s_mk,
    w_k = blend(ℓ_k + g(x_k)),    floor_k = (1 − ε)·δ·Σ_m w̃_m π_m(k) + ε/K

ξ are P fixed standard normals, the same in every decision, in pairs ±ξ. T is a share of the plain blend's spread, so
that the softmax is near the law's argmax. With g = 0 it is the plain blend.

Shapes: B decisions, K items, M members, S those with scores, N inputs, P particles, W width, O numbers seen.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from actors.bandits.ensemble import Ensemble
from actors.bandits.residual import INPUT_MOST, RESIDUAL_MOST, Residual
from actors.features.features import Floats
from actors.features.relations import Relations
from cluster.config import PpoSettings
from tune.blend_env import SCALARS, Contexts, flat

LEAST_SCALE = 0.05
"""Inputs that hardly vary in training are divided by this: a small drift of theirs is not read as a large one."""
LEAST_TEMPERATURE = 1e-4


@dataclass(frozen=True)
class Form:
    """What a policy is made for.

    members: names. scored: places of those with scores. predefined: places of those that keep at least `floor`.
    reduced, neighbours: of the observation. items: K. particles: P. temperature: T in units of the plain blend's mean
    spread. hidden: W.
    """

    members: tuple[str, ...]
    scored: tuple[int, ...]
    predefined: tuple[int, ...]
    floor: float
    reduced: int
    neighbours: int
    items: int
    particles: int = 16
    temperature: float = 0.25
    hidden: int = 64
    seed: int = 0

    @classmethod
    def of(cls, ensemble: Ensemble, relations: Relations, items: int, ppo: PpoSettings, seed: int) -> "Form":
        """Of a version's blend, in decisions among at most so many items."""
        members = ensemble.members
        return cls(
            members=ensemble.names,
            scored=tuple(np.flatnonzero(ensemble.scored_M).tolist()),
            predefined=tuple(m for m, member in enumerate(members) if member.predefined),
            floor=ensemble.weights.predefined_floor,
            reduced=relations.axes_EQ.shape[1],
            neighbours=relations.neighbours,
            items=items,
            particles=ppo.particles,
            temperature=ppo.temperature,
            hidden=ppo.hidden,
            seed=seed,
        )

    @property
    def inputs(self) -> int:
        return self.reduced + self.neighbours + 4 * len(self.members)


class BlendPolicy(nn.Module):
    """log π of what is seen, and a critic: what the plain blend expects, corrected by a network of the same size."""

    noise_KP: Tensor
    shift_N: Tensor
    scale_N: Tensor
    floor_M: Tensor
    scored_M: Tensor

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        inputs, members, hidden = form.inputs, len(form.members), form.hidden
        torch.manual_seed(form.seed)
        self.first, self.second = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, members)
        ends = nn.Linear(hidden, 1)
        layers = (nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), ends)
        self.critic = nn.Sequential(*layers)
        for layer in (self.last, ends):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        noise = np.random.default_rng(form.seed).standard_normal((form.items, form.particles // 2))
        self.register_buffer("noise_KP", torch.tensor(np.concatenate([noise, -noise], axis=1), dtype=torch.float32))
        self.register_buffer("shift_N", torch.zeros(inputs))
        self.register_buffer("scale_N", torch.ones(inputs))
        floor_M = torch.zeros(members)
        floor_M[list(form.predefined)] = form.floor
        self.register_buffer("floor_M", floor_M)
        scored_M = torch.zeros(members)
        scored_M[list(form.scored)] = 1.0
        self.register_buffer("scored_M", scored_M)

    def standardise(self, observed_RN: Floats) -> None:
        """Take up means and spreads of what is read, of R rows."""
        self.shift_N.copy_(torch.tensor(observed_RN.mean(axis=0)))
        self.scale_N.copy_(torch.tensor(observed_RN.std(axis=0)).clamp_min(LEAST_SCALE))

    def forward(self, seen_BO: Tensor) -> tuple[Tensor, Tensor]:
        """log π (B, K), and the plain blend's log π₀."""
        rows_BKF = self._rows(seen_BO)
        return self._law(rows_BKF, self._logits(rows_BKF), seen_BO[:, -SCALARS, None]), rows_BKF[..., -1]

    def foretold(self, seen_BO: Tensor) -> Tensor:
        """What the blend with the residual expects each item to earn (B, K)."""
        rows_BKF = self._rows(seen_BO)
        return self._blended(rows_BKF, self._logits(rows_BKF))[0]

    def _logits(self, rows_BKF: Tensor) -> Tensor:
        """ℓ + g (B, K, M)."""
        inputs, members = self.form.inputs, len(self.form.members)
        first_BKW = torch.relu(self.first(rows_BKF[..., :inputs]))
        out_BKM = self.last(torch.relu(self.second(first_BKW)))
        return rows_BKF[..., inputs : inputs + members] + RESIDUAL_MOST * torch.tanh(out_BKM / RESIDUAL_MOST)

    def value(self, seen_BO: Tensor) -> Tensor:
        """The critic (B,)."""
        rows_BKF = self._rows(seen_BO)
        valid_BK1 = rows_BKF[..., -2, None]
        pooled_BN = (rows_BKF[..., : self.form.inputs] * valid_BK1).sum(1) / valid_BK1.sum(1)
        corrected: Tensor = seen_BO[:, -1] + self.critic(pooled_BN)[:, 0]
        return corrected

    def _rows(self, seen_BO: Tensor) -> Tensor:
        return seen_BO[:, :-SCALARS].view(len(seen_BO), self.form.items, -1)

    def _law(self, rows_BKF: Tensor, logits_BKM: Tensor, temperature_B1: Tensor) -> Tensor:
        mean_BK, spread_BK = self._blended(rows_BKF, logits_BKM)
        valid_BK = rows_BKF[..., -2]
        closed_BK = (valid_BK - 1) * 1e9
        mean_BK = mean_BK / temperature_B1 + closed_BK
        score_BKP = mean_BK[..., None] + (spread_BK / temperature_B1)[..., None] * self.noise_KP
        chosen_BK = torch.softmax(score_BKP, dim=1).mean(-1)  # twelve times as fast as over the last axis
        floor_BK = rows_BKF[..., -3]
        return torch.log(((1 - floor_BK.sum(1, keepdim=True)) * chosen_BK + floor_BK).clamp_min(1e-12))

    def _blended(self, rows_BKF: Tensor, logits_BKM: Tensor) -> tuple[Tensor, Tensor]:
        """Means and spreads of the blend (B, K), as `actors.bandits.blending` makes them."""
        start, members = self.form.inputs + len(self.form.members), len(self.form.members)
        share_BKM = torch.maximum(torch.softmax(logits_BKM, -1), self.floor_M) * self.scored_M
        share_BKM = share_BKM / share_BKM.sum(-1, keepdim=True)
        mean_BKM, spread_BKM = rows_BKF[..., start : start + members], rows_BKF[..., start + members : -3]
        return (share_BKM * mean_BKM).sum(-1), (share_BKM * spread_BKM).sum(-1)

    @torch.no_grad()
    def see(self, contexts: Contexts) -> Floats:
        """What the policy reads of these decisions (B, O): standardised, with π₀, T and the plain blend's value."""
        blank_BK, blank_BC = np.zeros(contexts.mask_BK.shape), np.ones((len(contexts), SCALARS))
        standard_BKN = (contexts.observed_BKN - self.shift_N.numpy()) / self.scale_N.numpy()
        contexts = replace(contexts, observed_BKN=standard_BKN.clip(-INPUT_MOST, INPUT_MOST))
        seen_BO = torch.from_numpy(flat(contexts, blank_BK, blank_BC))
        rows_BKF = self._rows(seen_BO)
        inputs, members = self.form.inputs, len(self.form.members)
        logits_BKM = rows_BKF[..., inputs : inputs + members]
        mean_BK, spread_BK = self._blended(rows_BKF, logits_BKM)
        valid_BK = rows_BKF[..., -2]
        spread_B1 = (spread_BK * valid_BK).sum(1, keepdim=True) / valid_BK.sum(1, keepdim=True)
        temperature_B1 = (self.form.temperature * spread_B1).clamp_min(LEAST_TEMPERATURE)
        plain_BK = self._law(rows_BKF, logits_BKM, temperature_B1)
        expected_B1 = (plain_BK.exp() * mean_BK * valid_BK).sum(1, keepdim=True)
        scalars_BC = torch.cat([temperature_B1, expected_B1], 1)
        return flat(contexts, plain_BK.numpy(), scalars_BC.numpy())

    def save(self, folder: Path) -> None:
        safetensors.torch.save_file(self.state_dict(), folder / "policy.safetensors")

    def load(self, folder: Path) -> None:
        self.load_state_dict(safetensors.torch.load_file(folder / "policy.safetensors"))

    def take(self, residual: Residual) -> None:
        """Go on from a published network, and from what it takes as standard."""
        arrays = residual.arrays()
        self.shift_N.copy_(torch.tensor(arrays["shift"]))
        self.scale_N.copy_(torch.tensor(arrays["scale"]))
        layers = {"first": self.first, "second": self.second, "last": self.last}
        for name, layer in layers.items():
            layer.load_state_dict({"weight": torch.tensor(arrays[name]), "bias": torch.tensor(arrays[f"{name}_bias"])})

    def residual(self) -> Residual:
        """The trained network as it is published, in double precision."""
        layers = (self.first, self.second, self.last)
        arrays = [self.shift_N, self.scale_N, *(part for layer in layers for part in (layer.weight, layer.bias))]
        numbers = (array.detach().cpu().numpy().astype(np.float64) for array in arrays)
        return Residual(self.form.members, self.form.reduced, self.form.neighbours, *numbers)
