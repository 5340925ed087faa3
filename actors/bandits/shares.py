"""Which members an item speaks for: weights that its outcomes teach, and what they say to items like it.

Each item of the catalogue has weights of the M members, from uniform on. A final reward r moves those of the item that
was chosen, by how well each member's mean μ_m at the decision foretold it (docs/law.md, "Neighbour shares"):

    w ← normalise(w′ · exp(−(r − μ_m)²/2σ²)),    w′ = (1 − h)·w + h/M

the exponentially weighted forecaster (Vovk 1990) with a fixed share h for all, so that what was learned long ago can be
unlearned (Herbster and Warmuth 1998). An item k that is like others takes from them its neighbour share

    share_km = (1 − u)·(Σ_j α_kj·w_jm + (1 − Σ_j α_kj)/M) + u/M

Shapes: B decisions, K items, J neighbours, N items that have weights, M members. Leading axes may stand before K.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.features.features import Floats, Ints

HALF_LIFE_OUTCOMES = 1_000.0
"""Outcomes of an item after which half of what they said is shared out again."""
UNIFORM = 0.01
"""u: the part of a neighbour share that is uniform, so that its logarithm is finite."""
FREE_NOISE = 0.25
"""σ² where no member states a noise: the greatest variance of a reward in [0, 1], for which the forecaster's loss is
within 2σ² ln M of the best member's whatever the rewards are (Vovk 1990)."""


@dataclass(frozen=True)
class ItemWeights:
    """What some items' outcomes have taught; all others have uniform weights.

    rows_N: their catalogue index at the fit, ascending. weights_NM: of the members; rows sum to one.
    """

    rows_N: Ints
    weights_NM: Floats

    def __len__(self) -> int:
        return len(self.rows_N)

    def only(self, members: Ints) -> "ItemWeights":
        """Of these members alone."""
        part_NM = self.weights_NM[:, members]
        total_N1 = part_NM.sum(axis=1, keepdims=True)
        even_NM = np.full(part_NM.shape, 1 / max(len(members), 1))
        return ItemWeights(self.rows_N, np.divide(part_NM, total_N1, out=even_NM, where=total_N1 > 0))

    def among(self, members: int) -> "ItemWeights":
        """Of so many members, the further ones at 1/M, which says nothing of them."""
        count = self.weights_NM.shape[1]
        further_NM = np.full((len(self), members - count), 1 / members)
        return ItemWeights(self.rows_N, np.append(count / members * self.weights_NM, further_NM, axis=1))

    def tilts(self, near_KJ: Ints, alpha_KJ: Floats) -> Floats:
        """M·share_km − 1 (..., K, M): how the neighbours tilt the members' odds, exactly 0 where none of them has said
        anything.

        Args:
            near_KJ, alpha_KJ: each item's neighbours and their parts, as in `actors.features.kin.Kin`.
        """
        count = len(self)
        if not count:
            return np.zeros((*near_KJ.shape[:-1], self.weights_NM.shape[1]))
        place_KJ = np.searchsorted(self.rows_N, near_KJ)
        place_KJ[place_KJ == count] = 0
        place_KJ[self.rows_N[place_KJ] != near_KJ] = count
        return np.asarray(np.matmul(alpha_KJ[..., None, :], self._tilt_NM.take(place_KJ, axis=0))[..., 0, :])

    @cached_property
    def _tilt_NM(self) -> Floats:
        """(1 − u)·(M·w − 1), and a last row for whoever has said nothing."""
        members = self.weights_NM.shape[1]
        tilt_NM = (1 - UNIFORM) * (members * self.weights_NM - 1)
        return np.append(tilt_NM, np.zeros((1, members)), axis=0)


class ItemLearner:
    """Learns the weights of items, one outcome after the other, and keeps their outcomes' sums.

    Args:
        scored_M: which members have scores; the others keep their weights but for the fixed share.
        noise: σ², of a scaled reward.
        start: weights that items have already.

    changed: items that have learned since somebody cleared it.
    """

    def __init__(
        self, scored_M: NDArray[np.bool_], noise: float = FREE_NOISE, start: ItemWeights | None = None
    ) -> None:
        self._scored_M, self._noise = scored_M, noise
        self._share = 1 - 0.5 ** (1 / HALF_LIFE_OUTCOMES)
        self.changed: set[int] = set()
        none = ItemWeights(np.empty(0, np.int64), np.empty((0, len(scored_M))))
        self._latest: ItemWeights | None = None
        self._take(start or none, np.zeros((len(start or none), 3)))

    def __len__(self) -> int:
        return len(self._place)

    def learn(self, item: int, mean_M: Floats, reward: float) -> None:
        """Move the weights of an item that earned `reward`, of which the members thought mean_M.

        A member without scores, or whose mean is not a number, is taken to have foretold it as well as the others do,
        weighted. Rewards and means are scaled; nothing is learned where no member had a mean.
        """
        with np.errstate(over="ignore"):
            miss_M = (reward - mean_M) ** 2
        known_M = self._scored_M & np.isfinite(miss_M)
        if not known_M.any():
            return
        n = self._row(item)
        self._sums_N3[n] += (1.0, reward, reward * reward)
        prior_M = (1 - self._share) * self._weights_NM[n] + self._share / len(mean_M)
        least = miss_M[known_M].min()
        fit_M = np.exp((least - np.where(known_M, miss_M, least)) / (2 * self._noise))
        fit_M[~known_M] = prior_M[known_M] @ fit_M[known_M] / prior_M[known_M].sum()
        weight_M = prior_M * fit_M
        self._weights_NM[n] = weight_M / weight_M.sum()
        self.changed.add(item)
        self._latest = None

    def weights(self, item: int) -> Floats:
        """Of the members (M,)."""
        n = self._place.get(item)
        return np.full(len(self._scored_M), 1 / len(self._scored_M)) if n is None else self._weights_NM[n].copy()

    def sums(self, item: int) -> tuple[float, float, float]:
        """Outcomes that moved an item's weights, and the sums of their rewards and of the squares of these, scaled."""
        n = self._place.get(item)
        count, total, squares = (0.0, 0.0, 0.0) if n is None else self._sums_N3[n].tolist()
        return count, total, squares

    def published(self) -> ItemWeights | None:
        """All weights, which never change; None where nothing is known."""
        if self._latest is None and self._place:
            rows_N, order_N = self._sorted()
            self._latest = ItemWeights(rows_N, self._weights_NM[order_N])
        return self._latest

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that was learned."""
        rows_N, order_N = self._sorted()
        return {"rows": rows_N, "weights": self._weights_NM[order_N], "sums": self._sums_N3[order_N]}

    def load(self, arrays: dict[str, NDArray[Any]]) -> None:
        """The inverse of `arrays`. Raises ValueError where their shapes do not fit."""
        rows_N, weights_NM, sums_N3 = (arrays[name] for name in ("rows", "weights", "sums"))
        expected = ((len(rows_N), len(self._scored_M)), (len(rows_N), 3))
        if (weights_NM.shape, sums_N3.shape) != expected:
            raise ValueError(f"items' weights and sums {weights_NM.shape}, {sums_N3.shape}; expected {expected}")
        self._take(ItemWeights(rows_N, weights_NM), sums_N3)

    def _take(self, known: ItemWeights, sums_N3: Floats) -> None:
        self._place = {row: n for n, row in enumerate(known.rows_N.tolist())}
        self._weights_NM, self._sums_N3 = known.weights_NM.copy(), sums_N3.copy()
        self._latest = known if len(known) else None

    def _row(self, item: int) -> int:
        """An item's place, made with uniform weights where it has none; room doubles when it is used up."""
        n = self._place.setdefault(item, len(self._place))
        if n == len(self._weights_NM):
            more = max(16, n)
            self._weights_NM = np.append(
                self._weights_NM, np.full((more, len(self._scored_M)), 1 / len(self._scored_M)), axis=0
            )
            self._sums_N3 = np.append(self._sums_N3, np.zeros((more, 3)), axis=0)
        return n

    def _sorted(self) -> tuple[Ints, Ints]:
        """The items ascending, and their places."""
        row_N = np.fromiter(self._place, np.int64, len(self._place))
        order_N = np.argsort(row_N)
        return row_N[order_N], order_N
