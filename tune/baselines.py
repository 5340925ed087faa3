"""The baselines of a drive, in this process: the same situations, at the times at which they were answered.

Each policy learns from its own rewards as the server does: per client, from outcomes whose wait window has closed,
seen at the learner's next publication. The law, its exploration floor and the draws of chance are the same.

Shapes: N decisions, in time order; K items.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.members import Uniform
from actors.bandits.published import Published
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from actors.features.features import Features, Floats, Ints
from tune.results import Played
from tune.worlds.base import Situations, World

CHUNK = 256


@dataclass(frozen=True)
class Schedule:
    """row_N: situations of the world, and second_N: when each was answered, ascending.

    window_s: wait window of rewards. publish_s: time between two publications of a learner. slots: items chosen in
    each situation, as far as it has them.
    """

    row_N: Ints
    second_N: Floats
    window_s: float
    publish_s: float
    slots: int = 1

    def visible(self, second: float) -> float:
        """The last moment whose final outcomes a decision at `second` knows."""
        return float(self.publish_s * np.floor(second / self.publish_s))


def policies(version: Version, best: str) -> dict[str, Ensemble]:
    """The baselines as ensembles of one member; those that the version lacks are left out.

    Raises ModelError where `best` is not in the version.
    """
    ensemble = version.ensemble
    alone = {"uniform": "uniform", "popularity": "popularity", "pooled_linear": "linear"}
    found = {name: ensemble.only(member) for name, member in alone.items() if member in ensemble.names}
    if "uniform" not in found:
        found["uniform"] = replace(ensemble.only(best), members=(Uniform(),), values_M=np.full(1, 0.5), admissions={})
    return found | {"best_predefined": ensemble.only(best)}


def play(
    ensembles: Mapping[str, Ensemble],
    version: Version,
    world: World,
    schedule: Schedule,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Played]:
    """What each policy chose and earned. Policies with the same members are played once."""
    different: dict[tuple[str, ...], Policy] = {}
    for ensemble in ensembles.values():
        different.setdefault(ensemble.names, Policy(ensemble, schedule, world, seed))
    total = len(schedule.row_N)
    for start in range(0, total, CHUNK):
        end = min(start + CHUNK, total)
        proceed(list(different.values()), version.feature_map, world, schedule, range(start, end))
        progress(end, total)
    played = {names: policy.played() for names, policy in different.items()}
    return {name: played[ensemble.names] for name, ensemble in ensembles.items()}


def proceed(
    policies: Sequence["Policy"], feature_map: FeatureMap, world: World, schedule: Schedule, numbers: range
) -> None:
    """Let every policy decide these situations of the schedule, the ones before them being decided."""
    situations = Situations(world.events)
    rows = schedule.row_N[numbers.start : numbers.stop]
    batch = feature_map.batch(world.events.take(rows))
    for b, row in enumerate(rows.tolist()):
        situation = situations[row]
        items = situation.candidates or feature_map.item_ids
        user, features = situation.user_id or situation.session_id, batch.row(b)
        for policy in policies:
            policy.decide(numbers.start + b, items, features, situation.client_id, user)


FEW = 100
"""Items that a world values together as fast as one; some keep the values of a situation's candidates."""


def expected_reward(world: World, row: int, items: Sequence[str], index: int, position: int) -> float:
    """The world's mean reward of `items[index]` in a slot."""
    if len(items) <= FEW:
        return float(world.mean_rewards(row, items, position)[index])
    return float(world.mean_rewards(row, [items[index]], position)[0])


@dataclass
class _Learner:
    """One client's learner: outcomes wait until their windows have closed."""

    state: learn.State
    published: Published
    waiting: list[tuple[float, int, int, learn.Outcome]] = field(default_factory=list)

    def advance(self, second: float) -> None:
        """Learn what is final at `second`, and publish if that was anything."""
        before = self.state.count
        while self.waiting and self.waiting[0][0] <= second:
            self.state = learn.step(self.state, heapq.heappop(self.waiting)[3])
        if self.state.count > before:
            self.published = learn.publish(self.state)


class Policy:
    """One ensemble with a learner per client, as served."""

    def __init__(self, ensemble: Ensemble, schedule: Schedule, world: World, seed: int):
        self._ensemble, self._schedule, self._world, self._seed = ensemble, schedule, world, seed
        self._learners: dict[str, _Learner] = {}
        self._items: list[str] = []
        self._columns: list[tuple[float, float, float]] = []

    def decide(self, number: int, items: Sequence[str], features: Features, client: str, user: str | None) -> None:
        """Decide situation `number` of the schedule, and let its outcomes wait for their window."""
        row, second = int(self._schedule.row_N[number]), float(self._schedule.second_N[number])
        learner = self._learner(client)
        learner.advance(self._schedule.visible(second))
        past = learner.state.histories.get(user) if user is not None else None
        slots = min(self._schedule.slots, len(items))
        decision = law.decide(learner.published, features, past, (self._seed << 32) + row, slots)
        for position, slot in enumerate(decision.slots):
            item = items[slot.index]
            reward = self._world.reward(row, item, position)
            outcome = learn.Outcome.chosen(features, slot, user, reward)
            heapq.heappush(learner.waiting, (second + self._schedule.window_s, number, position, outcome))
            expected = expected_reward(self._world, row, items, slot.index, position)
            self._items.append(item)
            self._columns.append((reward, expected, slot.propensity))

    def _learner(self, client: str) -> _Learner:
        if client not in self._learners:
            state = learn.start(self._ensemble)
            self._learners[client] = _Learner(state, learn.publish(state))
        return self._learners[client]

    def played(self) -> Played:
        reward_N, expected_N, propensity_N = np.array(self._columns).reshape(-1, 3).T
        return Played(self._items, reward_N, expected_N, propensity_N)
