"""What a trial of a sweep is: the predefined members under some settings, fitted on *fit*, scored on *select*.

`world`: they decide for themselves, learn what their choices earn, and count by the mean reward of those choices in
a world on the select part (`tune.worlds`). `replay`: the doubly robust walk along the log (`tune.walk`); the histories
are the log's whatever is chosen, so that exploring can only cost there. The two are never compared.

A score depends on the settings alone, not on which trials came before, nor on the process: a table is the same
however its trials are spread or repeated.

Shapes: N events, U users.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from actors.bandits.ensemble import Ensemble
from actors.bandits.mixture import Mixture
from actors.features.features import Floats, Ints
from cluster.config import Settings, changed
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.baselines import CHUNK, Policy, Schedule, proceed
from tune.groundwork import Groundwork
from tune.predefined import Predefined
from tune.specialise import Content
from tune.split import parts, task_codes, tasks, unit
from tune.sweeps import generated
from tune.sweeps.request import By
from tune.sweeps.space import Point
from tune.walk import PUBLISH_EVERY, Trail, walk
from tune.worlds.base import World
from tune.worlds.build import on

KEPT = 2
"""Feature maps, with how their items are related and what was fitted on them, that a process keeps."""


def way(dataset: Dataset) -> By:
    """How trials are scored where nobody says: in a world where the data knows the truth, else by replay."""
    return "replay" if dataset.format == "feedback" else "world"


def features_key(settings: Settings) -> str:
    """Equal for settings of equal features."""
    return json.dumps(settings.features.model_dump(mode="json"))


def situations(dataset: Dataset, settings: Settings, generates: bool = False) -> Ints:
    """Rows of the select part that trials are scored on: of users drawn by hash, about `tune.events` of them.

    Args:
        generates: leave out the users that the candidates of a generated member are ranked on.

    Raises EvidenceError where fewer than two users are left, which allow no interval.
    """
    rows = generated.halves(dataset, settings)[1] if generates else parts(dataset, settings.seed).select
    share = settings.tune.events / max(len(rows), 1)
    kept = rows[unit(tasks(dataset.events.take(pa.array(rows))), settings.seed, "tune") < share]
    if len(set(task_codes(dataset.events.take(pa.array(kept))).tolist())) < 2:
        raise EvidenceError(
            f"{len(kept)} events of the select part are too few to compare settings on; import more, or raise "
            f"tune.events ({settings.tune.events})"
        )
    return kept


@dataclass(frozen=True)
class Score:
    """Rewards by user, in units of the reward, over the events reached so far."""

    sums_U: Floats
    counts_U: Floats

    @property
    def events(self) -> int:
        return int(self.counts_U.sum())

    @property
    def value(self) -> float:
        """Mean reward per event."""
        return float(self.sums_U.sum() / self.counts_U.sum())


@dataclass
class Trials:
    """Scores settings on `rows` of a data set; keeps what trials of equal features and content share.

    members: the generated member of each choice of features, by `features_key`; empty where none is asked for.
    content: as in `Groundwork.of`.
    """

    dataset: Dataset
    settings: Settings
    by: By
    rows: Ints
    members: Mapping[str, Mixture] = field(default_factory=dict)
    content: Content = field(default_factory=Content)
    _grounds: dict[str, "Ground"] = field(default_factory=dict, init=False, repr=False)

    def score(self, point: Point, rungs: int = 1) -> Iterator[Score]:
        """Scores after each of `rungs` equal parts of the events, the last over all of them; a replay has one.

        Raises ConfigError for settings that cannot be, EvidenceError where the events cannot be scored.
        """
        settings = changed(self.settings, point)
        ground = self._ground(settings)
        if self.by == "replay":
            yield self._walked(ground, ground.ensemble(settings))
        else:
            yield from self._played(ground, ground.ensemble(settings), rungs)

    def _ground(self, settings: Settings) -> "Ground":
        key = features_key(settings) + settings.content.model_dump_json()
        if key not in self._grounds:
            for oldest in list(self._grounds)[: 1 - KEPT]:
                del self._grounds[oldest]
            base = self.settings.model_copy(update={"features": settings.features, "content": settings.content})
            work = Groundwork.of(self.dataset, base, content=self.content)
            self._grounds[key] = Ground(work, self._events, self.members.get(features_key(settings)))
        return self._grounds[key]

    @cached_property
    def _events(self) -> pa.Table:
        return self.dataset.events.take(pa.array(self.rows))

    @cached_property
    def _world(self) -> World:
        return on(self.dataset, self.rows, self.settings)

    @cached_property
    def _user_N(self) -> Ints:
        return task_codes(self._events)

    def _total(self, reward_N: Floats) -> Score:
        """The rewards of the first N events, summed by user."""
        user_N, users = self._user_N[: len(reward_N)], int(self._user_N.max()) + 1
        counts_U = np.bincount(user_N, minlength=users).astype(np.float64)
        return Score(np.bincount(user_N, reward_N, minlength=users).astype(np.float64), counts_U)

    def _walked(self, ground: "Ground", ensemble: Ensemble) -> Score:
        kind, trail = self.settings.reward, ground.trail
        if trail.left_out:
            raise EvidenceError(
                f"{trail.left_out:,} of {len(self.rows):,} events do not fit into memory with these features; lower "
                "tune.events, so that all trials are scored on the same events"
            )
        walked = walk(ensemble, trail, self.settings.seed)
        return self._total(kind.low + (kind.high - kind.low) * walked.blend_N)

    def _played(self, ground: "Ground", ensemble: Ensemble, rungs: int) -> Iterator[Score]:
        """A decision knows the rewards of those before it, but for the last `PUBLISH_EVERY` at most."""
        total = len(self.rows)
        schedule = Schedule(np.arange(total), np.arange(total, dtype=np.float64), 0.0, PUBLISH_EVERY)
        policy = Policy(ensemble, schedule, self._world, self.settings.seed)
        done = 0
        for rung in range(1, rungs + 1):
            end = total * rung // rungs
            while done < end:
                numbers = range(done, min(done + CHUNK, end))
                proceed([policy], ground.work.feature_map, self._world, schedule, numbers)
                done = numbers.stop
            yield self._total(policy.played().expected_N)


@dataclass(frozen=True)
class Ground:
    """What trials of equal features and content share: split, feature map, pooled priors, events, generated member."""

    work: Groundwork
    events: pa.Table
    member: Mixture | None

    @cached_property
    def trail(self) -> Trail:
        return Trail.of(self.work.feature_map, self.events, self.work.settings.reward, self.work.settings.seed)

    def ensemble(self, settings: Settings) -> Ensemble:
        """The predefined members under these settings, and the generated one where there is one, on equal terms."""
        members = Predefined(self.work.predefined.design, self.work.feature_map, settings.bandits).members()
        if self.member is not None:
            members += (generated.best(self.member, settings),)
        return replace(self.work, settings=settings).ensemble(*members)
