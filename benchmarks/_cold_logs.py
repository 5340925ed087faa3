"""Newcomers: three logs, split by user, and the first interactions of users whom no model has met.

Shapes: U newcomers, N rows of all of them, D features, X context features, K candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.actions import actions
from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Features, Floats, Ints
from actors.generator.serialise import Serialiser
from actors.generator.tasks import contexts, user_keys
from cluster.config import DataSettings
from cluster.importers.imported import Options
from cluster.importers.marketplace import read_marketplace
from cluster.importers.native import read_native
from cluster.importers.transactions import read_transactions
from cluster.marketplace.marketplace import Marketplace
from cluster.records import Dataset

FIRST, PLAYED = 5, 10
"""Interactions that predictions are judged on, and decisions that a world answers."""
PERSONAL = (
    "gender,age,maritalStatus,has_children,education,occupation,income,car,Bar,CoffeeHouse,CarryAway,"
    "RestaurantLessThan20,Restaurant20To50"
)
COUPON = {
    "item_id": "coupon",
    "reward": "Y",
    "timestamp": "row()",
    "candidates": "all()",
    "user_id": f"run({PERSONAL})",
}
SEED = 0
"""Of the import, and of the marketplace's truth."""
TEST, STOP = 0.2, 0.125
"""Shares of the users: newcomers, and users who say when a training ends."""


def read(name: str, folders: Sequence[Path], settings: DataSettings) -> Dataset:
    """`coupon` (coupon.parquet), `retail` (transactions.parquet) or the built-in `marketplace`."""
    if name == "marketplace":
        return read_marketplace([], Options(), settings, SEED).dataset
    if name == "coupon":
        return read_native([find("coupon", folders)], Options(COUPON), settings, SEED).dataset
    return read_transactions([find("transactions", folders)], Options(), settings, SEED).dataset


def find(name: str, folders: Sequence[Path]) -> Path:
    found = [path for folder in folders for path in sorted(folder.rglob(f"{name}.parquet"))]
    if not found:
        told = ", ".join(map(str, folders)) or "no folder"
        raise SystemExit(f"{told}: no {name}.parquet; point --data or MEDLEY_DATA to the folder of the tables")
    return found[0]


@dataclass(frozen=True)
class Split:
    """Event rows in time order, by user; events without a user are in none."""

    fit: Ints
    stop: Ints
    test: Ints


def split(dataset: Dataset, seed: int) -> Split:
    """Users drawn by the seed."""
    events = dataset.events
    order = np.argsort(events["timestamp"].cast(pa.int64()).to_numpy(), kind="stable")
    order = order[pc.is_valid(events["user_id"]).to_numpy(zero_copy_only=False)[order]]
    keys = np.asarray(user_keys(events.take(pa.array(order))))
    users, user_N = np.unique(keys, return_inverse=True)
    place_U = np.random.default_rng(seed).permutation(len(users)) / len(users)
    place_N = place_U[user_N]
    tested, stopping = place_N < TEST, (place_N >= TEST) & (place_N < TEST + STOP)
    return Split(order[~tested & ~stopping], order[stopping], order[tested])


@dataclass(frozen=True)
class Newcomers:
    """Each user's first `PLAYED` interactions at most: rows start_U[u] to start_U[u + 1] are user u's.

    rows_N: event rows. phi_ND, arm_N, reward_N: of the logged items. context_UX, texts: of a user's first situation.
    """

    rows_N: Ints
    start_U: Ints
    phi_ND: Floats
    arm_N: Ints
    item_N: Ints
    reward_N: Floats
    context_UX: Floats
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def first(self, u: int) -> slice:
        """Rows of the first `FIRST` interactions of a user."""
        return slice(self.start_U[u], min(self.start_U[u + 1], self.start_U[u] + FIRST))

    def logged(self, rows: slice) -> Features:
        """The logged items of these rows, as if they were one decision's."""
        arm_K = self.arm_N[rows]
        phi_KD, item_K = self.phi_ND[rows], self.item_N[rows]
        return Features(phi_KD, arm_K, item_K, item_K.astype(np.uint64), np.zeros(0))

    @classmethod
    def of(cls, dataset: Dataset, rows: Ints, feature_map: FeatureMap, serialiser: Serialiser) -> "Newcomers":
        places: dict[str, list[int]] = {}
        for row, key in zip(rows.tolist(), user_keys(dataset.events.take(pa.array(rows))), strict=True):
            places.setdefault(key, []).append(row)
        kept = [mine[:PLAYED] for mine in places.values()]
        rows_N = np.concatenate(kept).astype(np.int64)
        start_U = np.concatenate([[0], np.cumsum([len(mine) for mine in kept])]).astype(np.int64)
        events = dataset.events.take(pa.array(rows_N))
        done, first = actions(feature_map, events), start_U[:-1]
        texts = tuple(serialiser.text(told) for told in contexts(dataset, rows_N[first]))
        reward_N = events["reward"].to_numpy().astype(np.float64)
        return cls(rows_N, start_U, done.phi_ND, done.arm_N, done.item_N, reward_N, done.context_NX[first], texts)


@dataclass(frozen=True)
class Stage:
    """Newcomers' first situations with all candidates: the probability of a reward of each, truth_NK, and a number in
    [0, 1) of each situation below which it comes, so that all who choose alike earn alike."""

    batch: FeatureBatch
    truth_NK: Floats
    luck_N: Floats

    @classmethod
    def of(cls, dataset: Dataset, newcomers: Newcomers, feature_map: FeatureMap, seed: int) -> "Stage":
        events = dataset.events.take(pa.array(newcomers.rows_N))
        market = Marketplace(**dataset.facts["marketplace"])
        luck_N = np.random.default_rng(seed).random(len(events))
        return cls(feature_map.batch(events), market.mean_rewards(market.situations(events)), luck_N)

    def answer(self, row: int, chosen: int) -> float:
        return float(self.luck_N[row] < self.truth_NK[row, chosen])
