"""Traffic as a drift detector sees it: what was done in order of time, and the blocks that one look takes in.

A block ends when it holds so many different users. Users are the unit of chance, so that a look's standard error is
between users; where blocks end depends on who came, not on what they earned.

Shapes: N events, D features, X context features, C calendar features.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from tune.split import tasks

HOURS, DAYS = 24, 7


@dataclass(frozen=True)
class Stream:
    """phi_ND, arm_N of what was chosen, what its context says (context_NX), the reward scaled to [0, 1].

    user_N: whole numbers. half_N: 0 or 1, by user. second_N: time, seconds since 1970, ascending. arms: parameter rows.
    """

    phi_ND: Floats
    arm_N: Ints
    context_NX: Floats
    reward_N: Floats
    user_N: Ints
    half_N: Ints
    second_N: Floats
    arms: int

    @classmethod
    def of(cls, feature_map: FeatureMap, events: pa.Table, kind: RewardKind) -> "Stream":
        """Events in any order; one without a reward counts as the kind's default."""
        events = events.take(pa.array(np.argsort(_seconds(events), kind="stable")))
        acted = actions(feature_map, events)
        named = tasks(events).dictionary_encode()
        half_U = np.array([_half(name) for name in named.dictionary.to_pylist()], np.int64)
        user_N = np.asarray(named.indices.to_numpy(zero_copy_only=False), np.int64)
        reward_N = np.asarray(events["reward"].fill_null(kind.default), np.float64)
        said_X = [not name.startswith("user.") for name in feature_map.context.names]
        return cls(
            phi_ND=acted.phi_ND,
            arm_N=acted.arm_N,
            context_NX=acted.context_NX[:, : len(said_X)][:, said_X],
            reward_N=(reward_N - kind.low) / (kind.high - kind.low),
            user_N=user_N,
            half_N=half_U[user_N],
            second_N=_seconds(events),
            arms=feature_map.arms,
        )

    def __len__(self) -> int:
        return len(self.reward_N)

    def take(self, rows: slice) -> "Stream":
        return Stream(
            self.phi_ND[rows],
            self.arm_N[rows],
            self.context_NX[rows],
            self.reward_N[rows],
            self.user_N[rows],
            self.half_N[rows],
            self.second_N[rows],
            self.arms,
        )

    def blocks(self, users: int) -> Iterator[slice]:
        """Rows of each block of so many different users; what is left at the end is no block yet."""
        start, seen = 0, set[int]()
        for n, user in enumerate(self.user_N.tolist()):
            seen.add(user)
            if len(seen) >= users:
                yield slice(start, n + 1)
                start, seen = n + 1, set()

    @property
    def calendar_NC(self) -> Floats:
        """Hour and weekday (UTC) as levels: what comes and goes with them is no drift."""
        hour_N = np.asarray(self.second_N // 3_600 % HOURS, np.int64)
        day_N = np.asarray(self.second_N // 86_400 % DAYS, np.int64)
        return np.concatenate([np.eye(HOURS)[hour_N], np.eye(DAYS)[day_N]], axis=1)


def _seconds(events: pa.Table) -> Floats:
    return np.asarray(events["timestamp"].cast(pa.int64()).to_numpy() / 1e6, np.float64)


def _half(name: str) -> int:
    return hashlib.blake2b(name.encode(), digest_size=1).digest()[0] % 2
