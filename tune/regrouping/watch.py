"""Day after day: score every provider's new outcomes under every cluster's model, look, and only then learn them.

Shapes: N outcomes, C clusters, U users, E size of an embedding.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from actors.content.regrouping.regrouping import Regrouping
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from tune.regrouping.models import Sums, by_user, likelihood
from tune.regrouping.traffic import Part, Traffic, day_of

MODELS = 3
"""All together, the cluster on the first watched day, the cluster of the day."""


@dataclass
class Totals:
    """By user, sums of nats under the three models and the number of outcomes; and by provider."""

    users_U4: Floats
    providers_P4: Floats

    @classmethod
    def of(cls, traffic: Traffic) -> "Totals":
        users = int(traffic.user_N.max()) + 1
        return cls(np.zeros((users, MODELS + 1)), np.zeros((len(traffic.providers), MODELS + 1)))

    def add(self, part: Part, values_N3: Floats) -> None:
        values_N4 = np.hstack([values_N3, np.ones((len(values_N3), 1))])
        np.add.at(self.users_U4, part.user_N, values_N4)
        np.add.at(self.providers_P4, part.provider_N, values_N4)


@dataclass
class Watch:
    """The state while days pass; `content` are mean embeddings of providers."""

    traffic: Traffic
    feature_map: FeatureMap
    penalty: float
    state: Regrouping
    content: Mapping[str, Floats]
    totals: Totals = field(init=False)
    sums: Sums = field(init=False)

    def __post_init__(self) -> None:
        self.totals = Totals.of(self.traffic)
        self.sums = Sums(len(self.state.groups.clusters), self.feature_map.arms, self.feature_map.dimension)
        self.first = dict(self.state.groups.cluster_of)

    def learn(self, start: int, end: int) -> None:
        """The outcomes of days that were looked at before: each in the cluster where its provider was."""
        for day in self.traffic.days(start, end):
            for part in self.traffic.parts(self.feature_map, day, day + 1):
                self._learn(part, day)

    def run(self, start: int, end: int, progress: Callable[[int, int], None]) -> None:
        """Look at days from `start` on and before `end`."""
        days = self.traffic.days(start, end)
        for done, day in enumerate(days):
            self._place(day)
            self._look(day)
            progress(done + 1, len(days))

    def _look(self, day: int) -> None:
        theta = self.sums.models(self.penalty)
        parts = list(self.traffic.parts(self.feature_map, day, day + 1))
        values = [likelihood(theta, part.design) for part in parts]
        for part, values_NC in zip(parts, values, strict=True):
            rows = np.arange(len(values_NC))
            now, first = self._clusters(self.state.groups.cluster_of), self._clusters(self.first)
            columns = (values_NC[:, -1], values_NC[rows, first[part.provider_N]], values_NC[rows, now[part.provider_N]])
            self.totals.add(part, np.stack(columns, axis=1))
        value_NC = np.concatenate(values)[:, :-1]
        provider_N, user_N = (np.concatenate([getattr(p, n) for p in parts]) for n in ("provider_N", "user_N"))
        scores = {
            self.traffic.providers[p]: by_user(value_NC[provider_N == p], user_N[provider_N == p])
            for p in np.unique(provider_N).tolist()
        }
        self.state = self.state.look(day_of(day), scores)
        for part in parts:
            self._learn(part, day)

    def _learn(self, part: Part, day: int) -> None:
        text, groups = day_of(day).isoformat(), self.state.groups
        there = {self.traffic.providers[p] for p in np.unique(part.provider_N).tolist()} & groups.cluster_of.keys()
        cluster_P = self._clusters({name: groups.before(name, text) for name in there})
        self.sums.add(part.design, cluster_P[part.provider_N])

    def _clusters(self, cluster_of: Mapping[str, str]) -> np.ndarray:
        """The number of each provider's cluster, P; -1 where it is in none."""
        place = {name: c for c, name in enumerate(self.state.groups.clusters)}
        return np.array([place[cluster_of[n]] if n in cluster_of else -1 for n in self.traffic.providers])

    def _place(self, day: int) -> None:
        """New providers of the day, into the cluster of the nearest content."""
        rows = slice(self.traffic.row(day), self.traffic.row(day + 1))
        for p in np.unique(self.traffic.provider_N[rows]).tolist():
            name = self.traffic.providers[p]
            if name not in self.state.groups.cluster_of:
                self.state = self.state.place(name, day_of(day), self.content.get(name), self._centroids())
                self.first[name] = self.state.groups.cluster_of[name]

    def _centroids(self) -> dict[str, Floats]:
        members = {cluster: self.state.groups.members(cluster) for cluster in self.state.groups.clusters}
        own = {c: [self.content[name] for name in names if name in self.content] for c, names in members.items()}
        return {cluster: np.mean(vectors, axis=0) for cluster, vectors in own.items() if vectors}
