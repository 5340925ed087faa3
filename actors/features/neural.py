"""The last hidden layer of a small network: a linear model on it is neural-linear (Riquelme, Tucker & Snoek 2018).

Serving needs NumPy alone; `neural_fitting` trains the network.

Shapes: N rows, D base features (column 0 is 1), R of them read, H units of the first layer, W of the last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.dense import times
from actors.features.features import Floats, Ints


@dataclass(frozen=True)
class Neural:
    """tanh(tanh(x_R @ first_RH + first_H) @ last_HW + last_W), centred and scaled to deviation 1 on the fit rows."""

    read_R: Ints
    first_RH: Floats
    first_H: Floats
    last_HW: Floats
    last_W: Floats
    mean_W: Floats
    deviation_W: Floats

    @property
    def size(self) -> int:
        return len(self.last_W)

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        return tuple(f"hidden[{w}]" for w in range(self.size))

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> hidden_NW."""
        hidden_NW = self.units(base_ND)
        hidden_NW -= self.mean_W
        hidden_NW /= self.deviation_W
        return hidden_NW

    def units(self, base_ND: Floats) -> Floats:
        """The last layer as it is, within ±1."""
        first_NH = times(base_ND.take(self.read_R, axis=1), self.first_RH)
        first_NH += self.first_H
        last_NW = times(np.tanh(first_NH, out=first_NH), self.last_HW)
        last_NW += self.last_W
        return np.tanh(last_NW, out=last_NW)
