"""Labelled tables as online bandit games: context, K arms, reward 1 for the right one; only the chosen arm's is seen.

Shapes: N rows in the order of play, K arms.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from actors.features.features import Floats, Ints
from cluster.config import DataSettings
from cluster.importers.imported import Options
from cluster.importers.table import read_table
from cluster.records import Dataset

OPTIONS = {
    "adult": Options(exclude=("split",)),
    "mushroom": Options(),
    "shuttle": Options(exclude=("label_name",)),
    "pendigits": Options(),
    "coupon": Options({"label": "Y"}),
}
"""How each table is imported; any other one needs a column `label` and nothing else."""

TABLES = tuple(OPTIONS)
IMPORT_SEED = 0
"""Of the logged actions that the importer draws, which peers' feature maps are fitted on."""


@dataclass(frozen=True)
class Game:
    """dataset: its events in the order of play, with actions drawn uniformly. right_N: the arm that is rewarded."""

    name: str
    dataset: Dataset
    arms: tuple[str, ...]
    right_N: Ints

    def __len__(self) -> int:
        return len(self.right_N)

    def share(self, errors: float) -> float:
        """Errors in percent of those that uniform choices make."""
        return 100.0 * errors / (len(self) * (1 - 1 / len(self.arms)))

    def first(self, rows: int) -> "Game":
        """The game of its first rows alone."""
        return replace(self, dataset=self.until(rows), right_N=self.right_N[:rows])

    def until(self, end: int) -> Dataset:
        """The first rows, as logged uniformly."""
        return replace(self.dataset, events=self.dataset.events.slice(0, end))

    def played(self, arm_T: Ints, reward_T: Floats) -> Dataset:
        """The first rows, with what was chosen in them and what it earned."""
        events = self.dataset.events.slice(0, len(arm_T))
        columns = {"item_id": pa.array(self.arms).take(pa.array(arm_T)), "reward": pa.array(reward_T)}
        for name, column in columns.items():
            place = events.schema.get_field_index(name)
            events = events.set_column(place, events.schema.field(name), column)
        return replace(self.dataset, events=events)


def read(name: str, folder: Path) -> Dataset:
    """The table `name`.parquet anywhere below a folder."""
    paths = sorted(folder.rglob(f"{name}.parquet"))
    if not paths:
        raise SystemExit(f"{folder}: no table {name}.parquet; point --data or MEDLEY_DATA to the folder of the tables")
    settings = DataSettings(max_events=1_000_000)
    return read_table(paths[:1], OPTIONS.get(name, Options()), settings, IMPORT_SEED).dataset


def game(name: str, dataset: Dataset, rows: int, seed: int) -> Game:
    """`rows` rows of a table, drawn and ordered by the seed."""
    assert dataset.truth is not None
    arms = tuple(dataset.items["item_id"].to_pylist())
    order = pa.array(np.random.default_rng(seed).permutation(len(dataset.events))[:rows])
    events = dataset.events.take(order)
    label = dict(zip(*(dataset.truth[key].to_pylist() for key in ("event_id", "item_id")), strict=True))
    place = {arm: a for a, arm in enumerate(arms)}
    right_N = np.array([place[label[event]] for event in events["event_id"].to_pylist()], np.int64)
    return Game(name, replace(dataset, events=events), arms, right_N)


def ends(rows: int, first: int, growth: float) -> Sequence[int]:
    """Rows after which models are made anew: `first`, then ever further apart."""
    found = [first]
    while found[-1] * growth < rows:
        found.append(int(np.ceil(found[-1] * growth)))
    return [end for end in found if end < rows]
