"""Decisions as PPO sees them: a version walks along events, and what it knew at each is written down.

Shapes: B decisions, K items (padded), M members, N inputs of the residual, J neighbours, Q reduced numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from actors.bandits import learn
from actors.bandits.blending import tilts
from actors.bandits.ensemble import Ensemble
from actors.bandits.noise import Noise
from actors.bandits.particles import Particles, particles
from actors.bandits.published import Published
from actors.bandits.residual import observe
from actors.features.feature_map import FeatureMap
from actors.features.features import Features, Floats, Ints
from cluster.config import RewardKind
from cluster.errors import EvidenceError
from tune.blend_env import Contexts
from tune.log import Bools, read
from tune.split import tasks
from tune.walk import PUBLISH_EVERY

CHUNK = 256
LEAST_ODDS = 1e-9
Expected = Callable[[int], Floats]
"""Of an event's number: what each of its items would earn, scaled to [0, 1] (K,)."""


@dataclass(frozen=True)
class Situations:
    """contexts, and what the log did: action_B, reward_B (scaled), propensity_B (None where it does not say)."""

    contexts: Contexts
    action_B: Ints
    reward_B: Floats
    propensity_B: Floats | None
    left_out: int


def situations(
    ensemble: Ensemble,
    feature_map: FeatureMap,
    events: pa.Table,
    kind: RewardKind,
    seed: int,
    widest: int,
    taken: Bools | None = None,
    expected: Expected | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    state: learn.State | None = None,
) -> Situations:
    """Those of the events, in order of time, that have at most `widest` items, and are `taken` where that is given.

    Every member learns the logged reward after each, as when the version serves, so that the network meets weights and
    values that move.

    Args:
        state: what was learned before, which goes on learning; None starts anew.

    Raises:
        EvidenceError: no event can be used, or the version does not know how its items are related.
    """
    if feature_map.relations is None:
        raise EvidenceError("the version knows nothing of its items' content; give items providers or embeddings")
    state, log = state or learn.start(ensemble), read(events, feature_map.item_ids, kind)
    users = [None if name.startswith("e:") else name for name in tasks(events).to_pylist()]
    published, found, kept = learn.publish(state), [], []
    for start in range(0, len(events), CHUNK):
        batch = feature_map.batch(events.slice(start, CHUNK))
        for n in range(start, start + len(batch)):
            if n and n % PUBLISH_EVERY == 0:
                published = learn.publish(state)
            features, user, action = batch.row(n - start), users[n], int(log.action_N[n])
            history = None if user is None else state.histories.get(user)
            noise = Noise((seed << 32) + n, published.law.particles)
            drawn = particles(published, [features], [history], [noise], [len(features)])[0]
            if len(features) <= widest and (taken is None or taken[n]):
                found.append(_seen(published, features, drawn, None if expected is None else expected(n)))
                kept.append(n)
            outcome = learn.Outcome.of(
                features,
                action,
                user=user,
                reward=ensemble.low + (ensemble.high - ensemble.low) * float(log.reward_N[n]),
                propensity=log.propensity(n),
                member_propensities_M=drawn.propensities(action),
                member_means_M=drawn.means(action),
            )
            state = learn.step(state, outcome)
        progress(min(start + CHUNK, len(events)), len(events))
    if not kept:
        raise EvidenceError(f"none of {len(events):,} events has at most {widest} items; raise ppo.items")
    rows = np.array(kept)
    propensity_B = None if log.propensity_N is None else log.propensity_N[rows]
    left_out = (len(events) if taken is None else int(taken.sum())) - len(rows)
    return Situations(_padded(found), log.action_N[rows], log.reward_N[rows], propensity_B, left_out)


def _seen(published: Published, features: Features, drawn: Particles, reward_K: Floats | None) -> Contexts:
    """One decision."""
    kin, members = features.kin, len(published.members)
    assert kin is not None
    assert published.values_M is not None
    assert published.errors_M is not None
    tilt_KM = tilts(published, [kin])[0]
    share_KM = (1 + tilt_KM) / members
    state = published.weights_M, published.values_M, published.errors_M
    scale = published.weights.neighbour_scale
    logits_KM = np.log(np.maximum(published.odds_M, LEAST_ODDS)) + scale * np.log1p(tilt_KM)
    law, alternatives_M = published.law, published.alternatives_M
    member_KM = np.stack([drawn.propensities(k) for k in range(len(features))])
    floor_K = (1 - law.epsilon) * law.delta * member_KM @ alternatives_M + law.epsilon / len(features)
    means = np.stack([drawn.means(k) for k in range(len(features))])
    rewards = np.zeros(len(features)) if reward_K is None else reward_K
    return Contexts(
        observed_BKN=observe(kin.reduced_KQ, kin.similarity_KJ, share_KM, *state)[None],
        logits_BKM=logits_KM[None],
        mean_BKM=means[None],
        spread_BKM=drawn.spread_MK.T[None],
        floor_BK=floor_K[None],
        mask_BK=np.ones((1, len(features)), np.bool_),
        reward_BK=rewards[None],
    )


def _padded(found: list[Contexts]) -> Contexts:
    widest = max(one.mask_BK.shape[1] for one in found)

    def joined(name: str) -> Any:
        arrays = [getattr(one, name) for one in found]
        tail = [(0, 0)] * (arrays[0].ndim - 2)
        return np.concatenate([np.pad(a, ((0, 0), (0, widest - a.shape[1]), *tail)) for a in arrays])

    return Contexts(**{field.name: joined(field.name) for field in fields(Contexts)})
