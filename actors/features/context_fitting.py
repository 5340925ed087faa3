"""How the context block is fitted: which columns, and which of their features.

For arms, where a feature costs a parameter per item, linear terms are kept and the others (indicators, levels,
hinges, products) enter by what they explain of the reward (`screening`). For a joint map, which projects the
context, linear terms come first, then indicators and levels by their variance.

Shapes: B rows, N numbers, L levels, X features.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.features.basis import fit_basis
from actors.features.columns import Reader, Table, attribute_table, context_table, fit_reader
from actors.features.context import ContextBlock, Users, read_situations
from actors.features.features import Floats, Ints
from actors.features.recent import RECENT
from actors.features.screening import screen

SCREENED_ROWS = 10_000


@dataclass(frozen=True)
class Situations:
    """The fit rows as numbers and levels, and how they are read."""

    reader: Reader
    users: Users
    numbers_BN: Floats
    on_BL: NDArray[np.bool_]

    def plain(self, limit: int) -> ContextBlock:
        """Linear terms, then indicators of missing and levels by variance, at most `limit`."""
        basis = fit_basis(self.numbers_BN, curved=False)
        block = ContextBlock(self.reader, self.users, basis, np.arange(self.on_BL.shape[1]))
        variance_X = block.encode(self.numbers_BN, self.on_BL).var(axis=0)
        later_X = np.arange(len(variance_X)) >= basis.sizes[0]
        order = np.lexsort((-np.round(variance_X, 9), later_X))
        keep_X = np.zeros(len(variance_X), np.bool_)
        keep_X[order[variance_X[order] > 1e-12][:limit]] = True
        return _kept(block, keep_X)

    def screened(self, arm_B: Ints, reward_B: Floats, limit: int, seed: int) -> ContextBlock:
        """Linear terms, then whatever explains the reward best, arm by arm, at most `limit`."""
        basis = fit_basis(self.numbers_BN)
        block = ContextBlock(self.reader, self.users, basis, np.arange(self.on_BL.shape[1]))
        rows = np.sort(np.random.default_rng(seed).permutation(len(arm_B))[:SCREENED_ROWS])
        context_BX = block.encode(self.numbers_BN[rows], self.on_BL[rows])
        varies_X = context_BX.var(axis=0) > 1e-12
        keep_X = varies_X & (np.arange(len(varies_X)) < basis.sizes[0])
        keep_X &= np.cumsum(keep_X) <= limit
        pool = np.flatnonzero(varies_X & ~keep_X & (np.arange(len(varies_X)) >= basis.sizes[0]))
        chosen = screen(
            context_BX[:, keep_X], context_BX[:, pool], arm_B[rows], reward_B[rows], limit - int(keep_X.sum())
        )
        keep_X[pool[chosen]] = True
        return _kept(block, keep_X)


def _kept(block: ContextBlock, keep_X: NDArray[np.bool_]) -> ContextBlock:
    split = sum(block.basis.sizes)
    return replace(block, basis=block.basis.select(keep_X[:split]), level_T=block.level_T[keep_X[split:]])


def read_fit_rows(events: pa.Table, users: pa.Table, levels: int, recent_levels: bool) -> Situations:
    """The columns worth reading and what they hold in these events.

    Args:
        events: the fit rows.
        users: attributes of users; those of users without a fit row count for nothing here.
        levels: levels kept of a column.
        recent_levels: read the list of recent items as levels (where no similarity reads it).
    """
    table = dict(context_table(events["context"]))
    if not recent_levels:
        table.pop(RECENT, None)
    reader = fit_reader(table, len(events), levels)
    known = fit_users(users, set(events["user_id"].to_pylist()), levels)
    return Situations(reader, known, *read_situations(reader, known, events))


def fit_users(users: pa.Table, present: set[str | None], levels: int) -> Users:
    """The attributes of every user in the table, by the columns that the users `present` show."""
    nobody = Users((), Reader(()), np.zeros((1, 0)), np.zeros((1, 0), np.bool_))
    if not len(users):
        return nobody
    ids = users["user_id"].to_pylist()
    table = attribute_table(users["attributes"])
    fit_U = np.array([name in present for name in ids], np.bool_)
    fit_table: Table = {name: (index_U[fit_U], values) for name, (index_U, values) in table.items()}
    reader = fit_reader(fit_table, int(fit_U.sum()), levels)
    if not reader.columns:
        return nobody
    numbers_UN, on_UL = reader.read_table(table, len(ids))
    unknown_N, unknown_L = reader.read_table({}, 1)
    return Users(tuple(ids), reader, np.concatenate([numbers_UN, unknown_N]), np.concatenate([on_UL, unknown_L]))
