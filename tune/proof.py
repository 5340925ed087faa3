"""The proof of a new version against the one that runs: both walk the same *confirm* events, and users judge.

Neither has seen the confirm users. The running version has learned from everyone else who came since it began, as its
learners did; the new one was fitted on *fit* and has learned from *stop* and *select*. Where the two disagree on what
features are, each has its own; events, reward model and propensities are the same for both.

Shapes: N events, U users.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from cluster.config import Settings
from tune.composer import Composition
from tune.gate import Verdict, admit
from tune.log import read
from tune.split import tasks
from tune.stages import Stage
from tune.walk import Trail, walk

JUDGED = 5_000
"""Events from which weights are known well: half a half-life of them by default."""
CHUNK = 256


@dataclass(frozen=True)
class Proof:
    """verdict: of new − running, per event in scaled reward. publish: nothing is lost, and something to be gained."""

    verdict: Verdict

    @property
    def publish(self) -> bool:
        return self.verdict.kept and self.verdict.difference > 0


def prove(made: Composition, running: Version, since: pa.Table, alpha: float, stage: Stage) -> Proof:
    """Walk *confirm* with both.

    Args:
        since: what the running version could learn from: events after those that it was made of.
        alpha: one-sided error rate of the verdict.
    """
    work = made.work
    settings, split = work.settings, work.split
    events = work.events(split.confirm)
    trail = Trail.of(work.feature_map, events, settings.reward, settings.seed)
    older = _others(since, events)
    feature_map = running.over(work.dataset.items, work.dataset.encoder)
    before = replace(trail, batch=feature_map.batch(events.slice(0, len(trail.log))))
    state = warmed(running.ensemble, feature_map, older, settings)
    old = walk(running.ensemble, before, settings.seed, lambda: stage.left_s / 2, stage.progress, state)
    state = warmed(made.trial, work.feature_map, work.events(np.concatenate([split.stop, split.select])), settings)
    new = walk(made.trial, trail.first(len(old.log)), settings.seed, progress=stage.progress, state=state)
    stage.left_out = old.left_in_words(trail)
    return Proof(admit(new.over(old), settings.gate.model_copy(update={"alpha": alpha}), settings.seed))


def warmed(ensemble: Ensemble, feature_map: FeatureMap, events: pa.Table, settings: Settings) -> learn.State:
    """What an ensemble knows after these events, in order of time.

    Only the last JUDGED count for the weights: of the others it is not asked what each member would have chosen.
    """
    state = learn.start(ensemble)
    users = [None if name.startswith("e:") else name for name in tasks(events).to_pylist()]
    for start in range(0, len(events), CHUNK):
        part = events.slice(start, CHUNK)
        log, batch = read(part, feature_map.item_ids, settings.reward), feature_map.batch(part)
        published = learn.publish(state)
        for b in range(len(part)):
            features, user, action = batch.row(b), users[start + b], int(log.action_N[b])
            judged = start + b >= len(events) - JUDGED
            history = None if user is None else state.histories.get(user)
            found = law.probabilities(published, features, history, start + b) if judged else None
            outcome = learn.Outcome.of(
                features,
                action,
                user=user,
                reward=ensemble.low + (ensemble.high - ensemble.low) * float(log.reward_N[b]),
                propensity=log.propensity(b),
                member_propensities_M=found.member_MK[:, action] if found else np.zeros(len(ensemble.names)),
                member_means_M=found.member_means_MK[:, action] if found else None,
            )
            state = learn.step(state, outcome)
    return state


def _others(events: pa.Table, confirm: pa.Table) -> pa.Table:
    """The events of users who are not in the confirm part, in order of time."""
    mine = pc.is_in(tasks(events), tasks(confirm).unique())
    return events.filter(pc.invert(mine)).sort_by("timestamp")
