"""What a composition stands on: the split, the feature map, and the predefined members fitted on *fit*."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from actors.bandits.ensemble import Ensemble, Part
from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from cluster.config import Settings
from cluster.records import Dataset
from tune.predefined import Design, Predefined
from tune.split import Parts, parts, tasks


@dataclass(frozen=True)
class Groundwork:
    dataset: Dataset
    settings: Settings
    split: Parts
    feature_map: FeatureMap

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings) -> "Groundwork":
        """Split, and fit the feature map on *fit* alone."""
        split = parts(dataset, settings.seed)
        return cls(dataset, settings, split, FeatureMap.fit(dataset, split.fit, settings.features, settings.seed))

    @cached_property
    def predefined(self) -> Predefined:
        return self.fitted(self.split.fit)

    def events(self, rows: Ints) -> pa.Table:
        return self.dataset.events.take(pa.array(np.sort(rows)))

    def fitted(self, rows: Ints) -> Predefined:
        """The predefined members fitted on these events."""
        design = Design.of(self.feature_map, self.events(rows), self.settings.reward)
        return Predefined(design, self.feature_map, self.settings.bandits)

    def ensemble(self, *members: Part) -> Ensemble:
        """These members on equal terms."""
        return Ensemble(
            members=members,
            values_M=np.full(len(members), 0.5),
            law=self.settings.law,
            weights=self.settings.weights,
            dimension=self.feature_map.dimension,
            fingerprint=self.feature_map.fingerprint,
            low=self.settings.reward.low,
            high=self.settings.reward.high,
            history=self.settings.bandits.history,
        )

    def facts(self) -> dict[str, Any]:
        """What a report says of the data."""
        events = self.dataset.events
        return {
            "format": self.dataset.format,
            "events": len(events),
            "items": len(self.dataset.items),
            "users": len(set(tasks(events).to_pylist())),
            "clients": len(set(events["client_id"].to_pylist())),
            "parts": self.split.sizes(),
            "features": {"kind": self.feature_map.kind, "dimension": self.feature_map.dimension},
            "reward_mean": float(np.mean(self.predefined.design.reward_N)),
        }
