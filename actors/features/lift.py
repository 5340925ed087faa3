"""What may stand beside the base features of a row: functions of them, one class for each `features.map`.

Shapes: N rows, D base features (column 0 is 1), L lifted features.
"""

from collections.abc import Sequence
from typing import Protocol, TypeAlias

from actors.features.features import Floats
from actors.features.fourier import Fourier
from actors.features.kernel import Kernel
from actors.features.neural import Neural
from actors.features.quadratic import Quadratic

Lift: TypeAlias = Quadratic | Fourier | Kernel | Neural


class Lifting(Protocol):
    """What a feature map asks of a lift. A row comes out with the same bits alone as among others."""

    @property
    def size(self) -> int:
        """L."""
        ...

    def names(self, base: Sequence[str]) -> tuple[str, ...]:
        """L names, from those of the base features."""
        ...

    def rows(self, base_ND: Floats) -> Floats:
        """base_ND -> lifted_NL."""
        ...
