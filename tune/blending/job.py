"""Train the residual of the version in service, prove it, publish it.

    import with --data ─► world on its held-out part ─► PPO on draws from it ──────┐
    journal ─► decisions since the last time ─► refused below an effective share   ├─► bounds ─► proof ─► publish
                                              └► one clipped pass over them ───────┘

Only fresh events are used, those that the version was not made of. Users are hashed into those who are trained on and
those who judge. Training begins at the residual in service, or at none, which is the plain blend. What the version's
learners have learned before the fresh events is known from the start.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.residual import Residual
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from cluster.config import Settings
from cluster.journal.journal import Reader, journal_url
from cluster.records import Dataset
from cluster.registry import Registry
from tune import metric
from tune.blend_env import SCALARS, Answers
from tune.blending import signal
from tune.blending.policy import BlendPolicy, Form
from tune.blending.proof import Proof, prove
from tune.blending.reported import draw
from tune.blending.situations import Situations, situations
from tune.journal import after, evidence
from tune.log import Bools
from tune.memory import Memory
from tune.proof import warmed
from tune.refinement import GROWTH
from tune.split import parts, tasks, unit
from tune.stages import Stages
from tune.walk import Trail
from tune.worlds.base import Situations as Requests
from tune.worlds.base import World
from tune.worlds.build import on

LEAST_DECISIONS = 500
"""Logged decisions below which a pass over them teaches nothing."""


@dataclass(frozen=True)
class PpoJob:
    """A try on the newest version of a name.

    dataset: events with the metric or the signal. fresh: rows of them that the version was not made of. older: rows
    before them that its learners have learned from. world: whether a world answers, or the log alone speaks. folder:
    for checkpoints. on_ray: gives a Ray session to train in; by default there is one.
    """

    dataset: Dataset
    settings: Settings
    name: str
    number: int
    running: Version
    fresh: Ints
    older: Ints
    world: bool
    registry: Registry
    stages: Stages
    folder: Path
    on_ray: Callable[[], AbstractContextManager[Any]] = nullcontext

    @classmethod
    def of(
        cls,
        dataset: Dataset,
        settings: Settings,
        name: str,
        stages: Stages,
        folder: Path,
        new: pa.Array | None,
        learned: pa.Array | None = None,
    ) -> "PpoJob":
        """Args:
            new: event ids of the journal after the last time; None for an import, whose held-out part is fresh.
            learned: of those before that the version's learners have learned from; None for none.

        Raises:
            RegistryError: there is no version yet.
        """
        registry = Registry(settings.registry_uri)
        number = max(registry.versions(name), default=0)
        running = Version.load(registry.fetch(name, number or None))
        dataset = signal.apply(dataset, settings) if settings.ppo.signal else metric.apply(dataset, settings)
        fresh = np.sort(parts(dataset, settings.seed).world) if new is None else _rows(dataset, new)
        older = np.empty(0, np.int64) if learned is None else _rows(dataset, learned)
        return cls(dataset, settings, name, number, running, fresh, older, new is None, registry, stages, folder)

    def go(self, memory: Memory) -> dict[str, Any]:
        """Train, prove, and publish or say why not. `memory` counts the tries, which share the gate's error rate."""
        (family, source), count = self.families, len(self.fresh)
        done: dict[str, Any] = {"name": self.name, "running": self.number, "events": count}
        if waits := self._waits(memory.tried(source)):
            self.stages.say(f"ppo waits: {waits}")
            return self._told(done | {"action": "wait", "waits": waits})
        seen = self._situations()
        done["decisions"] = len(seen.contexts)
        policy = self._start(seen)
        with self.on_ray():
            policy, facts = self._trained(policy, seen)
        done |= facts
        if "waits" in done:
            return self._told(done | {"action": "keep"})
        memory.attempt(family, count)
        memory.attempt(source, count)
        proof = self._proof(policy.residual(), memory.tries(family))
        done["proof"] = proof.facts()
        if not proof.publish:
            return self._told(done | {"action": "keep", "waits": f"the gate: {proof.plain.reason}"})
        return self._told(done | {"action": "publish", "version": self._publish(policy.residual(), done)})

    @property
    def families(self) -> tuple[str, str]:
        """Names of the tries that share the error rate, and of those that wait for more events than the last had.

        The judges of an import are the same for every version, so all tries on it share; the journal has new ones.
        """
        version = f"{self.name}/{self.number}/ppo"
        if not self.world:
            return version, f"{version}/journal"
        return f"{self.name}/{self.dataset.facts.get('fingerprint')}/ppo", f"{version}/world"

    def _waits(self, tried: int) -> str | None:
        """Why not to try yet."""
        relations = self.running.feature_map.relations
        if relations is None:
            return f"version {self.number} knows nothing of its items' content"
        if len(self.running.ensemble.members) < 2:
            return f"version {self.number} has one member, so there is nothing to blend"
        users = len(set(tasks(self._events(self._judging)).to_pylist()))
        if users < self.settings.gate.least_users:
            return f"{users:,} users to judge by, {self.settings.gate.least_users:,} needed"
        if not self.world and len(self._training) < LEAST_DECISIONS:
            return f"{len(self._training):,} new decisions to learn from, {LEAST_DECISIONS:,} needed"
        if len(self.fresh) < GROWTH * tried:
            return f"{len(self.fresh):,} new events, {tried:,} at the last try"
        return None

    @cached_property
    def _judges(self) -> Bools:
        """Of each fresh row, whether its user judges."""
        names = tasks(self._events(self.fresh))
        return unit(names, self.settings.seed, "ppo") < self.settings.ppo.judged

    @property
    def _judging(self) -> Ints:
        return self.fresh[self._judges]

    @property
    def _training(self) -> Ints:
        return self.fresh[~self._judges][-self.settings.ppo.decisions :]

    def _events(self, rows: Ints) -> pa.Table:
        return self.dataset.events.take(pa.array(rows)).sort_by("timestamp")

    @cached_property
    def _map(self) -> FeatureMap:
        return self.running.over(self.dataset.items, self.dataset.encoder)

    def _situations(self) -> Situations:
        settings = self.settings
        with self.stages.stage("situations") as stage:
            common = (settings.reward, settings.seed, settings.ppo.items)
            if self.world:
                events, taken, expected = self._answers.events, None, self._expected()
            else:  # what was logged was decided by members that had learned from everyone
                events, taken, expected = self._events(self.fresh), np.isin(self.fresh, self._training), None
            ensemble, progress = self.running.ensemble, stage.progress
            state = self._learned(ensemble)
            found = situations(ensemble, self._map, events, *common, taken, expected, progress, state)
            stage.left_out = f"{found.left_out:,} decisions of more than {settings.ppo.items} items" * bool(
                found.left_out
            )
        return found

    def _learned(self, ensemble: Ensemble) -> learn.State:
        """What the version's learners know where the fresh events begin."""
        return warmed(ensemble, self._map, self._events(self.older), self.settings)

    @cached_property
    def _answers(self) -> World:
        """The world on what is trained on."""
        return on(self.dataset, self._training, self.settings)

    def _expected(self) -> Callable[[int], Floats]:
        requests, reward = Requests(self._answers.events), self.settings.reward
        catalogue = self.dataset.items["item_id"].to_pylist()

        def expected(row: int) -> Floats:
            items = requests[row].candidates
            found_K = self._answers.mean_rewards(row, catalogue if items is None else items)
            scaled_K: Floats = np.clip((found_K - reward.low) / (reward.high - reward.low), 0.0, 1.0)
            return scaled_K

        return expected

    def _start(self, seen: Situations) -> BlendPolicy:
        """The plain blend, or the residual in service where it fits what is seen."""
        ensemble, ppo = self.running.ensemble, self.settings.ppo
        relations = self._map.relations
        assert relations is not None  # else there are no situations
        form = Form.of(ensemble, relations, seen.contexts.mask_BK.shape[1], ppo, self.settings.seed)
        policy = BlendPolicy(form)
        before = ensemble.residual
        if before is not None and before.inputs == form.inputs and len(before.first_W) == form.hidden:
            policy.take(before)
        else:
            policy.standardise(seen.contexts.observed_BKN[seen.contexts.mask_BK])
        return policy

    def _trained(self, policy: BlendPolicy, seen: Situations) -> tuple[BlendPolicy, dict[str, Any]]:
        from tune.blending.training import BATCH, Training, effective, hold  # RLlib is imported once Ray is there

        settings, seen_BO = self.settings.ppo, policy.see(seen.contexts)
        answers = Answers(seen_BO, seen.contexts.reward_BK)
        facts: dict[str, Any] = {}
        if not self.world:
            if seen.propensity_B is None:
                return policy, {"waits": "the log does not say with which propensities it chose"}
            share = effective(policy, seen_BO, seen.action_B, seen.propensity_B)
            facts["effective"] = share
            if share < settings.least_effective:
                least = f"{settings.least_effective:.0%} needed"
                return policy, facts | {"waits": f"the log is worth {share:.0%} of its decisions here, {least}"}
        with Training.opened(policy, answers, settings, self.settings.seed, self.folder) as training:
            if self.world:
                with self.stages.stage("ppo", settings.budget_s) as stage:
                    training.go(settings.batches, settings.checkpoint_batches, lambda: stage.left_s, stage.progress)
                    left = settings.batches - training.batches
                    stage.left_out = f"{left} batches not reached" if left > 0 else ""
            elif seen.propensity_B is not None:
                with self.stages.stage("pass"):
                    training.learn(seen_BO, seen.action_B, seen.reward_B, seen.propensity_B)
            policy, facts["curve"] = training.policy, training.curve
        if training.curve:
            plain_BK = np.exp(seen_BO[:, :-SCALARS].reshape(len(seen_BO), policy.form.items, -1)[..., -1])
            facts["plain_reward"] = float((plain_BK * seen.contexts.reward_BK).sum(axis=1).mean())
            draw(training.curve, facts["plain_reward"], BATCH, self.folder / "ppo.png")
        facts["bounds"] = asdict(hold(policy, seen_BO, settings))
        return policy, facts

    def _proof(self, residual: Residual, tries: int) -> Proof:
        settings = self.settings
        alpha = settings.gate.alpha / (tries * (tries + 1))
        gate = settings.gate.model_copy(update={"alpha": alpha})
        with self.stages.stage("proof", settings.budgets.confirm_s) as stage:
            trail = Trail.of(self._map, self._events(self._judging), settings.reward, settings.seed)
            ensemble, spare = self.running.ensemble, lambda: stage.left_s / 2
            proof = prove(ensemble, residual, trail, gate, settings.seed, spare, stage.progress, self._learned)
        verdict = proof.plain
        self.stages.say(
            f"with the residual − plain blend: {verdict.difference:+.4f}, at least {verdict.low:+.4f} "
            f"(try {tries}, {verdict.users:,} users)"
        )
        return proof

    def _publish(self, residual: Residual, done: dict[str, Any]) -> int:
        """The running version with the residual; its learners go on from the same watermark."""
        about = {
            "parents": [self.number],
            "reason": "ppo",
            "ppo": {
                "watermark": self.dataset.facts.get("watermark"),
                "proof": done["proof"],
                "bounds": done["bounds"],
                "batches": len(done["curve"]),
            },
        }
        ensemble = replace(self.running.ensemble, residual=residual)
        version = replace(self.running, ensemble=ensemble, facts=self.running.facts | about)
        with self.stages.stage("publish"):
            return self.registry.publish(self.name, version.save)

    def _told(self, facts: dict[str, Any]) -> dict[str, Any]:
        self.stages.write(**facts)
        return facts


def _rows(dataset: Dataset, ids: pa.Array) -> Ints:
    return np.flatnonzero(pc.is_in(dataset.events["event_id"], ids))


def journal(
    settings: Settings, name: str, progress: Callable[[int, int], None] | None = None
) -> tuple[Dataset, pa.Array, pa.Array]:
    """The journal's decisions; the ids of the events since both the residual in service and the version were made, and
    of those before that the version's learners have learned from.

    Raises:
        RegistryError: there is no version yet. SourceError: there is no final outcome yet.
    """
    reader, registry = Reader(journal_url(settings)), Registry(settings.registry_uri)
    number = max(registry.versions(name), default=0)
    version = Version.load(registry.fetch(name, number or None))
    # A version that was made again since carries the residual's facts on, and has learned from later events.
    known = max(about.get("watermark") or 0 for about in (version.facts, version.facts.get("ppo") or {}))
    # The signal is made of all kinds of rewards, which the journal gives where the metric is a mix of them.
    mixed = settings.model_copy(update={"metric": settings.metric.model_copy(update={"kind": "mix"})})
    dataset = evidence(mixed if settings.ppo.signal else settings, reader, name, progress=progress)
    fresh, watermark = after(reader, known), version.facts.get("watermark")
    since = after(reader, watermark or 0) if known > (watermark or 0) else fresh
    learned = dataset.events.filter(pc.is_in(dataset.events["event_id"], since))
    learned = learned.filter(pc.invert(pc.is_in(learned["event_id"], fresh)))
    if watermark is None:  # it learns from its own decisions alone
        learned = learned.filter(pc.equal(learned["version"], number))
    return dataset, fresh, learned["event_id"].combine_chunks()
