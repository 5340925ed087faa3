"""What to do about a version in service: leave it, retire a member, or replace it by a new one that is proven.

    stream ─► choices turned? ── restart the trusted models on the events since then ───────────────► publish
           └► another drift? ─────────┐
    walk   ─► generated member lost? ─┼─► compose on what still holds ─► prove on confirm, paired ──► publish
    events ─► twice as many? ─────────┘

After a drift of rewards only events from the change on still hold; else all do. A replacement that is not proven is
tried again when there are GROWTH times as many events, each time at a smaller error rate (as in tune.spending). A run
with nothing to do costs a pass over the events.

Shapes: N events.
"""

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits.version import Version
from cluster import session
from cluster.config import Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from cluster.registry import Registry
from tune import metric
from tune.composer import Composition
from tune.drift.detect import Drift, Found, detect
from tune.drift.stream import Stream
from tune.groundwork import Groundwork
from tune.memory import Memory
from tune.monitor import Standing, standings
from tune.proof import Proof, prove
from tune.proposal import forget
from tune.restart import restarted
from tune.specialise import Content
from tune.spending import Spending
from tune.split import task_codes
from tune.stages import Stages
from tune.walk import Trail, walk

Reason = Literal["drift", "retired", "grown"]
GROWTH = 1.5
"""How many times the events of the last look or try there must be before the next one."""
CONFIRM_SHARE = 0.2
"""Share of users who judge a replacement."""


@dataclass(frozen=True)
class Refinement:
    """A look at the newest version of a name, by the traffic that it and those before it decided.

    dataset: events of the journal, and of an earlier import where there is one, with the journal's watermark.
    folder: scratch for Ray's part of composing; None does all of it in this process.
    """

    dataset: Dataset
    settings: Settings
    name: str
    number: int
    running: Version
    registry: Registry
    stages: Stages
    folder: Path | None = None

    @classmethod
    def of(
        cls, dataset: Dataset, settings: Settings, name: str, stages: Stages, folder: Path | None = None
    ) -> "Refinement":
        """Raises RegistryError where there is no version yet."""
        registry = Registry(settings.registry_uri)
        number = max(registry.versions(name), default=0)
        running = Version.load(registry.fetch(name, number or None))
        return cls(metric.apply(dataset, settings), settings, name, number, running, registry, stages, folder)

    def go(self, memory: Memory) -> dict[str, Any]:
        """Look, and do what is to be done; returns what was found and done.

        `memory` says what was tried before, and is told what was tried now.
        """
        found = self.drift()
        standing = self.standing(memory)
        lost = [each.member for each in standing if each.retired]
        reason, events = self._reason(found.drift, lost)
        done: dict[str, Any] = {"action": "nothing"}
        if found.drift is not None and found.drift.turned:
            done = self._restart(found.drift)
        elif reason is not None:
            done = self._replace(reason, found.drift, events, memory)
        if lost and "version" not in done:
            done |= self._retire(lost)
        facts = {
            "name": self.name,
            "running": self.number,
            "reason": reason,
            "alarm": 1 / self.settings.drift.alpha,
            **found.facts(),
            "standing": [each.facts() for each in standing],
            **done,
        }
        self.stages.write(**facts)
        forget(self.stages)
        return facts

    def drift(self) -> Found:
        """Whether what the running version rests on still holds."""
        since_s = self.running.facts.get("since_s")
        events = self.dataset.events if since_s is None else since(self.dataset.events, since_s)
        feature_map = self.running.over(self.dataset.items, self.dataset.encoder)
        with self.stages.stage("drift") as stage:
            found = detect(
                Stream.of(feature_map, events, self.settings.reward), self.settings.drift, progress=stage.progress
            )
        self.stages.say(_words(found))
        return found

    def standing(self, memory: Memory) -> list[Standing]:
        """How the members do in what the running version decided; asked again when there is GROWTH times as much."""
        decided = self.decided()
        if len(decided) < max(1.0, GROWTH * memory.looked(self.number)):
            return []
        with self.stages.stage("members", self.settings.budgets.select_s) as stage:
            feature_map = self.running.over(self.dataset.items, self.dataset.encoder)
            try:
                trail = Trail.of(feature_map, decided.sort_by("timestamp"), self.settings.reward, self.settings.seed)
            except EvidenceError as error:
                self.stages.warn(f"members are not judged: {error}")
                return []
            seed = self.settings.seed
            walked = walk(self.running.ensemble, trail, seed, lambda: stage.left_s, stage.progress)
            stage.left_out = walked.left_in_words(trail)
        memory.look(self.number, len(decided))
        found = standings(walked, self.running.ensemble, self.settings.gate)
        for each in found:
            if each.retired:
                self.stages.say(f"{each.member} earns less than the ensemble: {each.low:+.4f} to {each.high:+.4f}")
        return found

    def decided(self) -> pa.Table:
        """Events that the running version decided."""
        return self.dataset.events.filter(pc.fill_null(pc.equal(self.dataset.events["version"], self.number), False))

    def _reason(self, drift: Drift | None, lost: list[str]) -> tuple[Reason | None, pa.Table]:
        """Why to replace the version, and the events that still hold."""
        events = self.dataset.events
        since_s = self.running.facts.get("since_s")
        if drift is not None and drift.signal != "context":
            return "drift", since(events, drift.since_s)
        events = events if since_s is None else since(events, since_s)
        if drift is not None:
            return "drift", events
        if lost:
            return "retired", events
        made_of = self.running.facts.get("events")
        if made_of is not None and len(events) >= 2 * made_of:
            return "grown", events
        return None, events

    def _restart(self, drift: Drift) -> dict[str, Any]:
        """What the version knows no longer holds: begin again from the change on."""
        kind = self.dataset.events.schema.field("timestamp").type
        before = pc.less(self.dataset.events["timestamp"], _moment(drift.since_s, kind))
        since = self.dataset.events.filter(pc.invert(before))
        earlier = self.dataset.events.filter(before)
        with self.stages.stage("restart"):
            version = restarted(self.running, earlier, since, self.dataset.items, self.settings)
        about = {
            "parents": [self.number],
            "reason": "drift",
            "since_s": drift.since_s,
            "watermark": self.dataset.facts.get("watermark"),
            "data": self.dataset.facts.get("fingerprint"),
            "events": len(since),
            "generator": None,
        }
        number = self.publish(replace(version, facts=self.running.facts | about))
        return {"action": "restart", "version": number, "members": list(version.ensemble.names)}

    def _replace(self, reason: Reason, drift: Drift | None, events: pa.Table, memory: Memory) -> dict[str, Any]:
        """Compose, prove, publish; or say why not yet."""
        since_s = self.running.facts.get("since_s") if drift is None else drift.since_s
        family = f"{self.name}/{self.number}/{reason}/{since_s}"
        users = len(np.unique(task_codes(events)))
        needed = int(np.ceil(self.settings.gate.least_users / CONFIRM_SHARE))
        waits = None
        if users < needed:
            waits = f"{users:,} users since then, {needed:,} needed"
        elif len(events) < GROWTH * memory.tried(family):
            waits = f"{len(events):,} events, {memory.tried(family):,} at the last try"
        if waits is not None:
            self.stages.say(f"{reason}: a replacement waits: {waits}")
            return {"action": "wait", "waits": waits}
        memory.attempt(family, len(events))
        made = self._composed(drift, events, family, memory)
        proof = self._proof(made, family, memory)
        facts = {"proof": proof.verdict.facts(), **made.result(), **made.facts()}
        if not proof.publish:
            return {"action": "keep", **facts}
        about = {"parents": [self.number], "since_s": since_s, "reason": reason}
        about |= made.kept(self.registry, self.name)
        return {"action": "replace", "version": self.publish(made.version(self.stages, about)), **facts}

    def _composed(self, drift: Drift | None, events: pa.Table, family: str, memory: Memory) -> Composition:
        """On few events since a change the running version's features are better than new ones."""
        facts = self.dataset.facts | {"fingerprint": family, "events": len(events)}
        data = replace(self.dataset, format="feedback", events=events, truth=None, facts=facts)
        with self.stages.stage("features"):
            kept = self.running.over(data.items, data.encoder) if drift is not None else None
            content = Content.of(self.registry, self.name)
            work = Groundwork.of(data, self.settings, kept, world=0.0, content=content)
            members = work.predefined.members()
        with self.on_ray():
            made = Composition.of(work, members, self.stages, self.folder, Spending(dict(memory.tests)))
        memory.tests = made.found.spending.tests
        return made

    def on_ray(self) -> contextlib.AbstractContextManager[Any]:
        """A Ray session for composing, where there is scratch for one."""
        return session.opened(self.settings) if self.folder else contextlib.nullcontext()

    def _proof(self, made: Composition, family: str, memory: Memory) -> Proof:
        tries = memory.tries(family)
        alpha = self.settings.gate.alpha / (tries * (tries + 1))
        with self.stages.stage("proof", self.settings.budgets.confirm_s) as stage:
            proof = prove(made, self.running, self.decided(), alpha, stage)
        verdict = proof.verdict
        self.stages.say(
            f"new − running: {verdict.difference:+.4f}, at least {verdict.low:+.4f} "
            f"(try {tries}, {verdict.users:,} users)"
        )
        return proof

    def _retire(self, lost: list[str]) -> dict[str, Any]:
        """Publish the running version without the members that lost: their bound below 0 is the proof."""
        kept = self.running.ensemble.only(*(name for name in self.running.ensemble.names if name not in lost))
        watermark = self.running.facts.get("watermark") or 0  # made of imports alone: all of the journal is new to it
        about = {"parents": [self.number], "reason": "retired", "retired": lost, "watermark": watermark}
        if all(member.predefined for member in kept.members):
            about |= {"generator": None}
        version = replace(self.running, ensemble=kept, facts=self.running.facts | about)
        return {"action": "retire", "version": self.publish(version)}

    def publish(self, version: Version) -> int:
        """The next version of the name."""
        with self.stages.stage("publish"):
            return self.registry.publish(self.name, version.save)


def since(events: pa.Table, since_s: float) -> pa.Table:
    """Events at or after a moment."""
    return events.filter(pc.greater_equal(events["timestamp"], _moment(since_s, events.schema.field("timestamp").type)))


def _moment(second: float, kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(round(second * 1e6), pa.int64()).cast(kind)


def _words(found: Found) -> str:
    if found.drift is None:
        return f"no drift in {len(found.second_T):,} looks"
    drift = found.drift
    at = np.array([drift.since_s, drift.first_s, drift.last_s]).astype("datetime64[s]")
    turned = ", and what was the better choice is no longer" if drift.turned else ""
    return f"drift: {drift.signal}{turned}, since {at[0]} ({at[1]} to {at[2]})"
