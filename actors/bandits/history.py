"""A user's last final rewards: all the state that a generated prior has.

Shapes: N rows (at most the configured length), D features.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats, Ints


@dataclass(frozen=True, eq=False)
class History:
    """phi_ND, arm_N, reward_N (scaled to [0, 1]), the latest last.

    Hashed by identity, so that what follows from it can be kept beside it.
    """

    phi_ND: Floats
    arm_N: Ints
    reward_N: Floats

    @classmethod
    def empty(cls, dimension: int) -> "History":
        return cls(np.empty((0, dimension)), np.empty(0, np.int64), np.empty(0))

    def __len__(self) -> int:
        return len(self.reward_N)

    def append(self, phi_D: Floats, arm: int, reward: float, limit: int) -> "History":
        """One row more; the oldest leave when there are more than `limit`."""
        keep = slice(max(0, len(self) + 1 - limit), None)
        return History(
            np.concatenate([self.phi_ND, phi_D[None]])[keep],
            np.append(self.arm_N, arm)[keep],
            np.append(self.reward_N, reward)[keep],
        )
