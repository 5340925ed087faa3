"""Estimates of a log that is larger than memory: passes over EVENTS Parquet, block by block.

    1. feature map and policy are given; the reward model adds up its moments (tune.offpolicy.cross_fit), folds by hash
    2. every method and every grid value adds up its terms by user (tune.offpolicy.totals)

Memory is that of one block, of the sums of each user, and of the moments; the estimates are those of the log in memory
up to rounding.

Shapes: N events of a block, K candidates (padded), U users.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Floats, Ints
from cluster.config import RewardKind
from cluster.errors import EvidenceError, SourceError
from tune.log import Log, read
from tune.offpolicy.cross_fit import Moments, Ridge, folds_of
from tune.offpolicy.terms import MODELLED, Method
from tune.offpolicy.totals import Totals
from tune.split import tasks

Policy: TypeAlias = Callable[[pa.Table, Log, FeatureBatch], Floats]
"""Probabilities of each event's candidates, (N, K), 0 on padding."""

BUDGET_BYTES = 64 * 2**20
_PROBE = 256


def blocks(
    paths: Sequence[Path], budget_bytes: int = BUDGET_BYTES, row_bytes: int = 0, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Events in the order of the files, as many at a time as the budget holds.

    Args:
        budget_bytes: for a block, decoded, with `row_bytes` a row of what the caller makes of it. A block has one row
            at least.
        columns: those that are read, as far as a file has them; None for all.

    Raises:
        SourceError: a file that is no Parquet or is cut short.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path, memory_map=True, pre_buffer=False) as file:
                probe = next(file.iter_batches(_PROBE, columns=columns, use_threads=False), None)
                if probe is None or not len(probe):
                    continue
                each = probe.nbytes // len(probe) + 1 + row_bytes
                for batch in file.iter_batches(max(1, budget_bytes // each), columns=columns, use_threads=False):
                    yield pa.Table.from_batches([batch])
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read as Parquet ({error}); import the data again") from error


class Roster:
    """Numbers users over all blocks, 0, 1, ... in order of appearance."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def codes(self, events: pa.Table) -> Ints:
        """The number of the user of each event, N."""
        encoded = tasks(events).dictionary_encode()
        number = self._number
        codes_U = np.array([number.setdefault(name, len(number)) for name in encoded.dictionary.to_pylist()], np.int64)
        return np.asarray(codes_U[np.asarray(encoded.indices.to_numpy(zero_copy_only=False))])


class Stream:
    """A log in Parquet files, seen through a feature map.

    Raises SourceError where a file cannot be read, EvidenceError where an event cannot be scored.
    """

    def __init__(
        self, paths: Sequence[Path], feature_map: FeatureMap, kind: RewardKind, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self.paths, self.map, self.kind, self.budget_bytes = tuple(paths), feature_map, kind, budget_bytes

    def parts(self) -> Iterator[tuple[pa.Table, Log, FeatureBatch]]:
        """Events, log and features of one block after the other; the budget holds features as well."""
        first = next(blocks(self.paths, self.budget_bytes), None)
        if first is None:
            return
        batch = self.map.batch(first.slice(0, _PROBE))
        width, dimension = batch.phi_BKD.shape[1:]
        row_bytes = 8 * (dimension * (1 if batch.repeats else width) + 8 * width)
        start = 0
        for events in blocks(self.paths, self.budget_bytes, row_bytes):
            with _counting_from(start):
                log = read(events, self.map.item_ids, self.kind)
            yield events, log, self.map.batch(events)
            start += len(events)

    def reward_model(self, seed: int = 0) -> Ridge:
        """One pass."""
        moments = Moments(self.map.arms)
        for events, log, batch in self.parts():
            moments.add(log, batch, folds_of(events, seed=seed))
        return moments.fit()

    def totals(self, policies: Sequence[Policy], methods: Iterable[Method], seed: int = 0) -> list[Totals]:
        """The sums of each policy by every method: one pass, or two where a method needs a reward model."""
        methods = tuple(methods)
        ridge = self.reward_model(seed) if set(methods) & set(MODELLED) else None
        found, roster, start = [Totals(methods) for _ in policies], Roster(), 0
        for events, log, batch in self.parts():
            user_N = roster.codes(events)
            q_NK = ridge.q(batch, folds_of(events, seed=seed)) if ridge else None
            for policy, totals in zip(policies, found, strict=True):
                probabilities_NK = policy(events, log, batch)
                with _counting_from(start):
                    totals.add(user_N, log, probabilities_NK, q_NK)
            start += len(events)
        return found


@contextmanager
def _counting_from(start: int) -> Iterator[None]:
    """Errors count events from the beginning of their block; this says where that is."""
    try:
        yield
    except EvidenceError as error:
        raise EvidenceError(f"in the block that begins with event {start} of the log: {error}") from error
