"""The decision engine: a request and the current state in, an answer and its journal record out.

A plain class around `actors.bandits.law.decide`, without HTTP, Ray or a database. State is swapped by
reference, so one thread may publish while others decide.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic_core import from_json

from actors.bandits import law, learn
from actors.bandits.history import History
from actors.bandits.law import Published
from actors.bandits.members import Member, Shared, followed
from actors.bandits.version import Version
from actors.features.features import Features, Floats
from cluster.errors import RequestError
from cluster.journal import DecisionRecord
from serve import catalogue as catalogues
from serve import evidence
from serve.baseline import baseline, check_items, record
from serve.catalogue import Catalogue
from serve.histories import Histories
from serve.ids import seed_of
from serve.messages import DecisionRequest

REASONS = 3


@dataclass(frozen=True)
class Update:
    """What a learner publishes of one client's version: the members that learn, weights, changed histories."""

    client: str
    version: int
    epoch: int
    members: dict[str, Member]
    weights_M: Floats
    alternatives_M: Floats
    histories: dict[str, History]


@dataclass(frozen=True)
class Loaded:
    """A version in memory, and how it decides before anything is learned."""

    number: int
    version: Version
    published: Published
    linear_AD: Floats | None
    catalogue: Catalogue
    names: tuple[str, ...]
    rows: dict[str, int]
    variants: dict[tuple[str, ...], "Loaded"] = field(default_factory=dict)

    def of(self, client: str) -> "Loaded":
        """The version with the members that decide for this client; alike for clients with the same members."""
        ensemble = self.version.ensemble.of(client)
        if ensemble is self.version.ensemble:
            return self
        if ensemble.names not in self.variants:
            published = learn.publish(learn.start(ensemble))
            version = replace(self.version, ensemble=ensemble)
            own = replace(self, version=version, published=published, linear_AD=_linear(published))
            self.variants[ensemble.names] = own
        return self.variants[ensemble.names]


@dataclass(frozen=True)
class Current:
    """What decides for one client now. linear_AD: blended coefficients of the linear members, for reasons."""

    loaded: Loaded
    published: Published
    linear_AD: Floats | None
    catalogue: Catalogue


@dataclass
class Tenant:
    """A client's state; `current` is None until a version is installed."""

    current: Current | None = None
    changes: dict[str, str | None] = field(default_factory=dict)
    revisions: dict[str, int] = field(default_factory=dict)
    dirty: bool = False
    updates: dict[int, Update] = field(default_factory=dict)


def load(number: int, version: Version) -> Loaded:
    """Factor a version's starting state. Its first publication has epoch 1, in every process."""
    published = learn.publish(learn.start(version.ensemble))
    feature_map = version.feature_map
    catalogue = catalogues.of_version(feature_map)
    rows = {item_id: row for row, item_id in enumerate(version.items["item_id"].to_pylist())}
    return Loaded(number, version, published, _linear(published), catalogue, feature_map.names, rows)


class Engine:
    """Decides for all clients.

    Args:
        seed: the settings' seed; a decision's own seed follows from it and the decision's id.
        max_items: most candidates of one request.
        history_bytes: memory for user histories.
    """

    def __init__(self, seed: int = 0, max_items: int = 10_000, history_bytes: int = 256 * 2**20) -> None:
        self._seed = seed
        self._max_items = max_items
        self.histories = Histories(history_bytes)
        self.loaded: Loaded | None = None
        self._tenants: dict[str, Tenant] = {}
        self._lock = threading.Lock()

    @property
    def number(self) -> int | None:
        return self.loaded.number if self.loaded else None

    def install(self, loaded: Loaded) -> None:
        """Make a version the one that decides, for every client."""
        with self._lock:
            self.loaded = loaded
            for client, tenant in self._tenants.items():
                tenant.updates = {n: update for n, update in tenant.updates.items() if n >= loaded.number}
                _settle(tenant, loaded.of(client))
            self.histories.forget(loaded.number)

    def publish(self, update: Update) -> None:
        """Take a learner's publication. One of a version that is not installed yet waits for it."""
        with self._lock:
            tenant = self._tenant(update.client)
            tenant.updates[update.version] = replace(update, histories={})
            self.histories.update(update.client, update.version, update.histories)
            current = tenant.current
            if current is not None and update.version == current.loaded.number:
                tenant.current = _updated(current.loaded, update, current.catalogue)

    def change(self, client: str, item_id: str, body: str | None, revision: int) -> None:
        """Note that an item was put (JSON) or deleted (None); `rebuild` makes it count."""
        with self._lock:
            tenant = self._tenant(client)
            if revision > tenant.revisions.get(item_id, 0):
                tenant.changes.pop(item_id, None)
                tenant.changes[item_id] = body
                tenant.revisions[item_id] = revision
                tenant.dirty = True

    def rebuild(self, client: str) -> None:
        """Bring a client's catalogue up to its last change."""
        with self._lock:
            tenant = self._tenant(client)
            current = tenant.current
            if current is not None and tenant.dirty:
                tenant.current = replace(current, catalogue=_catalogue(tenant, current.loaded))

    @property
    def clients(self) -> int:
        """Clients seen since this process started."""
        return len(self._tenants)

    def item_ids(self, client: str) -> tuple[str, ...]:
        """The client's catalogue, in a fixed order."""
        current = self._current(client)
        if current is not None:
            return current.catalogue.ids
        return tuple(item for item, body in self._tenants[client].changes.items() if body is not None)

    def item(self, client: str, item_id: str) -> dict[str, Any] | None:
        """What is known of an item, None where it is not in the client's catalogue."""
        current = self._current(client)
        changes = self._tenants[client].changes
        if item_id in changes:
            body = changes[item_id]
            return None if body is None else dict(from_json(body))
        row = current.loaded.rows.get(item_id) if current else None
        if current is None or row is None:
            return None
        return catalogues.body_of(current.loaded.version.items.slice(row, 1).to_pylist()[0])

    def decide_many(self, client: str, requests: Sequence[DecisionRequest], ids: Sequence[str]) -> list[DecisionRecord]:
        """`decide` for each; one that is refused refuses the call."""
        pairs = zip(requests, ids, strict=True)
        return [self.decide(client, request, decision_id, i) for i, (request, decision_id) in enumerate(pairs)]

    def decide(self, client: str, request: DecisionRequest, decision_id: str, index: int = 0) -> DecisionRecord:
        """Choose the items of one request.

        Args:
            index: place of the request in its call, named in errors.

        Raises:
            RequestError: unknown items, none left to choose from, or more slots than items.
        """
        current = self._current(client)
        if current is None:
            return baseline(client, request, decision_id, index, self._max_items)
        items = self._eligible(current.catalogue, request, index)
        features = current.catalogue.feature_map.features(request.context, items, request.user_id)
        history = self._history(current.loaded, client, request.user_id or request.session_id)
        seed = seed_of(decision_id, self._seed)
        decision = law.decide(current.published, features, history, seed, request.slots)
        answer = {
            "decision_id": decision_id,
            "version": current.loaded.number,
            "mode": "live",
            "slots": [
                {
                    "item_id": items[slot.index],
                    "score": slot.score,
                    "propensity": slot.propensity,
                    "explored": slot.explored,
                    "models": slot.models,
                    "reasons": reasons(current, features, slot.index),
                }
                for slot in decision.slots
            ],
        }
        chosen = [items[slot.index] for slot in decision.slots]
        packed = evidence.pack(features, decision.slots, chosen, current.catalogue.revision)
        return record(client, request, answer, current.loaded.number, current.published.epoch, packed)

    def _history(self, loaded: Loaded, client: str, user: str | None) -> History | None:
        if user is None:
            return None
        learned = self.histories.get(client, loaded.number, user)
        return learned if learned is not None else loaded.version.ensemble.histories.get(user)

    def _eligible(self, catalogue: Catalogue, request: DecisionRequest, index: int) -> Sequence[str]:
        where = ("body", "requests", index)
        if request.items is not None:
            check_items(request.items, index, self._max_items)
            unknown = catalogues.missing(catalogue.known, request.items)
            if unknown is not None:
                name = request.items[unknown]
                raise RequestError(
                    (*where, "items", unknown), f"unknown item {name!r}; PUT it to /v1/items/{{item_id}} first"
                )
        items: Sequence[str] = request.items or catalogue.ids
        if request.exclude:
            excluded = set(request.exclude)
            items = [item for item in items if item not in excluded]
        if len(items) < request.slots:
            raise RequestError(
                (*where, "slots"), f"{request.slots} slots, but {len(items)} eligible items are left after exclude"
            )
        return items

    def _tenant(self, client: str) -> Tenant:
        """The client's state, made where it is not there. The lock is held."""
        tenant = self._tenants.get(client)
        if tenant is None:
            tenant = Tenant()
            if self.loaded is not None:
                _settle(tenant, self.loaded.of(client))
            self._tenants[client] = tenant
        return tenant

    def _current(self, client: str) -> Current | None:
        tenant = self._tenants.get(client)
        if tenant is None:
            with self._lock:
                tenant = self._tenant(client)
        return tenant.current


def reasons(current: Current, features: Features, index: int) -> list[dict[str, Any]]:
    """The features that moved the linear members' blended mean most, with what each added to the reward.

    Contribution of feature d is (high − low)·φ_d·Σ_m w_m μ_m,d over the linear members; the intercept is left out.
    """
    if current.linear_AD is None:
        return []
    moved_D = features.phi_KD[index] * current.linear_AD[features.arm_K[index]]
    moved_D[0] = 0.0
    top = np.argpartition(-np.abs(moved_D), min(REASONS, len(moved_D) - 1))[:REASONS]
    top = top[np.argsort(-np.abs(moved_D[top]), kind="stable")]
    return [{"feature": current.loaded.names[d], "contribution": float(moved_D[d])} for d in top if moved_D[d]]


def _linear(published: Published) -> Floats | None:
    weights = published.weights_M[published.scored]
    blended = [
        published.weights_M[m] / weights.sum() * member.posterior.mean_AD
        for m, member in enumerate(published.members)
        if isinstance(member, Shared) and member.view == "features"
    ]
    return (published.high - published.low) * np.sum(blended, axis=0) if blended else None


def _settle(tenant: Tenant, loaded: Loaded) -> None:
    """Let a version decide for a client, with what was learned of it and the client's own catalogue."""
    catalogue = _catalogue(tenant, loaded)
    update = tenant.updates.get(loaded.number)
    if update is None:
        tenant.current = Current(loaded, loaded.published, loaded.linear_AD, catalogue)
    else:
        tenant.current = _updated(loaded, update, catalogue)


def _catalogue(tenant: Tenant, loaded: Loaded) -> Catalogue:
    tenant.dirty = False
    if not tenant.changes:
        return loaded.catalogue
    return catalogues.changed(loaded.catalogue, tenant.changes, max(tenant.revisions.values()))


def _updated(loaded: Loaded, update: Update, catalogue: Catalogue) -> Current:
    base = loaded.published
    published = replace(
        base,
        members=followed(tuple(update.members.get(member.name, member) for member in base.members)),
        weights_M=update.weights_M,
        alternatives_M=update.alternatives_M,
        epoch=update.epoch,
    )
    return Current(loaded, published, _linear(published), catalogue)
