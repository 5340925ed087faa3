"""Mean rewards of every situation and item, fitted on the logged choices of some of the situations.

    prediction(row, item) = b + x·β + α_item + g·γ + x'ᵀWg'        and a `Link` from there to the mean reward

x are indicators of the context, g of the item, x' and g' their leading components. Each block has a ridge
penalty of its own, chosen by cross-validation over users from a grid that reaches to "no effect": with few
clicks what is left are shrunken item means.

Shapes: N rows, I items, X context indicators, C of them compressed, G item numbers, E of them compressed, D all
columns, K items of one question.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
from scipy import linalg

from actors.features.features import Floats, Ints
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.worlds import design
from tune.worlds.levels import Levels
from tune.worlds.link import Link

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

    def take(self, rows: Ints) -> "Table":
        return replace(self, context_NX=self.context_NX[rows], short_NC=self.short_NC[rows])

    @classmethod
    def of(cls, dataset: Dataset, events: pa.Table, item_N: Ints) -> "Table":
        context_NX = design.contexts(dataset, events)
        item_IG = design.items(dataset.items)
        counts_I = np.bincount(item_N, minlength=len(dataset.items))
        leading = [i for i in np.argsort(-counts_I, kind="stable")[:ITEMS] if counts_I[i]]
        own_I = np.full(len(dataset.items), -1, dtype=np.int64)
        own_I[leading] = np.arange(len(leading))
        # An item's place among the others: its attributes, and with few items each item by itself.
        described = np.hstack([item_IG, np.eye(len(dataset.items))[:, leading]])
        short_IE = design.compress(described - described.mean(0), ITEM_RANK)
        return cls(context_NX, design.compress(context_NX, CONTEXT_RANK), item_IG, short_IE, own_I)


@dataclass(frozen=True)
class Surface:
    """The means of every row of a table. item_I and short_IE end with an item that is average in everything."""

    row_N: Floats
    row_NE: Floats
    item_I: Floats
    short_IE: Floats
    levels: Levels
    link: Link
    penalties: tuple[float, ...]

    @classmethod
    def fit(cls, table: Table, item_N: Ints, reward_N: Floats, user_N: Ints, seed: int, rows: Ints) -> "Surface":
        """Fitted on `rows`, for all rows. Raises EvidenceError where `rows` are of fewer than two users."""
        reward_n, centre = reward_N[rows], float(reward_N[rows].mean())
        theta_D, left_out_n, penalties = _fit(table.take(rows), item_N[rows], reward_n, user_N[rows], seed)
        levels = Levels.of(reward_n)
        x, g = table.context_NX.shape[1], table.item_IG.shape[1]
        c, e = table.short_NC.shape[1], table.short_IE.shape[1]
        own = int(table.own_I.max(initial=-1)) + 1
        item_I = table.item_IG @ theta_D[x : x + g]
        item_I += np.where(table.own_I >= 0, np.append(theta_D[x + g : x + g + own], 0.0)[table.own_I], 0.0)
        return cls(
            row_N=centre + table.context_NX @ theta_D[:x],
            row_NE=table.short_NC @ theta_D[x + g + own :].reshape(c, e),
            item_I=np.append(item_I, 0.0),
            short_IE=np.vstack([table.short_IE, np.zeros(e)]),
            levels=levels,
            link=Link.fit(left_out_n, reward_n, levels),
            penalties=penalties,
        )

    def means(self, row: int, item_K: Ints) -> Floats:
        """Expected rewards, (K,); item -1 is the average one."""
        raw_K = self.row_N[row] + self.item_I[item_K] + self.short_IE[item_K] @ self.row_NE[row]
        return self.link(raw_K)


def _fit(
    table: Table, item_N: Ints, reward_N: Floats, user_N: Ints, seed: int
) -> tuple[Floats, Floats, tuple[float, ...]]:
    """θ around the mean reward, (D,); predictions of each row from the other folds, (N,); the penalty of each block."""
    users = np.unique(user_N)
    if len(users) < 2:
        raise EvidenceError("a reward model needs held-out events of at least 2 users; import more")
    folds = min(FOLDS, len(users))
    shuffled_U = np.random.default_rng([seed, 0x3041D]).permutation(len(users))
    fold_N = shuffled_U[np.searchsorted(users, user_N)] % folds
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
    return _solve(total_DD, shift_FD.sum(0), np.asarray(penalties)[block_D]), left_out(penalties), penalties


def _search(error: Callable[[tuple[float, ...]], float]) -> tuple[float, ...]:
    """From no effect at all: item intercepts first, then main effects, then crosses, each at its best."""
    chosen = [NONE] * len(GRID)
    for block in (1, 0, 2):
        tried = [(*chosen[:block], penalty, *chosen[block + 1 :]) for penalty in (NONE, *GRID[block])]
        chosen[block] = tried[int(np.argmin([error(penalties) for penalties in tried]))][block]
    return tuple(chosen)


def _solve(gram_DD: Floats, shift_D: Floats, ridge_D: Floats) -> Floats:
    return np.asarray(linalg.solve(gram_DD + np.diag(ridge_D), shift_D, assume_a="pos"))
