"""What the fit rows say of each item: how often it is taken, how it is rewarded, what it goes with.

A row's own outcome must not colour its own features, or a linear model fitted on them trusts them too much.
So users are hashed into folds and a user reads only what the users of the *other* folds did: the same rule
for users in and outside fit, and at serving. Rows without a user count for nothing here and read the whole.

Shapes: N rows, I items (one more row at the end: unknown), F folds + 1 (last: everybody), R rank, U users.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from actors.features.catalogue import SIMILARITY_RANK, row_numbers, unit
from actors.features.columns import context_table
from actors.features.features import Floats, Ints
from actors.features.keys import key
from actors.features.lowrank import aligned, truncated_svd

FOLDS = 4
RECENT = "recent"
TAKEN_PER_USER = 100


@dataclass(frozen=True)
class Behaviour:
    """facts_FIC: standardised log popularity, shrunken mean reward and leading co-occurrence dimensions.
    similar_FIR: vectors whose inner product says that two items go together, length at most 1."""

    facts_FIC: Floats
    similar_FIR: Floats

    @property
    def names(self) -> tuple[str, ...]:
        rank = self.facts_FIC.shape[2] - 2
        return ("popularity", "mean reward", *(f"behaviour[{r}]" for r in range(rank)))


def fold(user_id: str | None) -> int:
    """The table that a user reads: of the users in other folds, or of all (the last) without a user."""
    return key(user_id) % FOLDS if user_id else FOLDS


def fit_behaviour(events: pa.Table, ids: Sequence[str], rank: int, seed: int) -> Behaviour:
    """Statistics of these events for the items `ids` (I)."""
    log = _Log.read(events, ids)
    taken, n_folds = log.taken(), FOLDS + 1
    reward_FI = np.stack([_mean_reward(log, log.outside(f)) for f in range(n_folds)])
    count_FI = np.stack([_count(taken, log, f) for f in range(n_folds)])
    popular_FI = np.log1p(count_FI)
    vectors_FIR = _together(taken, log, seed)
    width = min(rank, vectors_FIR.shape[2])
    spread = float(np.sqrt((vectors_FIR[-1, :, :width] ** 2).mean())) if width else 0.0
    facts_FIC = np.concatenate(
        [_standard(popular_FI)[..., None], _standard(reward_FI)[..., None],
         vectors_FIR[:, :, :width] / (spread or 1.0)], axis=2,
    )  # fmt: skip
    similar_FIR = unit(vectors_FIR) * (count_FI / (count_FI + 5.0))[..., None]
    return Behaviour(_with_unknown(facts_FIC), _with_unknown(similar_FIR))


def _with_unknown(table_FIC: Floats) -> Floats:
    return np.concatenate([table_FIC, np.zeros((len(table_FIC), 1, table_FIC.shape[2]))], axis=1)


def _standard(table_FI: Floats) -> Floats:
    """Every fold centred over items, all scaled by the whole's deviation."""
    deviation = float(table_FI[-1].std())
    centred_FI = table_FI - table_FI.mean(axis=1, keepdims=True)
    return centred_FI / deviation if deviation > 1e-12 else np.zeros_like(table_FI)


@dataclass(frozen=True)
class _Log:
    """Rows of known users: user (numbered), fold, item row, reward, and the items taken."""

    items: int
    user_N: Ints
    fold_U: Ints
    item_N: Ints
    reward_N: Floats
    recent_N: list[Ints]

    @classmethod
    def read(cls, events: pa.Table, ids: Sequence[str]) -> "_Log":
        index = {name: i for i, name in enumerate(ids)}
        users = events["user_id"].combine_chunks().dictionary_encode()
        rewards_N = events["reward"].to_numpy(zero_copy_only=False).astype(np.float64)
        user_N = users.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(
            len(ids),
            user_N,
            np.array([fold(name) for name in users.dictionary.to_pylist()], np.int64),
            row_numbers(index, events["item_id"].to_pylist()),
            np.where(user_N >= 0, rewards_N, np.nan),
            recent_rows(events, index),
        )

    def outside(self, f: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Rows of users whose fold is not f."""
        known_N = (self.user_N >= 0) & (self.item_N >= 0) & np.isfinite(self.reward_N)
        return known_N if f == FOLDS else known_N & (np.append(self.fold_U, -1)[self.user_N] != f)

    def taken(self) -> Any:
        """Sparse users x items, 1 where a user has taken an item: it is recent, or its reward was above the mean."""
        from scipy import sparse

        known_N = self.outside(FOLDS)
        mean = self.reward_N[known_N].mean() if known_N.any() else 0.0
        pairs: set[tuple[int, int]] = set()
        for n in np.flatnonzero(self.user_N >= 0)[::-1].tolist():
            user = int(self.user_N[n])
            pairs.update((user, item) for item in self.recent_N[n].tolist())
            if known_N[n] and self.reward_N[n] > mean:
                pairs.add((user, int(self.item_N[n])))
        rows_cols = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
        return sparse.csr_matrix((np.ones(len(pairs)), rows_cols), shape=(len(self.fold_U), self.items))


def recent_rows(events: pa.Table, index: Mapping[str, int]) -> list[Ints]:
    """Catalogue rows of each event's recent items that the catalogue knows, in their order."""
    number_N, lists = context_table(events["context"]).get(RECENT, (np.full(len(events), -1), []))
    known = [known_recent(value, index) for value in [*lists, None]]
    return [known[number] for number in number_N]


def known_recent(value: Any, index: Mapping[str, int]) -> Ints:
    """Catalogue rows of a context's list of recent items; anything but a list of known ids is left out."""
    names = value if isinstance(value, list) else []
    rows = [index[name] for name in names if isinstance(name, str) and name in index]
    return np.array(rows[-10:], np.int64)


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


def _count(taken: Any, log: _Log, f: int) -> Floats:
    """Users outside fold f that have taken each item."""
    return np.asarray(taken[log.fold_U != f].sum(axis=0), np.float64).ravel()


def _together(taken: Any, log: _Log, seed: int) -> Floats:
    """vectors_FIR of items from whom they are taken with: SVD of positive pointwise mutual information
    (Levy & Goldberg 2014; context counts to the power 0.75), every fold turned to agree with the whole."""
    rank = SIMILARITY_RANK
    whole = _ppmi_vectors(taken, rank, seed)
    folds = []
    for f in range(FOLDS):
        part = _ppmi_vectors(taken[log.fold_U != f], rank, seed)
        padded = np.zeros_like(whole)
        width = min(part.shape[1], whole.shape[1])
        padded[:, :width] = part[:, :width]
        folds.append(aligned(padded, whole) if whole.size else padded)
    return np.stack([*folds, whole])


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


def folds(users: pa.ChunkedArray) -> Ints:
    """fold_B of a column of user ids."""
    coded = users.combine_chunks().dictionary_encode()
    fold_U = np.array([fold(name) for name in [*coded.dictionary.to_pylist(), None]], np.int64)
    return np.asarray(fold_U[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])


def recent_padded(events: pa.Table, index: Mapping[str, int]) -> Ints:
    """Catalogue rows of each event's recent items, recent_NR, padded with -1."""
    recent_N = recent_rows(events, index)
    width = max(map(len, recent_N), default=0)
    recent_NR = np.full((len(recent_N), width), -1, np.int64)
    for n, rows in enumerate(recent_N):
        recent_NR[n, : len(rows)] = rows
    return recent_NR


def grouped(fold_B: Ints, most: int) -> Iterator[tuple[int, Ints]]:
    """Each fold with the places of its decisions, at most so many at a time."""
    for f in np.unique(fold_B).tolist():
        places = np.flatnonzero(fold_B == f)
        for start in range(0, len(places), most):
            yield f, places[start : start + most]
