"""A world fitted on logged feedback: it answers for choices that nobody made.

    mean(row, item) = b + x·β + α_item + g·γ + x'ᵀWg'        clipped into the range of what was seen

x are indicators of the context, g of the item, x' and g' their leading components. Each block has a ridge
penalty of its own, chosen by cross-validation over users from a grid that reaches to "no effect": with few
clicks what is left are shrunken item means. The model is fitted on the world part alone, sees no model under
test, and does not share their features.

Shapes: N rows, I items, X context indicators, C of them compressed, G item numbers, E of them compressed, D all
columns, V values of the reward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import linalg

from actors.features.features import Floats, Ints
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.split import task_codes
from tune.worlds import design
from tune.worlds.base import draw

FOLDS, CONTEXT_RANK, ITEM_RANK, ITEMS = 4, 20, 16, 400
NONE = 1e9
"""A penalty that leaves no effect."""
GRID = (
    (30.0, 300.0, 3_000.0),  # context and item attributes
    (3.0, 30.0, 300.0),  # item intercepts
    (30.0, 300.0, 3_000.0),  # crosses
)


@dataclass(frozen=True)
class Table:
    """The columns of the model: block_D is 0 for main effects, 1 for item intercepts, 2 for crosses."""

    context_NX: Floats
    short_NC: Floats
    item_IG: Floats
    short_IE: Floats
    own_I: Ints

    @cached_property
    def block_D(self) -> Ints:
        main = self.context_NX.shape[1] + self.item_IG.shape[1]
        crosses = self.short_NC.shape[1] * self.short_IE.shape[1]
        return np.repeat([0, 1, 2], [main, int(self.own_I.max(initial=-1)) + 1, crosses])

    def rows(self, item_N: Ints) -> Floats:
        """The matrix of the logged choices, (N, D)."""
        n = len(item_N)
        own = np.zeros((n, int(self.own_I.max(initial=-1)) + 1))
        known = self.own_I[item_N] >= 0
        own[np.flatnonzero(known), self.own_I[item_N][known]] = 1.0
        crosses = self.short_NC[:, :, None] * self.short_IE[item_N][:, None, :]
        return np.hstack([self.context_NX, self.item_IG[item_N], own, crosses.reshape(n, -1)])


class RewardModel:
    """The fitted world. `report` says how well it reproduces what it was not fitted on.

    Raises EvidenceError where the world part has fewer than two users or no reward.
    """

    def __init__(self, dataset: Dataset, rows: Ints, kind: RewardKind, seed: int):
        self.events: pa.Table = dataset.events.take(rows)
        self.seed, self.kind = seed, kind
        rewards = self.events["reward"]
        if rewards.null_count == len(rewards):
            raise EvidenceError(
                f"none of the {len(rewards)} held-out events has a reward, so no reward model can answer for "
                "the world; map the reward column, or import more"
            )
        reward_N = np.clip(rewards.fill_null(kind.default).to_numpy(), kind.low, kind.high)
        self._index = {item: i for i, item in enumerate(dataset.items["item_id"].to_pylist())}
        item_N = np.array([self._index.get(i, -1) for i in self.events["item_id"].to_pylist()], dtype=np.int64)
        if (item_N < 0).any():
            raise EvidenceError("the log names items that the items table does not have; import the data again")
        self._levels = Levels.of(reward_N)
        table = _table(dataset, self.events, item_N)
        fit = _fit(table, item_N, reward_N, task_codes(self.events), seed)
        self.report: dict[str, float] = _report(fit, reward_N, item_N, self._levels)
        self._prepare(table, fit.theta_D, fit.centre)

    def _prepare(self, table: Table, theta_D: Floats, centre: float) -> None:
        x, g = table.context_NX.shape[1], table.item_IG.shape[1]
        c, e = table.short_NC.shape[1], table.short_IE.shape[1]
        own = int(table.own_I.max(initial=-1)) + 1
        item_I = table.item_IG @ theta_D[x : x + g]
        item_I += np.where(table.own_I >= 0, np.append(theta_D[x + g : x + g + own], 0.0)[table.own_I], 0.0)
        self._item_I = np.append(item_I, 0.0)
        self._short_IE = np.vstack([table.short_IE, np.zeros(e)])
        self._row_N = centre + table.context_NX @ theta_D[:x]
        self._row_NE = table.short_NC @ theta_D[x + g + own :].reshape(c, e)

    def mean_rewards(self, row: int, item_ids: Sequence[str], position: int = 0) -> Floats:
        """Expected rewards, (K,). An item that the data set does not name counts as an average one."""
        places = [self._index.get(item, -1) for item in item_ids]
        raw_K = self._row_N[row] + self._item_I[places] + self._short_IE[places] @ self._row_NE[row]
        return self._levels.clip(raw_K)

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return self._levels.draw(float(self.mean_rewards(row, [item_id])[0]), draw(self.seed, row, item_id))

    def delay_s(self, row: int, item_id: str) -> float:
        return 0.0


@dataclass(frozen=True)
class Levels:
    """The rewards seen, at most 32 values with their shares: draws are tilted to have the mean asked for."""

    value_V: Floats
    share_V: Floats

    @classmethod
    def of(cls, reward_N: Floats) -> "Levels":
        values, counts = np.unique(reward_N, return_counts=True)
        if len(values) > 32:
            values = np.quantile(reward_N, (np.arange(32) + 0.5) / 32)
            values, counts = np.unique(values, return_counts=True)
        return cls(values, counts / counts.sum())

    def clip(self, mean_K: Floats) -> Floats:
        """Into the range, a tenth of the way from the overall mean to its nearer end away from both ends."""
        low, high, mean = self.value_V[0], self.value_V[-1], float(self.value_V @ self.share_V)
        edge = 0.1 * min(mean - low, high - mean)
        return np.asarray(np.clip(mean_K, low + edge, high - edge))

    def draw(self, mean: float, uniform: float) -> float:
        """The value at `uniform` of the law whose mean is `mean`."""
        edges_V = np.cumsum(self.tilted(mean))
        place = np.searchsorted(edges_V, uniform * edges_V[-1], side="right")
        return float(self.value_V[min(int(place), len(edges_V) - 1)])

    def tilted(self, mean: float) -> Floats:
        """The law ∝ share·exp(λ·value) whose mean is `mean`, λ by bisection, (V,)."""
        span = self.value_V[-1] - self.value_V[0]
        if span == 0:
            return self.share_V
        target = (mean - self.value_V[0]) / span
        if len(self.value_V) == 2:
            return np.array([1 - target, target])
        scaled_V = (self.value_V - self.value_V[0]) / span
        low, high = -60.0, 60.0
        for _ in range(40):
            tilt = (low + high) / 2
            weight_V = self.share_V * np.exp(tilt * (scaled_V - (tilt > 0)))
            low, high = (tilt, high) if weight_V @ scaled_V < target * weight_V.sum() else (low, tilt)
        return np.asarray(weight_V / weight_V.sum())


@dataclass(frozen=True)
class Fit:
    """theta_D around `centre`; left_out_N predicts each row from the other folds. penalties by block."""

    theta_D: Floats
    centre: float
    left_out_N: Floats
    penalties: tuple[float, ...]


def _table(dataset: Dataset, events: pa.Table, item_N: Ints) -> Table:
    context_NX = design.contexts(dataset, events)
    item_IG = design.items(dataset.items)
    counts_I = np.bincount(item_N, minlength=len(dataset.items))
    leading = [i for i in np.argsort(-counts_I, kind="stable")[:ITEMS] if counts_I[i]]
    own_I = np.full(len(dataset.items), -1, dtype=np.int64)
    own_I[leading] = np.arange(len(leading))
    # An item's place among the others: its attributes, and with few items each item by itself.
    described = np.hstack([item_IG, np.eye(len(dataset.items))[:, leading]])
    short_IE = design.compress(described - described.mean(0), ITEM_RANK)
    return Table(context_NX, design.compress(context_NX, CONTEXT_RANK), item_IG, short_IE, own_I)


def _fit(table: Table, item_N: Ints, reward_N: Floats, user_N: Ints, seed: int) -> Fit:
    users = int(user_N.max()) + 1
    if users < 2:
        raise EvidenceError("a reward model needs held-out events of at least 2 users; import more")
    folds = min(FOLDS, users)
    fold_N = np.random.default_rng([seed, 0x3041D]).permutation(users)[user_N] % folds
    z_ND, block_D = table.rows(item_N), table.block_D
    inside = [np.flatnonzero(fold_N == fold) for fold in range(folds)]
    gram_FDD = [z_ND[rows].T @ z_ND[rows] for rows in inside]
    centre, total_DD = float(reward_N.mean()), np.sum(gram_FDD, axis=0)
    shift_FD = np.stack([z_ND[rows].T @ (reward_N[rows] - centre) for rows in inside])

    def left_out(penalties: tuple[float, ...]) -> Floats:
        predicted_N = np.full(len(reward_N), centre)
        for fold, rows in enumerate(inside):
            rest_D = shift_FD.sum(0) - shift_FD[fold]
            theta_D = _solve(total_DD - gram_FDD[fold], rest_D, np.asarray(penalties)[block_D])
            predicted_N[rows] += z_ND[rows] @ theta_D
        return predicted_N

    penalties = _search(lambda tried: float(np.mean((reward_N - left_out(tried)) ** 2)))
    theta_D = _solve(total_DD, shift_FD.sum(0), np.asarray(penalties)[block_D])
    return Fit(theta_D, centre, left_out(penalties), penalties)


def _search(error: Callable[[tuple[float, ...]], float]) -> tuple[float, ...]:
    """From no effect at all: item intercepts first, then main effects, then crosses, each at its best."""
    chosen = [NONE] * len(GRID)
    for block in (1, 0, 2):
        tried = [(*chosen[:block], penalty, *chosen[block + 1 :]) for penalty in (NONE, *GRID[block])]
        chosen[block] = tried[int(np.argmin([error(penalties) for penalties in tried]))][block]
    return tuple(chosen)


def _solve(gram_DD: Floats, shift_D: Floats, ridge_D: Floats) -> Floats:
    return np.asarray(linalg.solve(gram_DD + np.diag(ridge_D), shift_D, assume_a="pos"))


def _report(fit: Fit, reward_N: Floats, item_N: Ints, levels: Levels) -> dict[str, float]:
    """How the predictions of rows left out compare with what happened there."""
    predicted_N = levels.clip(fit.left_out_N)
    counts_I = np.bincount(item_N).astype(np.float64)
    seen = counts_I > 0
    real_I = np.bincount(item_N, reward_N)[seen] / counts_I[seen]
    model_I = np.bincount(item_N, predicted_N)[seen] / counts_I[seen]

    def spread(values_I: Floats) -> float:
        return float(np.sqrt(np.average(values_I**2, weights=counts_I[seen])))

    return {
        "events": float(len(reward_N)),
        "mean": float(reward_N.mean()),
        "predicted_mean": float(predicted_N.mean()),
        "explained": 1 - float(np.mean((reward_N - predicted_N) ** 2)) / max(float(reward_N.var()), 1e-12),
        "auc": _auc(predicted_N, reward_N > reward_N.mean()),
        "item_error": spread(model_I - real_I),
        "item_error_of_one_mean": spread(real_I - reward_N.mean()),
        "penalty_main": fit.penalties[0],
        "penalty_item": fit.penalties[1],
        "penalty_cross": fit.penalties[2],
    }


def _auc(score_N: Floats, positive_N: NDArray[np.bool_]) -> float:
    """Probability that a row above the mean reward scores above one below it (ties count half)."""
    positives, negatives = int(positive_N.sum()), int((~positive_N).sum())
    if not positives or not negatives:
        return 0.5
    _, inverse, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    rank_N = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((rank_N[positive_N].sum() - positives * (positives + 1) / 2) / (positives * negatives))
