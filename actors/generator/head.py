"""The head: a context embedding and a code -> the prior of one user's task.

    m_s = a μ₀ + U h_s,   Σ_s = S(τ) + diag(v) + V diag(e^{g_s})² Vᵀ,   σ²,   (h_s, g_s) = f(c, z_s)

S(τ) is the pooled posterior's covariance with its likelihood raised to 1/τ²: S(1) = S₀, about τ²S₀ where data
outweigh the prior, and never wider than the prior where they do not (an item that nobody has met would get
τ² times the prior under plain τ²S₀). a and τ² are the two scalars that temper μ₀ and S₀. In the last of several
arms, the prior of unknown items, U and V are zero and v is left out.

Shapes: U tasks, N rows, S codes, Q context dimensions, R rank, A arms, D features.
"""

import math

import torch
from torch import nn

from actors.bandits.decoder import SMALL
from actors.features.features import Floats
from actors.generator.likelihood import Batch, Rows, log_normals

WIDTH = 32


class Head(nn.Module):
    """All parameters in float64.

    Args:
        context, codes, rank, arms, dimension: Q, S, R, A, D.
        noise: σ² to start from.
        floor: least σ². Without one, rewards of few values are told "exactly" by a code for each, σ² -> 0.
        seed: of the starting weights.
    """

    def __init__(
        self,
        context: int,
        codes: int,
        rank: int,
        arms: int,
        dimension: int,
        noise: float,
        seed: int,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.context, self.codes, self.rank = context, codes, rank
        self.arms, self.dimension = arms, dimension
        random = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(*shape, generator=random, dtype=torch.float64))

        self.known_A: torch.Tensor
        self.code_SS: torch.Tensor
        known_A = torch.ones(arms, dtype=torch.float64)
        if arms > 1:
            known_A[-1] = 0.0
        self.floor: torch.Tensor
        self.register_buffer("known_A", known_A)
        self.register_buffer("floor", torch.tensor(floor, dtype=torch.float64))
        self.register_buffer("code_SS", torch.eye(codes, dtype=torch.float64))
        self.first = normal(WIDTH, context + codes, scale=(context + codes) ** -0.5)
        self.last = nn.Parameter(torch.zeros(2 * rank, WIDTH, dtype=torch.float64))
        self.direct = nn.Parameter(torch.zeros(2 * rank, context + codes, dtype=torch.float64))
        self.shift_ADR = normal(arms, dimension, rank, scale=0.1 * dimension**-0.5)
        self.spread_ADR = normal(arms, dimension, rank, scale=0.1 * dimension**-0.5)
        self.log_extra_AD = nn.Parameter(torch.full((arms, dimension), -8.0, dtype=torch.float64))
        self.mean_scale = nn.Parameter(torch.ones((), dtype=torch.float64))
        self.log_tempering = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_noise = nn.Parameter(torch.tensor(max(noise - floor, 1e-6), dtype=torch.float64).log())

    @property
    def shape(self) -> dict[str, int]:
        names = ("context", "codes", "rank", "arms", "dimension")
        return {name: getattr(self, name) for name in names}

    @property
    def noise(self) -> torch.Tensor:
        return self.floor + self.log_noise.exp()

    @property
    def extra_AD(self) -> torch.Tensor:
        """v."""
        return self.root_extra_AD.square()

    @property
    def root_extra_AD(self) -> torch.Tensor:
        return (0.5 * self.log_extra_AD).exp() * self.known_A[:, None]

    def outputs(self, code_UQ: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """h_USR and g_USR of each context with each code."""
        count = len(code_UQ)
        inputs_USI = torch.cat([code_UQ[:, None].expand(-1, self.codes, -1), self.code_SS.expand(count, -1, -1)], -1)
        hidden_USW = torch.tanh(inputs_USI @ self.first.T)
        out_USR = hidden_USW @ self.last.T + inputs_USI @ self.direct.T
        h_USR, g_USR = out_USR.split(self.rank, -1)
        return h_USR, SMALL + 2 * torch.tanh(g_USR / 2)

    def log_normals(self, batch: Batch, plain: bool = False) -> torch.Tensor:
        """log N(r_u; Φ_u m_s, G_s), (U, S); with `plain` the tempered pooled prior, h = 0 and V = 0, (U, 1)."""
        error_UN = (batch.reward_UN - self.mean_scale * batch.mean_UN) * batch.mask_UN
        base_UNN = self.base(batch)
        if plain:
            nothing = torch.zeros(*error_UN.shape, 1, dtype=torch.float64)
            zero = torch.zeros(len(error_UN), 1, 1, dtype=torch.float64)
            return log_normals(error_UN, zero, nothing, base_UNN, nothing, zero, batch.mask_UN)
        h_USR, g_USR = self.outputs(batch.code_UQ)
        shifted_UNR = self.project(self.shift_ADR, batch)
        spread_UNR = self.project(self.spread_ADR, batch)
        return log_normals(error_UN, h_USR, shifted_UNR, base_UNN, spread_UNR, g_USR.exp(), batch.mask_UN)

    def loss(self, batch: Batch, plain: bool = False) -> torch.Tensor:
        """L_u of each task, (U,)."""
        log_US = self.log_normals(batch, plain)
        return math.log(log_US.shape[1]) - log_US.logsumexp(-1)

    def silence(self) -> None:
        """Back to the tempered pooled prior: h = 0 and V = 0."""
        with torch.no_grad():
            for parameter in (self.last, self.direct, self.spread_ADR):
                parameter.zero_()

    def base_covariance(self, rows: Rows) -> Floats:
        """S(τ) + diag(v) with the pooled fit on all users, (A, D, D)."""
        whole = len(rows.whitened.weight_FAD) - 1
        covariance_ADD = rows.whitened.covariance(whole, self.log_tempering.exp().item())
        extra_AD = self.extra_AD.detach().numpy()
        covariance_ADD[:, range(extra_AD.shape[1]), range(extra_AD.shape[1])] += extra_AD
        return covariance_ADD

    def base(self, batch: Batch) -> torch.Tensor:
        """ΦS(τ)Φᵀ + Φ diag(v) Φᵀ + σ²I, arms independent."""
        tempered_UND = batch.white_UND * (1 + batch.weight_UND * (-self.log_tempering).exp()).rsqrt()
        extra_UND = batch.phi_UND * self._rows(self.root_extra_AD, batch)
        both = torch.cat([tempered_UND, extra_UND], -1)
        base_UNN = both @ both.mT
        if len(self.known_A) > 1:
            base_UNN = base_UNN * (batch.arm_UN[:, :, None] == batch.arm_UN[:, None])
        return base_UNN + torch.diag_embed(torch.where(batch.mask_UN > 0, self.noise, 1.0))

    def project(self, parameters_ADR: torch.Tensor, batch: Batch) -> torch.Tensor:
        """φᵀP[arm], (U, N, R)."""
        known_ADR = parameters_ADR * self.known_A[:, None, None]
        if len(known_ADR) == 1:
            return batch.phi_UND @ known_ADR[0]
        return torch.einsum("und,undr->unr", batch.phi_UND, known_ADR[batch.arm_UN])

    def _rows(self, values_AD: torch.Tensor, batch: Batch) -> torch.Tensor:
        return values_AD[0] if len(values_AD) == 1 else values_AD[batch.arm_UN]
