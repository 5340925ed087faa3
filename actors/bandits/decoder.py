"""A context's code -> what its S priors add to the pooled one: the generator's head in NumPy.

    m_s = μ + U h_s,   V_s = V diag(e^{g_s}),   (h_s, g_s) = f(q, z_s)

as in `actors.generator.head`, where it is trained; here it is a few small products, which a decision can afford.

Shapes: Q code dimensions, S codes z, W hidden width, R rank, A arms, D features, N rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from actors.features.features import Floats, Ints
from cluster.errors import ModelError

SMALL = -2.0
"""g = SMALL + 2 tanh(g'/2): V_s is between e⁻⁴ of V and V."""


@dataclass(frozen=True)
class Decoder:
    """first_WI, last_OW, direct_OI: f, a layer of tanh and a linear path beside it, I = Q + S, O = 2R.

    shift_ADR (U), spread_ADR (V), mean_AD (μ).
    """

    first_WI: Floats
    last_OW: Floats
    direct_OI: Floats
    shift_ADR: Floats
    spread_ADR: Floats
    mean_AD: Floats

    def check(self, name: str, width: int, shape: tuple[int, int]) -> None:
        """Raises ModelError unless it is finite and fits codes of this width and means of this shape."""
        inputs, rank = self.first_WI.shape[1], self.shift_ADR.shape[-1]
        fits = self.direct_OI.shape == (2 * rank, inputs) and self.last_OW.shape == (2 * rank, len(self.first_WI))
        fits &= self.mean_AD.shape == shape and self.shift_ADR.shape == self.spread_ADR.shape == (*shape, rank)
        if not (fits and inputs > width):
            raise ModelError(f"{name}: the decoder does not fit codes of {width} and parameters of {shape}")
        if not all(np.isfinite(array).all() for array in vars(self).values()):
            raise ModelError(f"{name}: the decoder's parameters must be finite; generate again")

    def outputs(self, code_Q: Floats) -> tuple[Floats, Floats]:
        """h_SR and e^g_SR of a context."""
        width, rank = len(code_Q), self.shift_ADR.shape[-1]
        hidden_SW = np.tanh(self.first_WI[:, :width] @ code_Q + self.first_WI[:, width:].T)
        out_SO = hidden_SW @ self.last_OW.T + (self.direct_OI[:, :width] @ code_Q + self.direct_OI[:, width:].T)
        return out_SO[:, :rank], np.exp(SMALL + 2 * np.tanh(out_SO[:, rank:] / 2))

    def project(self, phi_ND: Floats, arm_N: Ints) -> tuple[Floats, Floats, Floats]:
        """φᵀμ (N,), φᵀU (N, R), φᵀV (N, R) of rows."""
        if len(self.mean_AD) == 1:
            return phi_ND @ self.mean_AD[0], phi_ND @ self.shift_ADR[0], phi_ND @ self.spread_ADR[0]
        mean_N = np.einsum("nd,nd->n", phi_ND, self.mean_AD[arm_N])
        both = (np.matmul(phi_ND[:, None], array[arm_N])[:, 0] for array in (self.shift_ADR, self.spread_ADR))
        return mean_N, *both

    def moved(self, shift_AD: Floats) -> "Decoder":
        """With another μ."""
        return replace(self, mean_AD=self.mean_AD + shift_AD)
