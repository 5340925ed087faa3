"""A world fitted on logged feedback: it answers for choices that nobody made.

Its mean rewards are a `Surface`, fitted on the world part alone; it sees no model under test, and does not share
their features. `fidelity` says how well it reproduces what it was not fitted on.

Shapes: N rows, K items.
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa

from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.split import task_codes
from tune.worlds.base import draw
from tune.worlds.fidelity import Fidelity
from tune.worlds.held_out import HeldOut
from tune.worlds.segments import segments
from tune.worlds.surface import Surface, Table

FOLDS = 3
"""Of users: each is predicted by a model fitted on the other two thirds."""


class RewardModel:
    """The fitted world. Where the log says positions, a situation keeps its own, whatever slot is asked for.

    Raises EvidenceError where the world part has fewer than two users or no reward.
    """

    def __init__(self, dataset: Dataset, rows: Ints, kind: RewardKind, seed: int):
        self.events: pa.Table = dataset.events.take(rows)
        self.seed, self._dataset = seed, dataset
        rewards = self.events["reward"]
        if rewards.null_count == len(rewards):
            raise EvidenceError(
                f"none of the {len(rewards)} held-out events has a reward, so no reward model can answer for "
                "the world; map the reward column, or import more"
            )
        self._reward_N = np.clip(rewards.fill_null(kind.default).to_numpy(), kind.low, kind.high)
        self._catalogue: list[str] = dataset.items["item_id"].to_pylist()
        self._index = {item: i for i, item in enumerate(self._catalogue)}
        self._item_N = self._places(self.events["item_id"].to_pylist())
        if (self._item_N < 0).any():
            raise EvidenceError("the log names items that the items table does not have; import the data again")
        self._user_N = task_codes(self.events)
        self._table = Table.of(dataset, self.events, self._item_N)
        self._surface = self._fitted(np.arange(len(rows)))

    def _fitted(self, rows: Ints) -> Surface:
        return Surface.fit(self._table, self._item_N, self._reward_N, self._user_N, self.seed, rows)

    def _places(self, item_ids: Sequence[str]) -> Ints:
        return np.array([self._index.get(item, -1) for item in item_ids], dtype=np.int64)

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        """Expected rewards, (K,). An item that the data set does not name counts as an average one."""
        return self._surface.means(row, self._places(item_ids))

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        mean = float(self.mean_rewards(row, [item_id])[0])
        return self._surface.levels.draw(mean, draw(self.seed, row, item_id))

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0

    @cached_property
    def fidelity(self) -> Fidelity:
        """How the same fit, on the rest of the users, reproduces what each user did.

        Raises EvidenceError where there are too few users to leave any out.
        """
        return Fidelity.of(self.held_out())

    def held_out(self) -> HeldOut:
        """What models fitted without a user say of that user's events, and what came."""
        users = int(self._user_N.max()) + 1
        if users < 2 * FOLDS:
            raise EvidenceError(f"{users} users are too few to leave any out; import more")
        fold_N = (np.random.default_rng([self.seed, 0xF1DE]).permutation(users) % FOLDS)[self._user_N]
        said_N, offered_N, level_N = np.empty((3, len(fold_N)))
        whole = np.arange(len(self._catalogue))
        offers = [whole if each is None else self._places(each) for each in self.events["candidates"].to_pylist()]
        for fold in range(FOLDS):
            rest = np.flatnonzero(fold_N != fold)
            surface = self._fitted(rest)
            level_N[fold_N == fold] = self._reward_N[rest].mean()
            for row in np.flatnonzero(fold_N == fold).tolist():
                said_N[row] = surface.means(row, self._item_N[[row]])[0]
                offered_N[row] = surface.means(row, offers[row]).mean()
        return HeldOut(
            real_N=self._reward_N,
            said_N=said_N,
            offered_N=offered_N,
            level_N=level_N,
            user_N=self._user_N,
            segments=segments(self._dataset, self.events),
            weight_N=self._uniform_over_logged([len(each) for each in offers]),
        )

    def _uniform_over_logged(self, sizes: Sequence[int]) -> Floats | None:
        propensities = self.events["propensity"]
        return None if propensities.null_count else 1 / (np.array(sizes) * propensities.to_numpy())
