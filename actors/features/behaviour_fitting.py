"""How `Behaviour` is estimated from the fit rows.

Shapes: N rows, I items, U takers (a user; without one, a session; without either, a row), F folds + 1, R rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.behaviour import FOLDS, Behaviour, fold
from actors.features.catalogue import SIMILARITY_RANK, row_numbers, unit
from actors.features.features import Floats, Ints
from actors.features.lowrank import aligned, truncated_svd
from actors.features.recent import recent_rows

SHRINK = 5.0


def fit_behaviour(events: pa.Table, ids: Sequence[str], rank: int, seed: int) -> Behaviour:
    """Statistics of these events for the items `ids` (I)."""
    log = _Log.read(events, ids)
    taken = log.taken()
    reward_FI = np.stack([_mean_reward(log, log.rows(f)) for f in range(FOLDS + 1)])
    count_FI = np.stack([np.asarray(taken[log.takers(f)].sum(axis=0)).ravel() for f in range(FOLDS + 1)])
    vectors_FIR = _together(taken, log, seed)
    width = min(rank, vectors_FIR.shape[2])
    spread = float(np.sqrt((vectors_FIR[-1, :, :width] ** 2).mean())) if width else 0.0
    facts_FIC = np.concatenate(
        [_standard(np.log1p(count_FI))[..., None], _standard(reward_FI)[..., None],
         vectors_FIR[:, :, :width] / (spread or 1.0)], axis=2,
    )  # fmt: skip
    names = np.array(["popularity", "mean reward", *(f"behaviour[{r}]" for r in range(width))])
    varies_C = facts_FIC.std(axis=(0, 1)) > 1e-9
    similar_FIR = unit(vectors_FIR) * (count_FI / (count_FI + SHRINK))[..., None]
    return Behaviour(tuple(names[varies_C].tolist()), _padded(facts_FIC[..., varies_C]), _padded(similar_FIR))


def _padded(table_FIC: Floats) -> Floats:
    """With the row of an unknown item, zeros, at the end."""
    return np.concatenate([table_FIC, np.zeros((len(table_FIC), 1, table_FIC.shape[2]))], axis=1)


def _standard(table_FI: Floats) -> Floats:
    """Every fold centred over items, all scaled by the whole's deviation."""
    deviation = float(table_FI[-1].std())
    centred_FI = table_FI - table_FI.mean(axis=1, keepdims=True)
    return centred_FI / deviation if deviation > 1e-12 else np.zeros_like(table_FI)


@dataclass(frozen=True)
class _Log:
    """Rows with their taker, and the fold of each taker (-1 where it is no user)."""

    items: int
    taker_N: Ints
    fold_U: Ints
    item_N: Ints
    reward_N: Floats
    recent_N: list[Ints]

    @classmethod
    def read(cls, events: pa.Table, ids: Sequence[str]) -> "_Log":
        index = {name: i for i, name in enumerate(ids)}
        pairs = zip(events["user_id"].to_pylist(), events["session_id"].to_pylist(), strict=True)
        number: dict[tuple[str, str | int], int] = {}
        folds: list[int] = []
        taker_N = np.empty(len(events), np.int64)
        for n, (user, session) in enumerate(pairs):
            taker = ("user", user) if user else ("session", session) if session else ("row", n)
            taker_N[n] = number.setdefault(taker, len(number))
            if len(number) > len(folds):
                folds.append(fold(user) if user else -1)
        rewards_N = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
        items_N = row_numbers(index, events["item_id"].to_pylist())
        return cls(len(ids), taker_N, np.array(folds), items_N, rewards_N, recent_rows(events, index))

    def takers(self, f: int) -> NDArray[np.bool_]:
        """Whose actions table f tells of."""
        return self.fold_U >= 0 if f == FOLDS else self.fold_U != f

    def rows(self, f: int) -> NDArray[np.bool_]:
        """Rewarded rows of those takers."""
        return self.takers(f)[self.taker_N] & (self.item_N >= 0) & np.isfinite(self.reward_N)

    def taken(self) -> Any:
        """Sparse takers x items, 1 where an item is among the recent ones or its reward was above the mean."""
        from scipy import sparse

        rewarded_N = (self.item_N >= 0) & np.isfinite(self.reward_N)
        mean = self.reward_N[rewarded_N].mean() if rewarded_N.any() else 0.0
        won_N = np.flatnonzero(rewarded_N & (np.nan_to_num(self.reward_N, nan=-np.inf) > mean))
        lengths_N = [len(rows) for rows in self.recent_N]
        takers = np.concatenate([np.repeat(self.taker_N, lengths_N), self.taker_N[won_N]])
        items = np.concatenate([*self.recent_N, self.item_N[won_N]])
        pairs = np.unique(np.stack([takers, items]), axis=1)
        ones = np.ones(pairs.shape[1])
        return sparse.csr_matrix((ones, (pairs[0], pairs[1])), shape=(len(self.fold_U), self.items))


def _mean_reward(log: _Log, rows_N: Any) -> Floats:
    """Mean reward per item, shrunk to the mean of all by κ = σ²/τ² rows (empirical Bayes, moments)."""
    item, reward = log.item_N[rows_N], log.reward_N[rows_N]
    if not len(item):
        return np.zeros(log.items)
    count_I = np.bincount(item, minlength=log.items)
    total_I = np.bincount(item, reward, minlength=log.items)
    mean = reward.mean()
    raw_I = np.where(count_I > 0, total_I / np.maximum(count_I, 1), mean)
    within = ((reward - raw_I[item]) ** 2).sum() / max(len(item) - (count_I > 0).sum(), 1)
    between = (count_I * (raw_I - mean) ** 2).sum() - within * ((count_I > 0).sum() - 1)
    between /= max(len(item) - (count_I**2).sum() / len(item), 1e-12)
    if between <= 0:
        return np.full(log.items, mean)
    shrink = max(within / between, 1e-9)
    return np.asarray((total_I + shrink * mean) / (count_I + shrink))


def _together(taken: Any, log: _Log, seed: int) -> Floats:
    """vectors_FIR of items from whom they are taken with: SVD of positive pointwise mutual information
    (Levy & Goldberg 2014; context counts to the power 0.75), every fold turned to agree with the whole."""
    whole = _ppmi_vectors(taken[log.takers(FOLDS)], SIMILARITY_RANK, seed)
    if not whole.size:
        return np.zeros((FOLDS + 1, log.items, 0))
    tables = []
    for f in range(FOLDS):
        part = _ppmi_vectors(taken[log.takers(f)], SIMILARITY_RANK, seed)
        padded = np.zeros_like(whole)
        width = min(part.shape[1], whole.shape[1])
        padded[:, :width] = part[:, :width]
        tables.append(aligned(padded, whole))
    return np.stack([*tables, whole])


def _ppmi_vectors(taken: Any, rank: int, seed: int) -> Floats:
    together = (taken.T @ taken).tocoo()
    off = together.row != together.col
    row, col, count = together.row[off], together.col[off], together.data[off]
    if not len(count):
        return np.zeros((taken.shape[1], 0))
    total_I = np.bincount(row, count, minlength=taken.shape[1])
    smooth_I = total_I**0.75
    mutual = np.log(count * smooth_I.sum() / (total_I[row] * smooth_I[col]))
    from scipy import sparse

    keep = mutual > 0
    matrix = sparse.csr_matrix((mutual[keep], (row[keep], col[keep])), shape=together.shape)
    left, singular, _ = truncated_svd(matrix, rank, seed)
    return left * np.sqrt(singular)
