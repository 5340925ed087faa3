"""Look-alikes that earn differently: versions whose neighbours speak for the wrong member, or for the right one.

Items come in pairs that look alike; a trait shows on one small axis of an embedding. Two specialists know what items
earn: one those of trait 0, the other those of trait 1, and each is wrong about all others. Where pairs are of both
traits, what an item's look-alike has learned of the members is wrong for the item.

Shapes: I items, N events, K candidates.
"""

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from actors.bandits import law, learn
from actors.bandits.ensemble import Ensemble, Part
from actors.bandits.members import Uniform, custom
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats, Ints
from actors.features.near import nearest
from actors.features.relations import Relations
from cluster.config import FeatureSettings, LawSettings, WeightSettings
from cluster.records import EVENTS, ITEMS, USERS, Dataset
from tests.compose_cases import changed
from tests.features_samples import table

ITEMS_, CANDIDATES, WIDTH = 60, 8, 12
TRAIT = 0.3


class Specialist:
    """Its means are given, and it never learns."""

    def __init__(self, arms: int, dimension: int, items: int) -> None:
        self.mean_I = np.zeros(items)

    def scores(self, phi_KD: Floats, arm_K: Ints, item_K: Ints) -> tuple[Floats, Floats]:
        return self.mean_I[item_K], np.full(len(item_K), 0.05)

    def learn(self, phi_D: Floats, arm: int, item: int, reward: float) -> None:
        pass

    def arrays(self) -> dict[str, Any]:
        return {"mean": self.mean_I}

    def load(self, arrays: dict[str, Any]) -> None:
        self.mean_I = arrays["mean"]


@dataclass(frozen=True)
class Planted:
    """earns_I: what each item earns in truth."""

    dataset: Dataset
    version: Version
    earns_I: Floats

    def expected(self, row: int) -> Floats:
        ids = self.dataset.events["candidates"][row].as_py()
        return self.earns_I[[int(name[1:]) for name in ids]]


def planted(misleads: bool, events: int = 3_000, users: int = 300, seed: int = 0) -> Planted:
    rng = np.random.default_rng(seed)
    item_I = np.arange(ITEMS_)
    trait_I = item_I % 2 if misleads else item_I // 2 % 2
    earns_I = rng.uniform(0.05, 0.75, ITEMS_)
    look = rng.normal(size=(ITEMS_ // 2, WIDTH - 1))[item_I // 2]
    vectors_IE = np.column_stack([look / np.linalg.norm(look, axis=1, keepdims=True), TRAIT * (2 * trait_I - 1)])
    vectors_IE = (vectors_IE / np.linalg.norm(vectors_IE, axis=1, keepdims=True)).astype(np.float32)
    dataset = _log(earns_I, events, users, rng)
    feature_map = FeatureMap.fit(dataset, np.arange(events // 2), FeatureSettings(), seed)
    near_II, similarity_II = nearest(vectors_IE, vectors_IE, 1, range(ITEMS_))
    level_I = np.full(ITEMS_, 3)
    relations = Relations.of([None] * ITEMS_, {}, vectors_IE, near_II, similarity_II, level_I, 0.1)
    feature_map = replace(feature_map, relations=relations)
    shape = feature_map.arms, feature_map.dimension, ITEMS_
    known = [np.where(trait_I == trait, earns_I, 0.8 - earns_I) for trait in (0, 1)]
    members: tuple[Part, ...] = (
        Uniform(),
        *(custom("tests.misled:Specialist", shape, {"mean": known[t]}, f"knows{t}") for t in (0, 1)),
    )
    ensemble = Ensemble(
        members=members,
        values_M=np.full(3, 0.4),
        law=LawSettings(),
        weights=WeightSettings(),
        dimension=feature_map.dimension,
        fingerprint=feature_map.fingerprint,
    )
    return Planted(dataset, Version(feature_map, ensemble, dataset.items, {"events": events}), earns_I)


def _log(earns_I: Floats, events: int, users: int, rng: np.random.Generator) -> Dataset:
    ids = [f"i{i}" for i in range(ITEMS_)]
    among_NK = np.argsort(rng.random((events, ITEMS_)), axis=1)[:, :CANDIDATES]
    item_N = among_NK[:, 0]
    among_NK = rng.permuted(among_NK, axis=1)
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    rows = table(
        EVENTS,
        events,
        event_id=[f"e{n}" for n in range(events)],
        timestamp=[start + dt.timedelta(seconds=n) for n in range(events)],
        client_id=["c"] * events,
        user_id=[f"u{u}" for u in rng.integers(users, size=events)],
        context=[[("hour", str(int(n % 24)))] for n in range(events)],
        candidates=[[ids[i] for i in row] for row in among_NK],
        item_id=[ids[i] for i in item_N],
        propensity=[1 / CANDIDATES] * events,
        reward=(rng.random(events) < earns_I[item_N]).astype(float),
        reward_kind=["reward"] * events,
    )
    items = table(ITEMS, ITEMS_, item_id=ids, title=[f"item {i}" for i in range(ITEMS_)])
    people = table(USERS, users, user_id=[f"u{u}" for u in range(users)], client_id=["c"] * users)
    return Dataset("feedback", rows, items, people, None, {"fingerprint": "misled"})


def served(planted: Planted, events: int, seed: int = 1) -> Dataset:
    """The first events as the version itself would have decided them: its actions, propensities, and their rewards."""
    version, rng = planted.version, np.random.default_rng(seed)
    dataset = replace(planted.dataset, events=planted.dataset.events.slice(0, events))
    batch, state = version.feature_map.batch(dataset.events), learn.start(version.ensemble)
    item_N, propensity_N, reward_N = [], np.empty(events), np.empty(events)
    for n in range(events):
        if n % 32 == 0:
            published = learn.publish(state)
        features = batch.row(n)
        found = law.probabilities(published, features, None, (seed << 40) + n)
        action = int(rng.choice(len(features), p=found.pi_K / found.pi_K.sum()))
        item_N.append(dataset.events["candidates"][n][action].as_py())
        propensity_N[n] = found.pi_K[action]
        reward_N[n] = float(rng.random() < planted.expected(n)[action])
        told = {"member_propensities_M": found.member_MK[:, action], "member_means_M": found.member_means_MK[:, action]}
        outcome = learn.Outcome.of(
            features, action, user=None, reward=reward_N[n], propensity=float(propensity_N[n]), **told
        )
        state = learn.step(state, outcome)
    return changed(dataset, item_id=item_N, propensity=propensity_N, reward=reward_N)
