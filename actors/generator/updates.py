"""Which rows each update of the language model reads: the same whatever fits into memory and however many workers.

Rows of like length are read together, so that little is padding.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actors.features.features import Ints

UPDATE_TOKENS = 2_048
"""Tokens of a forward pass in training at most, padding among them."""
WINDOW = 8
"""Updates' worth of rows that are sorted by length together."""


@dataclass(frozen=True)
class Updates:
    """The updates of all epochs: a shuffle by `seed` and the epoch's number.

    lengths_N: tokens of each row. batches: forward passes of `batch` rows at most that one update adds up.
    """

    lengths_N: Ints
    batch: int
    batches: int
    seed: int

    def after(self, epoch: int, done: int) -> Iterator[tuple[int, int, list[int]]]:
        """The updates that follow the first `done` of an epoch, without end: (epoch, done, rows)."""
        while True:
            found = self.epoch(epoch)
            for number in range(done, len(found)):
                yield epoch, number + 1, found[number]
            epoch, done = epoch + 1, 0

    def epoch(self, number: int) -> list[list[int]]:
        """Each row once: shuffled, cut into windows, and in those by length into updates."""
        rng = np.random.default_rng([self.seed, number])
        order, found = rng.permutation(len(self.lengths_N)), []
        size = WINDOW * self.batch * self.batches
        for start in range(0, len(order), size):
            parts = cut(order[start : start + size], self.lengths_N, self.batch * self.batches, self.batches)
            found += [parts[k] for k in rng.permutation(len(parts))]
        return found


def cut(rows: Sequence[int] | Ints, lengths_N: Ints, most: int, passes: int = 1) -> list[list[int]]:
    """The rows by length, in parts of at most `most` rows and `passes * UPDATE_TOKENS` tokens (one row at least)."""
    parts: list[list[int]] = [[]]
    for row in sorted((int(r) for r in rows), key=lambda r: lengths_N[r]):
        count = len(parts[-1])
        if count and (count == most or (count + 1) * lengths_N[row] > passes * UPDATE_TOKENS):
            parts.append([])
        parts[-1].append(row)
    return parts
