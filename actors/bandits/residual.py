"""What PPO adds to the blend's logits: a small network in NumPy, one for all items (docs/ppo.md).

    g_mk = G·tanh(f_m(x_k)/G),   x_k = [c_k, s_k, log M·share_mk, log M·w_m, v_m, se_m]

where f has two rectified layers and a last one that starts at zero, so that an untrained network changes nothing. It is
trained in `tune.ppo`; here it is three small products, which a decision can afford.

Shapes: K items, M members, Q reduced numbers of an item's content, J neighbours, N = Q + J + 4M inputs, W width.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.features.features import Floats
from cluster.errors import ModelError

RESIDUAL_MOST = 3.0
"""G: |g| stays below it, a factor of 20 on a weight's odds."""
INPUT_MOST = 5.0
"""Standardised inputs are held within ± it: what training never showed is read as the edge of what it did."""
LEAST_WEIGHT = 1e-6
"""Shares and weights count as at least this, so that logarithms are finite."""
ARRAYS = ("shift", "scale", "first", "first_bias", "second", "second_bias", "last", "last_bias")


def observe(
    reduced_KQ: Floats, similarity_KJ: Floats, share_KM: Floats, weights_M: Floats, values_M: Floats, errors_M: Floats
) -> Floats:
    """What the network reads of each item (..., K, N); any axes stand before K and before the members' M.

    Args:
        reduced_KQ: the item's content vector on its main axes, zeros where it has none.
        similarity_KJ: of its neighbours, the nearest first; zeros, or not numbers, where there are none.
        share_KM: neighbour shares, 1/M where nothing is known.
        weights_M, values_M, errors_M: the blend's weights and the members' values and standard errors.
    """
    members = share_KM.shape[-1]
    state_M = (np.log(np.maximum(weights_M, LEAST_WEIGHT) * members), values_M, errors_M)
    said_KM = np.log(np.maximum(share_KM, LEAST_WEIGHT) * members)
    spread = (np.broadcast_to(part_M[..., None, :], said_KM.shape) for part_M in state_M)
    return np.concatenate([reduced_KQ, np.nan_to_num(similarity_KJ), said_KM, *spread], axis=-1)


@dataclass(frozen=True)
class Residual:
    """The network.

    members: the M whose logits it moves, in their order. reduced: Q. neighbours: J. The arrays are in the order of
    `ARRAYS`: shift_N, scale_N (what standardises inputs), and three layers of (out, in) weights with biases.

    Raises:
        ModelError: shapes do not fit, or a number is not finite.
    """

    members: tuple[str, ...]
    reduced: int
    neighbours: int
    shift_N: Floats
    scale_N: Floats
    first_WN: Floats
    first_W: Floats
    second_WW: Floats
    second_W: Floats
    last_MW: Floats
    last_M: Floats

    def __post_init__(self) -> None:
        inputs, width, members = self.inputs, len(self.first_W), len(self.members)
        expected = ((inputs,), (inputs,), (width, inputs), (width,), (width, width), (width,), (members, width))
        found = tuple(array.shape for array in self._arrays)
        if found != (*expected, (members,)):
            raise ModelError(f"residual of {members} members: arrays of {found} do not fit {inputs} inputs; train anew")
        if not (all(np.isfinite(array).all() for array in self._arrays) and (self.scale_N > 0).all()):
            raise ModelError("the residual's parameters must be finite, its scales above 0; train it anew")

    @property
    def inputs(self) -> int:
        return self.reduced + self.neighbours + 4 * len(self.members)

    @property
    def _arrays(self) -> tuple[Floats, ...]:
        first = (self.shift_N, self.scale_N, self.first_WN, self.first_W)
        return (*first, self.second_WW, self.second_W, self.last_MW, self.last_M)

    def __call__(
        self,
        reduced_KQ: Floats,
        similarity_KJ: Floats,
        share_KM: Floats,
        weights_M: Floats,
        values_M: Floats,
        errors_M: Floats,
    ) -> Floats:
        """g (..., K, M), of what `observe` takes. Each decision has the bits that it has alone.

        Raises:
            ModelError: the sizes of what is observed do not fit the network.
        """
        observed_KN = observe(reduced_KQ, similarity_KJ, share_KM, weights_M, values_M, errors_M)
        sizes = (reduced_KQ.shape[-1], similarity_KJ.shape[-1], share_KM.shape[-1])
        if sizes != (self.reduced, self.neighbours, len(self.members)):
            raise ModelError(
                f"a residual of {self.reduced} content numbers, {self.neighbours} neighbours and {len(self.members)} "
                f"members does not fit {sizes}; publish a version without it, or train it anew"
            )
        return self.logits(observed_KN)

    def logits(self, observed_KN: Floats) -> Floats:
        """g (..., K, M) of rows (..., K, N) as `observe` makes them."""
        standard_KN = np.clip((observed_KN - self.shift_N) / self.scale_N, -INPUT_MOST, INPUT_MOST)
        first_KW = np.maximum(standard_KN @ self.first_WN.T + self.first_W, 0.0)
        second_KW = np.maximum(first_KW @ self.second_WW.T + self.second_W, 0.0)
        out_KM = second_KW @ self.last_MW.T + self.last_M
        return np.asarray(RESIDUAL_MOST * np.tanh(out_KM / RESIDUAL_MOST))

    def arrays(self) -> dict[str, Any]:
        return dict(zip(ARRAYS, self._arrays, strict=True))

    def facts(self) -> dict[str, Any]:
        return {"members": list(self.members), "reduced": self.reduced, "neighbours": self.neighbours}

    @classmethod
    def load(cls, arrays: dict[str, Any], facts: dict[str, Any]) -> "Residual":
        """The inverse of `arrays` and `facts`."""
        about = (tuple(facts["members"]), facts["reduced"], facts["neighbours"])
        return cls(*about, *(arrays[name] for name in ARRAYS))
