"""One walk along the log: the proof of policies that learn.

In time order, every member says its law π_m under its current state, the event's doubly robust terms score it, and
then every member learns the logged reward. Differences between members pair by event and sum by user.
Where the log has no propensities the score is the cross-fitted reward model's, corrected by what balancing weights say
of its error (tune.offpolicy.balance), and marked as model-based. Without the correction differences look certain, and
members that learn look good: what they learn and what the model knows are the same rewards.

Shapes: N events, K candidates (padded), M members.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble
from actors.features.feature_map import FeatureMap
from actors.features.features import FeatureBatch, Floats
from cluster.config import RewardKind
from cluster.statistics import ratio_error
from tune import estimators
from tune.gate import Paired, Texts
from tune.log import Log, read
from tune.offpolicy import balance
from tune.split import tasks

BATCH_BYTES = 600 * 2**20
COLUMNS = 4
"""Numbers per candidate beside its features: parameter row, item, key, and what the reward model says."""
PUBLISH_EVERY = 32
"""Outcomes between two publications of the walk's learner."""
MINIMUM = 50
"""Events walked whatever the time budget says."""


@dataclass(frozen=True)
class Trail:
    """Events in time order made ready to walk: features, log, users' keys, and a cross-fitted reward model.

    users_N: key of the history, None for an event of its own. client_N: whose event it is. left_out: events that
    memory did not allow.
    """

    batch: FeatureBatch
    log: Log
    users_N: tuple[str | None, ...]
    client_N: Texts
    q_NK: Floats
    left_out: int

    @classmethod
    def of(
        cls, feature_map: FeatureMap, events: pa.Table, kind: RewardKind, seed: int, budget_bytes: int = BATCH_BYTES
    ) -> "Trail":
        """Raises EvidenceError where the events cannot be scored."""
        widest = max(1, int(read(events, feature_map.item_ids, kind).mask_NK.shape[1]))
        stored = 1 if feature_map.kind == "arms" else widest  # with parameters per item, items share a row of features
        kept = events.slice(0, max(1, budget_bytes // (8 * (stored * feature_map.dimension + COLUMNS * widest))))
        batch, log = feature_map.batch(kept), read(kept, feature_map.item_ids, kind)
        model = estimators.cross_fit(log, batch, feature_map.arms, seed=seed)
        users = (None if name.startswith("e:") else name for name in tasks(kept).to_pylist())
        client_N = np.array(kept["client_id"].to_pylist(), np.str_)
        return cls(batch, log, tuple(users), client_N, model.q_NK, len(events) - len(kept))

    def first(self, events: int) -> "Trail":
        """The trail up to this many events."""
        rows = np.arange(min(events, len(self.log)))
        left_out = self.left_out + len(self.log) - len(rows)
        keys = self.users_N[: len(rows)], self.client_N[rows]
        return Trail(self.batch.take(rows), self.log.take(rows), *keys, self.q_NK[rows], left_out)


@dataclass(frozen=True)
class Walk:
    """log: the events walked. value_NM: per event, the score of each member's own law; blend_N: of the ensemble's.

    client_U: whose user each is. left_out: events that the time budget did not reach.
    """

    log: Log
    client_U: Texts
    names: tuple[str, ...]
    value_NM: Floats
    blend_N: Floats
    left_out: int

    def mean(self) -> dict[str, float]:
        """Value per event of each member, in scaled reward."""
        return dict(zip(self.names, self.value_NM.mean(0).tolist(), strict=True))

    def errors(self) -> dict[str, float]:
        """Standard errors between users of how far each member's `mean` lies from the best; of the best, from the next.

        Members agree on most choices, so these are known far better than the means themselves.
        """
        known = self.mean()
        best, *others = sorted(known, key=lambda name: -known[name])
        pairs = {name: self.paired(name, best) for name in others} | {best: self.paired(best, (others or [best])[0])}
        return {name: ratio_error(paired.sums_U, paired.counts_U)[1] for name, paired in pairs.items()}

    def paired(self, name: str, against: str) -> Paired:
        """Differences of a member (or "ensemble") against another, summed by user."""
        return self._paired(self._scores(name) - self._scores(against))

    def over(self, other: "Walk") -> Paired:
        """Differences of the ensemble against that of another walk of the same events, summed by user."""
        return self._paired(self.blend_N - other.blend_N)

    def _paired(self, difference_N: Floats) -> Paired:
        counts_U = np.bincount(self.log.user_N, minlength=self.log.users).astype(np.float64)
        return Paired(estimators.by_user(self.log, difference_N), counts_U, model_based=self.log.propensity_N is None)

    def left_in_words(self, trail: Trail) -> str:
        """What of the trail, and of the events that it was made of, was not reached; empty where all was."""
        left = self.left_out + trail.left_out
        return f"{left:,} events not reached" if left else ""

    def _scores(self, name: str) -> Floats:
        return self.blend_N if name == "ensemble" else self.value_NM[:, self.names.index(name)]


def walk(
    ensemble: Ensemble,
    trail: Trail,
    seed: int,
    left_s: Callable[[], float] = lambda: float("inf"),
    progress: Callable[[int, int], None] = lambda done, total: None,
    state: learn.State | None = None,
) -> Walk:
    """Walk a trail until its end, or until `left_s` seconds are spent.

    Args:
        state: what was learned before, which goes on learning; None starts anew.
    """
    laws = _laws(state or learn.start(ensemble), trail, seed, left_s, progress)
    done = len(laws)
    log, q_NK = trail.log.take(np.arange(done)), trail.q_NK[:done]
    method: estimators.Method = "dm" if log.propensity_N is None else "dr"
    pi_NMK = np.stack([_padded(each, log.mask_NK.shape[1]) for each in laws])
    value_NM = np.stack([estimators.terms(method, log, pi_NK, q_NK).above_N for pi_NK in pi_NMK.swapaxes(0, 1)], axis=1)
    if method == "dm":
        value_NM += balance.corrections(log, trail.batch.take(np.arange(done)), q_NK, pi_NMK, seed)
    client_U = trail.client_N[np.unique(log.user_N, return_index=True)[1]]
    return Walk(log, client_U, ensemble.names, value_NM[:, :-1], value_NM[:, -1], len(trail.log) - done)


def _padded(found: law.Law, width: int) -> Floats:
    """The members' laws and last the ensemble's, (M + 1, K), zero on padding."""
    rows = np.vstack([found.member_MK, found.pi_K])
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])))


def _laws(
    state: learn.State,
    trail: Trail,
    seed: int,
    left_s: Callable[[], float],
    progress: Callable[[int, int], None],
) -> list[law.Law]:
    log, ensemble = trail.log, state.ensemble
    published = learn.publish(state)
    scale, laws = ensemble.high - ensemble.low, []
    for n in range(len(log)):
        if n >= MINIMUM and left_s() <= 0:
            break
        if n and n % PUBLISH_EVERY == 0:
            published = learn.publish(state)
            progress(n, len(log))
        features, user, action = trail.batch.row(n), trail.users_N[n], int(log.action_N[n])
        history = None if user is None else state.histories.get(user)
        found = law.probabilities(published, features, history, (seed << 32) + n)
        laws.append(found)
        outcome = learn.Outcome.of(
            features,
            action,
            user=user,
            reward=ensemble.low + scale * float(log.reward_N[n]),
            propensity=log.propensity(n),
            member_propensities_M=found.member_MK[:, action],
            member_means_M=found.member_means_MK[:, action],
        )
        state = learn.step(state, outcome)
    return laws
