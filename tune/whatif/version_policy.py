"""A published version as a policy on a log: frozen as it was published, or learning along the log.

Shapes: N events of a block, K candidates (padded).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from actors.bandits import law, learn
from actors.bandits.published import Published
from actors.bandits.version import Version
from actors.features.catalogue import row_numbers
from actors.features.features import Features, Floats
from tune.whatif.block import Block, greatest

CHUNK = 256
"""Events whose features are held at a time."""
PUBLISH_EVERY = 32
"""Outcomes of a client between two publications of its learner."""


class VersionPolicy:
    """The law of a version for every event, each with a seed of its own.

    Where it learns, every client has a learner, as in serving: the law under the present state is the policy, then
    the logged reward is learned (progressive replay). A client is decided for by the members admitted there.

    features: the version's, over the log's catalogue.

    Args:
        items: the log's catalogue; candidates that the version was not fitted on have the features of new items.
        encoder: fingerprint of the model that made the log's embeddings; None where nobody knows.
        greedy: all probability on the greatest blended mean instead.
        remark: what a reader of its estimate must know.
    """

    def __init__(
        self,
        name: str,
        version: Version,
        items: pa.Table,
        seed: int,
        *,
        greedy: bool,
        learns: bool,
        encoder: str | None = None,
        remark: str = "",
    ):
        self.name, self.learns = name, learns
        self._version, self._seed, self._greedy, self._remark = version, seed, greedy, remark
        self.features = version.over(_described(version, items), encoder)
        self._learners: dict[str | tuple[str, ...], _Learner] = {}

    def probabilities(self, block: Block) -> Floats:
        policy_NK = np.zeros(block.log.mask_NK.shape)
        events = block.listed()
        columns = [events[name].to_pylist() for name in ("client_id", "user_id", "session_id")]
        for start in range(0, len(events), CHUNK):
            batch = self.features.batch(events.slice(start, CHUNK))
            for b in range(len(batch)):
                n = start + b
                client, user, session = (column[n] for column in columns)
                found_K = self._one(block, n, client, user or session, batch.row(b))
                policy_NK[n, : len(found_K)] = found_K
        return policy_NK

    def remark(self) -> str:
        return self._remark

    def _one(self, block: Block, n: int, client: str, user: str | None, features: Features) -> Floats:
        learner = self._learner(client if self.learns or self._version.ensemble.admissions else "")
        history = None if user is None else learner.state.histories.get(user)
        found = law.probabilities(learner.published, features, history, (self._seed << 32) + block.first + n)
        if self.learns:
            self._learn(learner, found, block, n, user, features)
        if not self._greedy:
            return found.pi_K
        return np.asarray(greatest(found.mean_K[None], np.ones((1, len(features)), np.bool_))[0])

    def _learner(self, client: str) -> "_Learner":
        """The client's own where it learns; else one for all clients with the same members."""
        ensemble = self._version.ensemble.of(client)
        key = client if self.learns else ensemble.names
        if key not in self._learners:
            state = learn.start(ensemble)
            self._learners[key] = _Learner(state, learn.publish(state))
        return self._learners[key]

    def _learn(
        self, learner: "_Learner", found: law.Law, block: Block, n: int, user: str | None, features: Features
    ) -> None:
        action = int(block.log.action_N[n])
        outcome = learn.Outcome.of(
            features,
            action,
            user=user,
            reward=block.reward(n),
            propensity=block.log.propensity(n),
            member_propensities_M=found.member_MK[:, action],
            member_means_M=found.member_means_MK[:, action],
        )
        learner.state = learn.step(learner.state, outcome)
        if learner.state.count % PUBLISH_EVERY == 0:
            learner.published = learn.publish(learner.state)


@dataclass
class _Learner:
    state: learn.State
    published: Published


def _described(version: Version, items: pa.Table) -> pa.Table:
    """The log's catalogue; where it has nothing but ids, with what the version knows of its items."""
    if any(items[name].null_count < len(items) for name in items.column_names if name != "item_id"):
        return items
    place = {item_id: row for row, item_id in enumerate(version.items["item_id"].to_pylist())}
    row_I = row_numbers(place, items["item_id"].to_pylist())
    both = pa.concat_tables([version.items, items], promote_options="default")
    return both.take(pa.array(np.where(row_I < 0, len(version.items) + np.arange(len(items)), row_I)))
