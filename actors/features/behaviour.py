"""What the fit rows say of each item, and which part of it a user reads.

A row's own outcome must not colour its own features, or a linear model fitted on them trusts them too much.
So users are hashed into folds and a user reads only what the *others* did: the users of other folds and the
rows without a user. A decision without a user reads what all users did. The same rule holds for users in and
outside fit, and at serving.

Shapes: N rows, B decisions, I items (one more row at the end: unknown), F folds + 1 (last: all users), R rank,
C facts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from actors.features.features import Floats, Ints
from actors.features.keys import key

FOLDS = 4

Folds: TypeAlias = Sequence[tuple[int, Any]]
"""Each fold with those decisions (an index of B) whose users are in it."""


@dataclass(frozen=True)
class Behaviour:
    """facts_FIC: standardised log popularity, shrunken mean reward and leading co-occurrence dimensions, as far
    as they vary. similar_FIR: vectors whose inner product says that two items go together, length at most 1."""

    names: tuple[str, ...]
    facts_FIC: Floats
    similar_FIR: Floats

    def narrowed(self, most: int) -> "Behaviour":
        """With the first `most` facts."""
        return replace(self, names=self.names[:most], facts_FIC=np.ascontiguousarray(self.facts_FIC[..., :most]))


def fold(user_id: str | None) -> int:
    """Which of the tables a user reads; the last without a user."""
    return key(user_id) % FOLDS if user_id else FOLDS


def folds(users: pa.ChunkedArray) -> Ints:
    """fold_B of a column of user ids."""
    coded = users.combine_chunks().dictionary_encode()
    fold_U = np.array([fold(name) for name in [*coded.dictionary.to_pylist(), None]], np.int64)
    return np.asarray(fold_U[coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)])


def whole(fold: int) -> Folds:
    """All decisions are of users of this fold."""
    return [(fold, slice(None))]


def parted(fold_B: Sequence[int]) -> Folds:
    """The decisions of each fold."""
    if len(set(fold_B)) == 1:
        return whole(fold_B[0])
    return [(f, np.flatnonzero(np.equal(fold_B, f))) for f in sorted(set(fold_B))]


def grouped(fold_B: Ints, most: int) -> Iterator[tuple[int, Ints]]:
    """Each fold with the places of its decisions, at most so many at a time."""
    for f in np.unique(fold_B).tolist():
        places = np.flatnonzero(fold_B == f)
        for start in range(0, len(places), most):
            yield f, places[start : start + most]
