"""Final outcomes by provider and day: what regrouping reads.

Shapes: N outcomes in time order, P providers, F folds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pyarrow as pa

from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune import metric
from tune.groundwork import check_rewards
from tune.offpolicy.cross_fit import folds_of
from tune.predefined import Design
from tune.split import task_codes

BLOCK = 4_096
"""Outcomes whose features are held at a time."""
EPOCH = date(1970, 1, 1)
DAY_US = 86_400_000_000


@dataclass(frozen=True)
class Part:
    """Outcomes with their features; provider_N indexes `Traffic.providers`."""

    design: Design
    provider_N: Ints
    user_N: Ints
    fold_N: Ints


@dataclass(frozen=True)
class Traffic:
    """providers: P names, sorted. left_out: outcomes of items without a provider."""

    dataset: Dataset
    settings: Settings
    events: pa.Table
    providers: tuple[str, ...]
    provider_N: Ints
    day_N: Ints
    user_N: Ints
    fold_N: Ints
    left_out: int

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> "Traffic":
        """Raises EvidenceError where no item names a provider, or rewards are not what models learn from."""
        dataset = metric.apply(dataset, settings)
        check_rewards(dataset.events, settings)
        owner = dict(zip(*(dataset.items[name].to_pylist() for name in ("item_id", "provider_id")), strict=True))
        named = [owner.get(item) for item in dataset.events["item_id"].to_pylist()]
        providers = tuple(sorted({name for name in named if name is not None}))
        if not providers:
            raise EvidenceError("no outcome is of an item with a provider_id; name providers in the items")
        place = {name: p for p, name in enumerate(providers)}
        time_N = dataset.events["timestamp"].cast(pa.int64()).to_numpy()
        rows = [n for n in np.argsort(time_N, kind="stable").tolist() if named[n] is not None]
        events = dataset.events.take(pa.array(rows))
        return cls(
            dataset,
            settings,
            events,
            providers,
            np.array([place[str(named[n])] for n in rows], np.int64),
            time_N[rows] // DAY_US,
            task_codes(events),
            folds_of(events, seed=settings.seed),
            len(named) - len(rows),
        )

    def __len__(self) -> int:
        return len(self.events)

    def feature_map(self, before: int) -> FeatureMap:
        """Fitted on the outcomes of days before this one; with `joint` features, as parameters of an item's own would
        say nothing of another provider's items."""
        early = self.events.slice(0, self.row(before))
        known = Dataset(self.dataset.format, early, self.dataset.items, self.dataset.users, None, self.dataset.facts)
        features = self.settings.features.model_copy(update={"kind": "joint"})
        return FeatureMap.fit(known, np.arange(len(early)), features, self.settings.seed)

    def row(self, day: int) -> int:
        """The first outcome of this day or later."""
        return int(np.searchsorted(self.day_N, day))

    def days(self, start: int, end: int | None = None) -> list[int]:
        """Days with outcomes, from `start` on and before `end`."""
        days = np.unique(self.day_N)
        return [day for day in days.tolist() if day >= start and (end is None or day < end)]

    def parts(self, feature_map: FeatureMap, start: int, end: int) -> Iterator[Part]:
        """The outcomes of days from `start` on and before `end`, BLOCK at a time."""
        last = self.row(end)
        for at in range(self.row(start), last, BLOCK):
            rows = slice(at, min(at + BLOCK, last))
            design = Design.of(feature_map, self.events.slice(at, rows.stop - at), self.settings.reward)
            yield Part(design, self.provider_N[rows], self.user_N[rows], self.fold_N[rows])


def day_of(number: int) -> date:
    return EPOCH + timedelta(days=number)


def number_of(day: date) -> int:
    return (day - EPOCH).days
