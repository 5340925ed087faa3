"""The job: the published regrouping and the outcomes since -> looks -> moves -> the next regrouping."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actors.content.published import CONTENT, Published
from actors.content.regrouping import kept
from actors.content.regrouping.groups import Groups, Move
from actors.content.regrouping.regrouping import Regrouping
from actors.features.features import Floats
from cluster.config import Settings
from cluster.errors import EvidenceError, RequestError, StateError
from cluster.providers import opened
from cluster.records import Dataset
from cluster.registry import Registry
from cluster.statistics import normal_interval
from tune.regrouping.first import First, first
from tune.regrouping.shown import dendrogram, table
from tune.regrouping.traffic import Traffic, day_of
from tune.regrouping.watch import Watch

SHARE = 0.5
"""Of the outcomes, the earlier ones: they make the first grouping, the rest is watched."""


@dataclass(frozen=True)
class Job:
    traffic: Traffic
    registry: Registry
    name: str
    alpha: float

    @classmethod
    def of(cls, dataset: Dataset, settings: Settings, name: str, alpha: float) -> "Job":
        return cls(Traffic.of(dataset, settings), Registry(settings.registry_uri), name, alpha)

    def run(self, folder: Path, *, anew: bool, progress: Callable[[int, int], None]) -> dict[str, Any]:
        """Look at the days that came, publish, and show; returns what was found.

        The newest day with outcomes waits: it may not be over. anew: group from scratch, as the first time.

        Raises:
            EvidenceError: too few days, providers or users.
            RegistryError: the last regrouping cannot be read, or the new one not be written.
            StateError: the same; or a provider was moved by hand meanwhile, which must not be lost.
        """
        numbers = self._numbers()
        last = None if anew or not numbers else kept.load(self.registry.fetch(kept.NAME.format(self.name), numbers[-1]))
        end = int(self.traffic.day_N[-1])
        start = int(last[1]["until"]) if last else int(self.traffic.day_N[int(SHARE * (len(self.traffic) - 1))])
        if last is None and not int(self.traffic.day_N[0]) < start <= end:
            raise EvidenceError("outcomes of one day or two cannot be grouped and then watched; collect more days")
        feature_map = self.traffic.feature_map(start)
        grouped = first(self.traffic, feature_map, start, self.alpha)
        state = last[0] if last else Regrouping(_placed(grouped, start), self.alpha)
        watch = Watch(self.traffic, feature_map, grouped.penalty, state, self._content())
        watch.learn(0, start)
        before = dict(watch.state.groups.cluster_of)
        watch.run(start, end, progress)
        moves = watch.state.groups.moves[len(state.groups.moves) :]
        facts = self._facts(watch, grouped, start, end, moves)
        if self._numbers() != numbers:
            raise StateError(
                f"the clusters of {self.name!r} were changed meanwhile; run it again to look from there on"
            )
        facts["version"] = publish(self.traffic.settings, self.name, watch.state, {"until": max(start, end)} | facts)
        dendrogram(grouped, watch.state.groups.cluster_of, folder / "regroup.png")
        (folder / "regroup.json").write_text(json.dumps(facts | {"providers": table(watch, before)}, indent=1))
        return facts

    def _numbers(self) -> list[int]:
        return self.registry.versions(kept.NAME.format(self.name))

    def _content(self) -> dict[str, Floats]:
        """Mean embedding of each provider, as `tune.embed` published them; none where it did not run."""
        if not self.registry.versions(CONTENT.format(self.name)):
            return {}
        found = Published.load(self.registry.fetch(CONTENT.format(self.name)))
        names = np.array([name or "" for name in found.provider_ids])
        return {n: found.vectors_IE[names == n].mean(0).astype(np.float64) for n in set(names.tolist()) - {""}}

    def _facts(self, watch: Watch, grouped: First, start: int, end: int, moves: tuple[Move, ...]) -> dict[str, Any]:
        groups, users_U4 = watch.state.groups, watch.totals.users_U4
        seen_U4 = users_U4[users_U4[:, 3] > 0]
        gain = None
        if len(seen_U4) > 1:
            gain = normal_interval((seen_U4[:, 2] - seen_U4[:, 0]) / seen_U4[:, 3])._asdict()
        return {
            "days": {"grouped_before": day_of(start).isoformat(), "watched_before": day_of(end).isoformat()},
            "outcomes": {"watched": int(users_U4[:, 3].sum()), "without_provider": self.traffic.left_out},
            "clusters": {name: len(groups.members(name)) for name in groups.clusters},
            "tree_clusters": len(set(grouped.clusters.values())),
            "tree_chance": grouped.tree.chance,
            "moves": [{"move": m.number, "provider": m.provider, "after": m.after, "why": m.reason} for m in moves],
            "gain_over_one_model": gain,
        }


def _placed(grouped: First, day: int) -> Groups:
    groups = Groups()
    for provider, cluster in grouped.clusters.items():
        reason = f"grouped with {', '.join(n for n, c in grouped.clusters.items() if c == cluster and n != provider)}"
        groups = groups.move(provider, cluster, day_of(day).isoformat(), reason.rstrip(", ").strip(), {})
    return groups


def publish(settings: Settings, name: str, state: Regrouping, about: dict[str, Any]) -> int:
    """The next regrouping of a name, in the database too; returns its number."""
    registry = Registry(settings.registry_uri)
    registry.ensure(kept.NAME.format(name))
    version = registry.publish(kept.NAME.format(name), lambda folder: kept.save(state, about, folder))
    with opened(settings) as providers:
        providers.record(name, version, state.groups.cluster_of)
    return version


def changed(settings: Settings, name: str, change: Callable[[Regrouping], Regrouping]) -> dict[str, Any]:
    """What somebody wants changed by hand, published as the next regrouping.

    Raises:
        RequestError: it cannot be.
        RegistryError, StateError: the regrouping cannot be read or written.
    """
    registry, published = Registry(settings.registry_uri), kept.NAME.format(name)
    if not registry.versions(published):
        raise RequestError(
            ("name",), f"no provider of {name!r} is grouped yet; `medley submit regroup` groups them", 404
        )
    state, about = kept.load(registry.fetch(published))
    state = change(state)
    last = state.groups.moves[-1]
    version = publish(settings, name, state, about)
    return {"version": version, "move": last.number, "provider": last.provider, "cluster": last.after}


def undo(settings: Settings, name: str, number: int, day: int) -> dict[str, Any]:
    """Take a move back. Raises as `changed`."""
    return changed(settings, name, lambda state: state.undo(number, day_of(day))) | {"undone": number}


def move(settings: Settings, name: str, provider: str, cluster: str, day: int) -> dict[str, Any]:
    """Move a provider by hand. Raises as `changed`."""
    return changed(settings, name, lambda state: state.move(provider, cluster, day_of(day)))
