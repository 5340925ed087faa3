"""A version in service without a server: decisions, outcomes when their window closes, a learner per client.

The same law.decide and learn.step as behind HTTP, on the times of the log. The version can be replaced while traffic
goes on; what waits for its window then is learned by the new one, as its learner would from the journal.

Shapes: N decisions so far, M members.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from actors.bandits import law, learn
from actors.bandits.published import Published
from actors.bandits.version import Version
from actors.features.actions import actions
from actors.features.catalogue import row_numbers
from actors.features.features import Features
from cluster.records import EVENTS
from tune.baselines import CHUNK, Schedule, expected_reward
from tune.worlds.base import Situation, Situations, World


@dataclass(frozen=True)
class Done:
    """One decision: its situation, what was chosen by which version, and what the members' weights were."""

    row: int
    second: float
    item: str
    propensity: float
    reward: float
    expected: float
    version: int
    weights: dict[str, float]


@dataclass
class _Learner:
    state: learn.State
    published: Published
    changed: bool = False


@dataclass
class Service:
    """Serves the situations of a world in order.

    version, number: what decides now. first: number of the first decision's event among all that were logged.
    """

    version: Version
    number: int
    world: World
    schedule: Schedule
    seed: int
    done: list[Done] = field(default_factory=list)
    _learners: dict[str, _Learner] = field(default_factory=dict)
    _waiting: deque[tuple[float, int, learn.Outcome]] = field(default_factory=deque)
    _published_s: float = 0.0

    def serve(self, until: int) -> None:
        """Decide the schedule's situations up to number `until`."""
        situations = Situations(self.world.events)
        for start in range(len(self.done), until, CHUNK):
            rows = self.schedule.row_N[start : min(start + CHUNK, until)]
            batch = self.version.feature_map.batch(self.world.events.take(pa.array(rows)))
            for b, row in enumerate(rows.tolist()):
                self._decide(start + b, situations[row], batch.row(b))

    def journal(self) -> pa.Table:
        """EVENTS of what is final: what the windows have closed over, in order of time."""
        final = self.done[: len(self.done) - len(self._waiting)]
        events = self.world.events.take(pa.array([each.row for each in final], pa.int64()))
        columns = {
            "event_id": [f"served-{n}/0" for n in range(len(final))],
            "item_id": [each.item for each in final],
            "position": [0] * len(final),
            "propensity": [each.propensity for each in final],
            "reward": [each.reward for each in final],
            "version": [each.version for each in final],
        }
        for name, values in columns.items():
            kind = EVENTS.field(name)
            events = events.set_column(events.schema.get_field_index(name), kind, pa.array(values, kind.type))
        return events

    def replace(self, version: Version, number: int) -> None:
        """Let a version take over that was made of all that is final."""
        self.version, self.number = version, number
        self._learners.clear()
        rows = [self.done[n].row for _, n, _ in self._waiting]
        if rows:
            self._waiting = deque(self._anew(rows))

    def _decide(self, n: int, situation: Situation, features: Features) -> None:
        second = float(self.schedule.second_N[n])
        self._advance(second)
        learner = self._learner(situation.client_id)
        user = situation.user_id or situation.session_id
        past = learner.state.histories.get(user) if user is not None else None
        seed = (self.seed << 32) + situation.row
        slot = law.decide(learner.published, features, past, seed).slots[0]
        items = situation.candidates or self.version.feature_map.item_ids
        item = items[slot.index]
        reward = self.world.reward(situation.row, item)
        expected = expected_reward(self.world, situation.row, items, slot.index, 0)
        made = Done(situation.row, second, item, slot.propensity, reward, expected, self.number, slot.models)
        self.done.append(made)
        outcome = learn.Outcome.chosen(features, slot, user, reward)
        self._waiting.append((second + self.schedule.window_s, n, outcome))

    def _advance(self, second: float) -> None:
        """Learn what is final by the last publication, and publish."""
        visible = self.schedule.visible(second)
        if visible <= self._published_s:
            return
        self._published_s = visible
        while self._waiting and self._waiting[0][0] <= visible:
            _, n, outcome = self._waiting.popleft()
            learner = self._learner(self._client(self.done[n].row))
            learner.state = learn.step(learner.state, outcome)
            learner.changed = True
        for learner in self._learners.values():
            if learner.changed:
                learner.published, learner.changed = learn.publish(learner.state), False

    def _learner(self, client: str) -> _Learner:
        if client not in self._learners:
            state = learn.start(self.version.ensemble.of(client))
            self._learners[client] = _Learner(state, learn.publish(state))
        return self._learners[client]

    def _client(self, row: int) -> str:
        return str(self.world.events["client_id"][row].as_py())

    def _anew(self, rows: list[int]) -> Iterable[tuple[float, int, learn.Outcome]]:
        """What waits, with the features of the new version, whose members had no say."""
        taken, feature_map = self.world.events.take(pa.array(rows)), self.version.feature_map
        items = [self.done[n].item for _, n, _ in self._waiting]
        place = taken.schema.get_field_index("item_id")
        acted = actions(feature_map, taken.set_column(place, EVENTS.field("item_id"), pa.array(items, pa.string())))
        kin = feature_map.relations and feature_map.relations.kin.take(row_numbers(feature_map.row, items))
        for b, (final_s, n, outcome) in enumerate(self._waiting):
            members = len(self.version.ensemble.of(self._client(self.done[n].row)).names)
            yield (
                final_s,
                n,
                replace(
                    outcome,
                    phi_D=acted.phi_ND[b],
                    arm=int(acted.arm_N[b]),
                    item=int(acted.item_N[b]),
                    member_propensities_M=np.zeros(members),
                    provider=int(kin.provider_K[b]) if kin else -1,
                    cluster=int(kin.cluster_K[b]) if kin else -1,
                    member_means_M=None,
                ),
            )
