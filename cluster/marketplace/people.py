"""The synthetic users of the marketplace: kinds of taste, seen only in part in what is known of a user.

Shapes: U users, Z kinds, T styles, G categories, H hidden dimensions.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.marketplace.wares import CATEGORIES, HIDDEN, STYLES
from cluster.records import USERS, encode

AGES = ("18-29", "30-44", "45-59", "60+")
REGIONS = ("north", "south", "east", "west", "islands")
DEVICES = ("mobile", "desktop", "tablet")
KINDS = 5
TOLD_SHARE = 0.5
NEWCOMER_SHARE = 0.4


@dataclass(frozen=True)
class People:
    """U users. budget_U: log price they like best; start_U: share of the days after which a user first comes."""

    kind_U: NDArray[np.int64]
    client_U: NDArray[np.int64]
    age_U: NDArray[np.int64]
    region_U: NDArray[np.int64]
    member_U: NDArray[np.bool_]
    style_UT: NDArray[np.float64]
    category_UG: NDArray[np.float64]
    charm_UH: NDArray[np.float64]
    budget_U: NDArray[np.float64]
    device_UD: NDArray[np.float64]
    activity_U: NDArray[np.float64]
    start_U: NDArray[np.float64]
    clients: int

    @classmethod
    def make(cls, seed: int, users: int, clients: int) -> "People":
        """Each client has its own mix of kinds. Half of the users show their kind in age or region."""
        rng = np.random.default_rng([seed, 0x9E09])
        mix_CZ = rng.dirichlet(np.full(KINDS, 2.0), size=clients)
        client_U = rng.choice(clients, size=users, p=_shares(clients))
        kind_U = (rng.random((users, 1)) > mix_CZ.cumsum(axis=1)[client_U]).sum(axis=1).clip(max=KINDS - 1)
        style_ZT = rng.normal(0, 0.9, (KINDS, len(STYLES)))
        category_ZG = rng.normal(0, 0.6, (KINDS, len(CATEGORIES)))
        charm_ZH = rng.normal(0, 0.9, (KINDS, HIDDEN))
        told_U2 = rng.random((users, 2)) < TOLD_SHARE
        return cls(
            kind_U,
            client_U,
            np.where(told_U2[:, 0], kind_U % len(AGES), rng.integers(len(AGES), size=users)),
            np.where(told_U2[:, 1], kind_U % len(REGIONS), rng.integers(len(REGIONS), size=users)),
            rng.random(users) < 0.3,
            style_ZT[kind_U] + rng.normal(0, 0.35, (users, len(STYLES))),
            category_ZG[kind_U] + rng.normal(0, 0.3, (users, len(CATEGORIES))),
            charm_ZH[kind_U] + rng.normal(0, 0.3, (users, HIDDEN)),
            rng.normal(3.2, 0.4, KINDS)[kind_U] + rng.normal(0, 0.2, users),
            rng.dirichlet(np.array([3.0, 2.0, 0.8]), size=KINDS)[kind_U],
            rng.gamma(0.8, 1.0, users) + 0.05,
            np.where(rng.random(users) < NEWCOMER_SHARE, rng.uniform(0.1, 0.95, users), 0.0),
            clients,
        )

    def __len__(self) -> int:
        return len(self.kind_U)

    def ids(self) -> list[str]:
        return [f"user-{u}" for u in range(len(self))]

    def known(self, user: int) -> dict[str, str]:
        """What a client has on record of a user; whether one is a member, requests say."""
        return {"age": AGES[self.age_U[user]], "region": REGIONS[self.region_U[user]]}

    def table(self) -> pa.Table:
        n = len(self)
        columns = {
            "user_id": self.ids(),
            "client_id": [f"client-{c}" for c in self.client_U],
            "attributes": [encode(self.known(u)) for u in range(n)],
        }
        return pa.table([pa.array(columns.get(f.name, [None] * n), f.type) for f in USERS], schema=USERS)


def _shares(clients: int) -> NDArray[np.float64]:
    """Client c has twice the traffic of client c + 1."""
    raw = 0.5 ** np.arange(clients)
    return np.asarray(raw / raw.sum(), np.float64)
