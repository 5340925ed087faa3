"""The learner of a client shard: final rewards in the journal's order -> posteriors, weights, publications.

A plain class; `serve.learning.service` runs it in an actor. Its state is a function of the journal alone: each outcome
goes through `learn.step` once, in sequence, so that a rebuild from the journal gives the same bits.

Which outcomes a version learns from: those of its own decisions; and, where it carries a journal watermark,
also later outcomes of earlier versions' decisions, their features taken anew. Without a watermark (a version
made from imported logs alone) earlier decisions may be about other data and are left out.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
from pydantic_core import from_json

from actors.bandits import learn
from actors.bandits.ensemble import Ensemble
from actors.bandits.version import Version
from actors.content.served import Served
from cluster.errors import MedleyError, RegistryError, StateError
from cluster.journal.journal import OutcomeRow
from cluster.registry import VersionGone
from serve.decisions import evidence
from serve.decisions.current import Update
from serve.decisions.histories import Recalled
from serve.learning import checkpoint
from serve.learning.feedback import Told
from serve.learning.ledger import Checkpoint, Ledger, Publication
from serve.learning.tracked import Tracked

logger = logging.getLogger(__name__)

LIVE_VERSIONS = 2
"""Versions of a client that learn: the newest, and the one before while its windows close."""
_TEACH = ("live", "apprentice")  # a baseline that answers in the other modes is not the models' business


class Outcomes(Protocol):
    """What a learner reads: a journal's reader is one."""

    def outcomes(self, after: int, limit: int, kind: str) -> list[OutcomeRow]: ...


class Learner:
    """Owns a shard from the moment its ledger was opened.

    Args:
        load: gives a version by number; raises VersionGone where there is none, another RegistryError where it cannot
            be had now.
        reader: the journal.
        ledger: this shard's own state.
        kind: the reward kind to learn from.
        clock: server time, seconds.
    """

    def __init__(
        self,
        load: Callable[[int], Version],
        reader: Outcomes,
        ledger: Ledger,
        kind: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._load = load
        self._reader = reader
        self._ledger = ledger
        self._kind = kind
        self._clock = clock
        self._versions: dict[int, Version | None] = {}
        self._tracked: dict[tuple[str, int], Tracked] = {}
        self._retired: list[tuple[str, int]] = []
        self.seq = 0
        self.number = 0
        self.skipped = 0
        self._epochs: dict[tuple[str, int], int] = {}
        self._published = 0
        self._restored = False
        try:
            self._restore()
        except RegistryError as error:
            logger.warning("learner: %s; it is tried again", error)

    def advance(self, limit: int = 1_000) -> int:
        """Learn from the next outcomes; returns how many were read.

        Raises:
            RegistryError: a version that teaches cannot be had now; nothing is passed over, and the next call goes on.
        """
        if not self._restored:
            self._restore()
        rows = self._reader.outcomes(self.seq, limit, self._kind)
        for row in rows:
            self._apply(row)
            self.seq = row.seq
        if len(rows) < limit:
            self._published = 0
        return len(rows)

    def adopt(self, number: int, held: Collection[str] = ()) -> None:
        """Begin a new version for every client that has an older one and is not `held` at it, from its watermark on."""
        try:
            version = self._version(number)
        except RegistryError as error:
            logger.warning("version %d is not learned yet: %s", number, error)
            return
        if version is None or version.facts.get("watermark") is None:
            return
        for client in sorted({client for client, n in self._tracked if n < number}.difference(held)):
            if (client, number) not in self._tracked:
                self._begin(client, number)

    def publish(self) -> int:
        """Publish every version that learned since; returns the number of publications so far.

        Nothing from before the last publication of the learner before this one: replicas have what was learned up to
        there, and a decision with a part of it could not be made again.
        """
        if self.seq < self._published:
            return self.number
        due = [tracked for tracked in self._tracked.values() if tracked.unpublished]
        if not due:
            return self.number
        rows = [self._publish(tracked) for tracked in due]
        try:
            self._ledger.write(publications=rows)
        except StateError:
            for tracked in due:
                tracked.unpublished = True
            raise
        self.number += 1
        return self.number

    def since(self, number: int) -> tuple[int, list[Update]]:
        """What was published after publication `number`: the latest state, and the histories that changed."""
        published = [tracked for tracked in list(self._tracked.values()) if tracked.update is not None]
        return self.number, [tracked.since(number) for tracked in published if tracked.number > number]

    def recall(self, client: str, version: int, users: Collection[str]) -> Recalled:
        """Histories as last published; of epoch 1 where nothing was: what every replica has without a learner."""
        tracked = self._tracked.get((client, version))
        if tracked is None or tracked.update is None:
            return Recalled(client, version, 1, dict.fromkeys(users))
        return Recalled(client, version, tracked.update.epoch, tracked.histories(users))

    def taught(self, after: Mapping[tuple[str, int], int]) -> list[Told]:
        """The items that outcomes have taught about since a publication, or at all; of versions whose items have
        embeddings."""
        found = []
        for (client, number), tracked in list(self._tracked.items()):
            since, version = after.get((client, number), 0), self._versions.get(number)
            rows = [row for row, changed in tracked.items.items() if changed > since]
            relations = None if version is None else version.feature_map.relations
            if version is not None and rows and relations is not None and relations.width:
                found.append(Told(client, number, self.number, rows))
        return found

    def served(self, client: str, number: int, rows: Sequence[int]) -> list[Served]:
        """How these items stand now; none of a version that learns no more."""
        tracked, version = self._tracked.get((client, number)), self._versions.get(number)
        if tracked is None or version is None:
            return []
        return [tracked.served(version.feature_map.fitted_ids[row], row) for row in rows]

    def save(self) -> None:
        """Checkpoint what changed, in one transaction with the position in the journal."""
        unsaved = [tracked for tracked in self._tracked.values() if tracked.unsaved]
        if not unsaved and not self._retired:
            return
        states = [Checkpoint(t.client, t.version, self.seq, checkpoint.dump(t.state)) for t in unsaved]
        self._ledger.write(checkpoints=states, retired=self._retired)
        self._retired = []
        for tracked in unsaved:
            tracked.unsaved = False

    def publications(self, client: str | None = None, version: int | None = None) -> list[Publication]:
        """Weights over time."""
        return self._ledger.publications(client, version)

    def state(self, client: str, version: int) -> learn.State:
        """The live state, to look at. Raises StateError where this shard has none."""
        try:
            return self._tracked[client, version].state
        except KeyError:
            raise StateError(f"client {client!r} has learned nothing of version {version} yet") from None

    def _restore(self) -> None:
        """Take up the checkpoints, all or none: the position in the journal is that of all of them."""
        publications = self._ledger.publications()
        latest = {(p.client, p.version): p.epoch for p in publications}
        saves = self._ledger.checkpoints()
        for number in sorted({saved.version for saved in saves}):
            self._version(number)
        for saved in saves:
            version = self._version(saved.version)
            if version is None:
                continue
            try:
                state = checkpoint.load(version.ensemble.of(saved.client), saved.state)
            except StateError as error:
                logger.warning("%s", error)
                self._tracked.clear()
                self.seq = 0
                break
            tracked = Tracked(saved.client, saved.version, state, unsaved=False, unpublished=True)
            tracked.users = OrderedDict((user, (1, past)) for user, past in state.histories.items())
            tracked.items = {row: 1 for row in state.items.arrays()["rows"].tolist() if state.items.sums(row)[0]}
            self._tracked[saved.client, saved.version] = tracked
            self.seq = max(self.seq, saved.seq)
        for key, tracked in self._tracked.items():
            tracked.state.epoch = max(tracked.state.epoch, latest.get(key, 0))
        self._published = max((p.seq for p in publications), default=0)
        self._epochs, self._restored = latest, True

    def _version(self, number: int) -> Version | None:
        """None for a version that is gone, or that this Medley cannot use: no replica decides by it, so what it would
        have learned is needed by nobody, and the others learn on. One that cannot be had now is waited for, since
        outcomes that are passed over are lost to it. Raises RegistryError.
        """
        if number not in self._versions:
            try:
                self._versions[number] = self._load(number)
            except MedleyError as error:
                if isinstance(error, RegistryError) and not isinstance(error, VersionGone):
                    raise
                logger.warning("version %d cannot be learned: %s", number, error)
                self._versions[number] = None
        return self._versions[number]

    def _apply(self, row: OutcomeRow) -> None:
        known = _lesson(row)
        if known is None or row.version is None:
            return
        if self._live(row.client, row.version) and (row.client, row.version) not in self._tracked:
            self._begin(row.client, row.version)
        for (client, number), tracked in list(self._tracked.items()):
            if client == row.client and number >= row.version:
                self._step(tracked, row, known)

    def _live(self, client: str, number: int) -> bool:
        newer = [n for c, n in self._tracked if c == client and n > number]
        return len(newer) < LIVE_VERSIONS and self._version(number) is not None

    def _begin(self, client: str, number: int) -> None:
        """Track a version, learn what its watermark leaves to learn up to here, retire the oldest."""
        version = self._version(number)
        assert version is not None
        state = learn.start(version.ensemble.of(client))
        learn.publish(state)  # epoch 1 is what every replica has without a learner
        state.epoch = max(state.epoch, self._epochs.get((client, number), 0))
        tracked = self._tracked[client, number] = Tracked(client, number, state)
        if version.facts.get("watermark") is not None:
            self._backfill(tracked, int(version.facts["watermark"]))
        for old in sorted(n for c, n in self._tracked if c == client)[:-LIVE_VERSIONS]:
            del self._tracked[client, old]
            self._retired.append((client, old))

    def _backfill(self, tracked: Tracked, after: int) -> None:
        while rows := [row for row in self._reader.outcomes(after, 1_000, self._kind) if row.seq <= self.seq]:
            for row in rows:
                if row.client == tracked.client and (known := _lesson(row)) is not None:
                    self._step(tracked, row, known)
            after = rows[-1].seq

    def _step(self, tracked: Tracked, row: OutcomeRow, known: evidence.Evidence) -> None:
        outcome = self._outcome(tracked, row, known)
        if outcome is None:
            return
        learn.step(tracked.state, outcome)
        tracked.unpublished = tracked.unsaved = True

    def _outcome(self, tracked: Tracked, row: OutcomeRow, known: evidence.Evidence) -> learn.Outcome | None:
        """The outcome as this version sees it, None where it must not or cannot learn from it."""
        if row.version == tracked.version:
            outcome = known.outcome(row.slot, row.user, row.reward, row.mode == "live")
        else:
            version = self._version(tracked.version)
            watermark = version.facts.get("watermark") if version else None
            if version is None or watermark is None or row.seq <= int(watermark):
                return None
            request = from_json(row.request)
            features = version.feature_map.features(
                request.get("context", {}), [known.item_ids[row.slot]], request.get("user_id")
            )
            outcome = learn.Outcome.of(
                features,
                0,
                user=row.user,
                reward=row.reward,
                propensity=known.propensity(row.slot),
                member_propensities_M=None,
            )
        if not _fits(outcome, tracked.state.ensemble):
            self.skipped += 1
            logger.warning("outcome %d does not fit version %d and is left out", row.seq, tracked.version)
            return None
        return outcome

    def _publish(self, tracked: Tracked) -> Publication:
        published = tracked.publish(self.number + 1)
        weights = dict(zip(published.names, published.weights_M.tolist(), strict=True))
        return Publication(
            tracked.client, tracked.version, published.epoch, self._clock(), self.seq, tracked.state.count, weights
        )


def _fits(outcome: learn.Outcome, ensemble: Ensemble) -> bool:
    says = (outcome.member_propensities_M, outcome.member_means_M)
    fits = len(outcome.phi_D) == ensemble.dimension
    fits &= all(said_M is None or len(said_M) == len(ensemble.members) for said_M in says)
    return fits and bool(np.isfinite(outcome.phi_D).all()) and 0 < outcome.propensity <= 1 + 1e-9


def _lesson(row: OutcomeRow) -> evidence.Evidence | None:
    """What models may learn an outcome from, None where there is nothing."""
    if row.evidence is None or row.version is None or row.mode not in _TEACH:
        return None
    return evidence.unpack(row.evidence)
