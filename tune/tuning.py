"""Fine-tuning of the generator in service: what its traffic taught since, taken over only where held-out users say so.

    new events ─► tasks of fit and stop users ─► language model and head go on ─► tasks of confirm users: likelier?
                                                                                       │ no: nothing
    all events that hold ─► candidates of the tuned generator ─► select ─► the gate of every member ◄┘ yes
                                                                               └► a new version, whose parent this is

The first question is asked of the mixture marginal likelihood, paired by user between the generator before and after,
the k-th time of one version at α/(k(k + 1)) and each time on GROWTH times as many new events. A user's part follows
from the name, so that nobody who judges has trained this generator or any before it.

Shapes: U users.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.features import Ints
from actors.generator.generator import Generator
from actors.generator.people import People
from actors.generator.tasks import Logged, Tasks, build, user_keys
from actors.generator.train import Reading
from actors.generator.tuning import Tuned, tune
from cluster.journal.journal import Reader
from cluster.records import USERS, conform
from tune.composer import Composition
from tune.gate import Paired, Verdict, admit
from tune.groundwork import Groundwork
from tune.journal import after
from tune.keeping import kept
from tune.memory import Memory
from tune.refinement import GROWTH, Refinement, since
from tune.spending import Spending


@dataclass(frozen=True)
class GeneratorTuning:
    """refinement: the version in service and its traffic. new: ids of the events after those that it was made of."""

    refinement: Refinement
    new: pa.Array

    def go(self, memory: Memory) -> dict[str, Any]:
        """Tune, ask, publish; returns what was found and done. `memory` keeps what was tried."""
        found, at = self._looked(memory), self.refinement
        facts = {"name": at.name, "running": at.number, "reason": "generator", "new": len(self.new), **found}
        at.stages.write(**facts)
        return facts

    def _looked(self, memory: Memory) -> dict[str, Any]:
        at = self.refinement
        family = f"{at.name}/{at.number}/generator"
        waits = self._waits(memory.tried(family))
        if waits is not None:
            at.stages.say(f"the generator waits: {waits}")
            return {"action": "wait", "waits": waits}
        memory.attempt(family, len(self._new))
        tuned = self._tuned()
        verdict = self._verdict(tuned, memory.tries(family))
        facts = {"likelihood": _facts(verdict), "head": tuned.generator.report.head.in_words()}
        if not verdict.admitted:
            return {"action": "keep", "waits": "held-out users are not shown to be likelier", **facts}
        made = self._composed(tuned.generator, memory)
        facts |= {**made.result(), **made.facts()}
        if not made.found.admission.anywhere:
            return {"action": "keep", "waits": f"the gate: {made.found.facts['reason']}", **facts}
        about = {"parents": [at.number], "since_s": at.running.facts.get("since_s"), "reason": "generator"}
        version = made.version(at.stages, about | made.kept(at.registry, at.name))
        return {"action": "replace", "version": at.publish(version), **facts}

    def _waits(self, tried: int) -> str | None:
        """Why not to try yet."""
        at = self.refinement
        if at.running.generator is None:
            return f"version {at.number} has no generated member"
        users = len(set(user_keys(self._work.dataset.events.take(pa.array(self._of(self._work.split.confirm))))))
        if users < at.settings.gate.least_users:
            return f"{users:,} new users to judge by, {at.settings.gate.least_users:,} needed"
        if len(self._new) < GROWTH * tried:
            return f"{len(self._new):,} new events, {tried:,} at the last try"
        return None

    @cached_property
    def _work(self) -> Groundwork:
        """All events that still hold, with the running version's features."""
        at = self.refinement
        events, since_s = at.dataset.events, at.running.facts.get("since_s")
        facts = at.dataset.facts | {"fingerprint": f"{at.name}/{at.number}/generator", "events": len(events)}
        held = events if since_s is None else since(events, since_s)
        data = replace(at.dataset, format="feedback", events=held, users=self._users, truth=None, facts=facts)
        return Groundwork.of(data, at.settings, at.running.over(data.items, data.encoder), world=0.0)

    @cached_property
    def _users(self) -> pa.Table:
        """Those whom the generator knows, and the others of the traffic: a journal has no attributes of users."""
        users, people = self.refinement.dataset.users, self._generator.people
        if people is None:
            return users
        others = pc.invert(pc.is_in(users["user_id"], people.table["user_id"].combine_chunks()))
        return pa.concat_tables([conform(people.table, USERS, "users"), users.filter(others)])

    @cached_property
    def _new(self) -> Ints:
        """Rows of the new events."""
        return np.flatnonzero(pc.is_in(self._work.dataset.events["event_id"], self.new))

    @cached_property
    def _generator(self) -> Generator:
        return kept(self.refinement.registry, self.refinement.running)

    def _logged(self, rows: Ints) -> Logged:
        reward = self._work.settings.reward
        return Logged.of(self._work.dataset, rows, self._work.feature_map, reward.low, reward.high)

    def _of(self, part: Ints) -> Ints:
        """The new rows of a part."""
        return part[np.isin(part, self._new)]

    def _tasks(self, part: Ints, share: int = 1) -> Tasks:
        """The new tasks of a part, at most `generator.tasks` over `share`."""
        settings = self._work.settings
        return build(
            self._work.dataset,
            self._logged(self._of(part)),
            self._generator.serialiser,
            limit=max(settings.bandits.history, 1),
            most=max(settings.generator.tasks // share, 1),
            seed=settings.seed,
        )

    def _tuned(self) -> Tuned:
        work, at = self._work, self.refinement
        with at.stages.stage("tune", work.settings.budgets.backbone_s + work.settings.budgets.head_s, bar=False):
            fit, stop = self._tasks(work.split.fit), self._tasks(work.split.stop, 4)
            people = People.of(work.dataset.users)
            reading = Reading(self._generator.serialiser, people, self._logged(work.split.fit), fit, stop, 0)
            held_out = self._tasks(work.split.confirm)
            return tune(self._generator, reading, held_out, work.predefined.linear, work.settings, at.stages.shown)

    def _verdict(self, tuned: Tuned, tries: int) -> Verdict:
        at = self.refinement
        paired = Paired(tuned.before_U - tuned.after_U, tuned.rows_U.astype(np.float64))
        gate = at.settings.gate.model_copy(update={"alpha": at.settings.gate.alpha / (tries * (tries + 1))})
        verdict = admit(paired, gate, at.settings.seed)
        at.stages.say(
            f"log likelihood of a held-out reward: {verdict.difference:+.4f} nats, at least {verdict.low:+.4f} "
            f"(try {tries}, {verdict.users:,} users)"
        )
        return verdict

    def _composed(self, generator: Generator, memory: Memory) -> Composition:
        at = self.refinement
        with at.on_ray():
            made = Composition.of(
                self._work,
                self._work.predefined.members(),
                at.stages,
                at.folder,
                Spending(dict(memory.tests)),
                generator,
            )
        memory.tests = made.found.spending.tests
        return made


def _facts(verdict: Verdict) -> dict[str, Any]:
    """Of a reward of a held-out user: by how much its log likelihood rose, nats, and the lower bound of that."""
    names = {"risen": "admitted", "gain": "difference", "low": "low", "p_value": "p_value", "users": "users"}
    return {name: getattr(verdict, field) for name, field in names.items()}


def tuning(refinement: Refinement, reader: Reader) -> GeneratorTuning:
    """Of what the journal has after the running version's watermark; of all of it where an import made the version."""
    return GeneratorTuning(refinement, after(reader, refinement.running.facts.get("watermark") or 0))
