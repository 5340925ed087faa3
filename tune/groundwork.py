"""What a composition stands on: the split, the feature map, and the predefined members fitted on *fit*."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits.ensemble import Ensemble, Part
from actors.features.feature_map import FeatureMap
from actors.features.features import Ints
from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune import metric
from tune.predefined import Design, Predefined
from tune.specialise import Content, told
from tune.split import WORLD, Parts, parts, tasks


@dataclass(frozen=True)
class Groundwork:
    dataset: Dataset
    settings: Settings
    split: Parts
    feature_map: FeatureMap

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        settings: Settings,
        feature_map: FeatureMap | None = None,
        world: float = WORLD,
        content: Content | None = None,
    ) -> "Groundwork":
        """Take up the metric, split, and fit the feature map on *fit* alone, unless one is given.

        content: what was published of the items' content; without it they speak for themselves.

        Raises EvidenceError where the log's rewards are not of the kind that models learn from.
        """
        dataset = metric.apply(dataset, settings)
        check_rewards(dataset.events, settings)
        split = parts(dataset, settings.seed, world)
        if feature_map is None:
            feature_map = FeatureMap.fit(dataset, split.fit, settings.features, settings.seed)
            content = content or Content()
            feature_map = content.related(feature_map, dataset.items, settings.content, dataset.encoder)
        return cls(dataset, settings, split, feature_map)

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
        events, relations = self.dataset.events, self.feature_map.relations
        return {
            "format": self.dataset.format,
            "events": len(events),
            "items": len(self.dataset.items),
            "users": len(set(tasks(events).to_pylist())),
            "clients": len(set(events["client_id"].to_pylist())),
            "parts": self.split.sizes(),
            "features": {"kind": self.feature_map.kind, "dimension": self.feature_map.dimension},
            **({"content": told(relations) | self._left_out()} if relations is not None else {}),
            "metric": self.settings.metric.kind,
            "metric_left_out": self.dataset.facts.get("metric_left_out", 0),
            "reward_mean": float(np.mean(self.predefined.design.reward_N)),
        }

    def _left_out(self) -> dict[str, Any]:
        return {"left_out": left_out} if (left_out := self.predefined.left_out) else {}


def check_rewards(events: pa.Table, settings: Settings) -> None:
    """Raises EvidenceError for rewards outside the declared range, or of several kinds: what a model is fitted on
    is scaled by that range, and a click is no purchase."""
    kind, name = settings.reward, settings.reward_kind
    check_kinds(events["reward_kind"].unique().drop_null().to_pylist())
    least, most = pc.min_max(events["reward"]).as_py().values()
    if least is not None and not kind.low <= least <= most <= kind.high:
        raise EvidenceError(
            f"rewards of the log go from {least:g} to {most:g}, outside [{kind.low:g}, {kind.high:g}], the range of "
            f"{name!r}; set rewards.{name}.low and rewards.{name}.high in the configuration"
        )


def check_kinds(kinds: Collection[str]) -> None:
    """Raises EvidenceError for rewards of several kinds."""
    if len(kinds) > 1:
        raise EvidenceError(
            f"the log holds rewards of {len(kinds)} kinds ({', '.join(sorted(kinds)[:5])}), and models learn from one; "
            "say by metric.kind what a decision earns, or import the rows of one kind"
        )
