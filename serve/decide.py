"""The decision engine: a request and the current state in, an answer and its journal record out.

A plain class around `actors.bandits.law.decide`, without HTTP, Ray or a database. State is swapped by
reference, so one thread may publish while others decide.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pydantic_core import from_json

from actors.bandits import law
from actors.bandits.history import History
from actors.features.features import Features
from cluster.config import ClientMode
from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord
from serve.decisions import baseline, part
from serve.decisions import catalogue as catalogues
from serve.decisions.asked import Asked, Reason
from serve.decisions.candidates import candidates
from serve.decisions.case import Case
from serve.decisions.choice import Choice, Draft
from serve.decisions.current import Current, Loaded, Update, updated
from serve.decisions.eligible import is_field
from serve.decisions.histories import Histories
from serve.decisions.reading import Generator
from serve.decisions.shelf import Shelf
from serve.decisions.versions import Versions
from serve.ids import seed_of
from serve.messages import DecisionRequest
from serve.observed.logs import Seldom

logger = logging.getLogger(__name__)

_AT_ONCE = 16
"""Requests whose features are in memory together."""


@dataclass(frozen=True)
class Load:
    """What deciding takes: `who` are the client, the version and the most slots of a request in powers of two, `items`
    the mean per request."""

    who: tuple[str, int, int]
    items: int

    @property
    def kind(self) -> tuple[tuple[str, int, int], int]:
        """What is alike for `pace.Pace`."""
        return self.who, self.items.bit_length()


@dataclass
class Tenant:
    """A client's state; `current` is None until a version is installed.

    changes: of the catalogue, each item's last one. fresh: those that `current` does not know yet.
    """

    current: Current | None = None
    changes: dict[str, str | None] = field(default_factory=dict)
    fresh: dict[str, str | None] = field(default_factory=dict)
    revision: int = 0
    revisions: dict[str, int] = field(default_factory=dict)
    updates: dict[int, Update] = field(default_factory=dict)


class Engine:
    """Decides for all clients.

    Args:
        seed: the settings' seed; a decision's own seed follows from it and the decision's id.
        max_items: most candidates of one request.
        history_bytes: memory for user histories.
        versions_kept: versions in memory.
    """

    def __init__(
        self, seed: int = 0, max_items: int = 10_000, history_bytes: int = 256 * 2**20, versions_kept: int = 4
    ) -> None:
        self._seed = seed
        self._max_items = max_items
        self.histories = Histories(history_bytes)
        self.versions = Versions(versions_kept)
        self._tenants: dict[str, Tenant] = {}
        self._lock = threading.Lock()
        self._building = threading.Lock()  # one catalogue at a time is made, and decisions never wait for it
        self._seldom = Seldom(1, 60.0)

    @property
    def number(self) -> int | None:
        """The newest version."""
        return self.versions.newest.number if self.versions.newest else None

    def install(self, loaded: Loaded) -> None:
        """Make a version the newest, which decides for every client that is not held at another."""
        with self._building:
            self.versions.install(loaded)
            self._follow()

    def keep(self, loaded: Loaded) -> list[int]:
        """Take in a version for the clients that are held at it; returns those that left memory for it."""
        with self._building:
            left = self.versions.keep(loaded)
            self._follow()
            return left

    def hold(self, held: Mapping[str, int]) -> None:
        """Clients and the versions at which they are held; all others follow the newest."""
        if held != self.versions.held:
            with self._building:
                self.versions.hold(held)
                self._follow()

    def _follow(self) -> None:
        """Let each client be decided for by its version. What no version in memory needs is forgotten."""
        newest, held = self.number or 0, self.versions.held
        with self._lock:
            tenants = list(self._tenants.items())
        for client, tenant in tenants:
            loaded, current = self.versions.of(client), tenant.current
            if loaded is not None and (current is None or loaded.number != current.loaded.number):
                self._settle(tenant, loaded)
            with self._lock:
                kept = {n: one for n, one in tenant.updates.items() if n >= newest or n == held.get(client)}
                tenant.updates = kept
        self.histories.forget(newest, set(held.values()))

    def _settle(self, tenant: Tenant, loaded: Loaded) -> None:
        """Let a version decide for a client, with what was learned of it and the client's own catalogue."""
        with self._lock:
            changes, revision, tenant.fresh = dict(tenant.changes), tenant.revision, {}
        catalogue = catalogues.changed(loaded.catalogue, changes, revision) if changes else loaded.catalogue
        with self._lock:
            tenant.current = updated(loaded, tenant.updates.get(loaded.number), catalogue)

    def publish(self, update: Update) -> None:
        """Take a learner's publication. One of a version that is not installed yet waits for it."""
        with self._lock:
            tenant = self._tenant(update.client)
            tenant.updates[update.version] = replace(update, histories={})
            current = tenant.current
            if current is not None and update.version == current.loaded.number:
                current = updated(current.loaded, update, current.catalogue)
            # one right after the other: a decision between them does without the histories that changed
            self.histories.update(update.client, update.version, update.histories, update.epoch)
            tenant.current = current

    def change(self, client: str, item_id: str, body: str | None, revision: int) -> None:
        """Note that an item was put (JSON) or deleted (None); `rebuild` makes it count."""
        with self._lock:
            tenant = self._tenant(client)
            if revision > tenant.revisions.get(item_id, 0):
                for known in (tenant.changes, tenant.fresh):
                    known.pop(item_id, None)
                    known[item_id] = body
                tenant.revisions[item_id] = revision
                tenant.revision = max(tenant.revision, revision)

    def rebuild(self, client: str) -> None:
        """Bring a client's catalogue up to its last change."""
        with self._building:
            with self._lock:
                tenant = self._tenant(client)
                current, fresh, revision = tenant.current, tenant.fresh, tenant.revision
                if current is None or not fresh:
                    return
                tenant.fresh = {}
            catalogue = catalogues.changed(current.catalogue, fresh, revision)
            with self._lock:
                tenant.current = replace(tenant.current or current, catalogue=catalogue)

    @property
    def clients(self) -> int:
        """Clients seen since this process started."""
        return len(self._tenants)

    def revision(self, client: str) -> int:
        """The last catalogue change that decisions for this client know."""
        current = self.current(client)
        return self._tenants[client].revision if current is None else current.catalogue.revision

    def item_ids(self, client: str) -> tuple[str, ...]:
        """The client's catalogue, in a fixed order."""
        current = self.current(client)
        if current is not None:
            return current.catalogue.ids
        return tuple(item for item, body in self._tenants[client].changes.items() if body is not None)

    def item(self, client: str, item_id: str) -> dict[str, Any] | None:
        """What is known of an item, None where it is not in the client's catalogue."""
        current = self.current(client)
        changes = self._tenants[client].changes
        if item_id in changes:
            body = changes[item_id]
            return None if body is None else dict(from_json(body))
        row = current.loaded.rows.get(item_id) if current else None
        if current is None or row is None:
            return None
        return catalogues.body_of(current.loaded.version.items.slice(row, 1).to_pylist()[0])

    def load(self, client: str, requests: Sequence[DecisionRequest]) -> Load | None:
        """What deciding these requests takes; None where no version decides."""
        current = self.current(client)
        if current is None:
            return None
        whole = len(current.catalogue)
        items = sum(whole if request.items is None else len(request.items) for request in requests)
        slots = max(request.slots for request in requests).bit_length()
        return Load((client, current.loaded.number, slots), items // len(requests))

    def unread(self, client: str, requests: Sequence[DecisionRequest]) -> Callable[[], None] | None:
        """What reads the columns that conditions need first, where that takes a while; None where they are there."""
        current = self.current(client)
        fields = {rule.field for request in requests for rule in request.where if is_field(rule.field)}
        if current is None or not fields:
            return None
        columns = current.catalogue.columns
        return partial(columns.read, names) if (names := columns.unread(fields)) else None

    def strangers(
        self, client: str, requests: Sequence[DecisionRequest]
    ) -> tuple[Generator, dict[int, DecisionRequest]] | None:
        """The generator whose language model reads the contexts of users without a history, and their requests by
        place; None where none reads or nobody is unknown. Without a user or a session nobody is.
        """
        current = self.current(client)
        if current is None or (generator := current.loaded.reader) is None:
            return None
        users = [request.user_id or request.session_id for request in requests]
        unknown = {
            i: requests[i] for i, user in enumerate(users) if user and self.known(current, client, user)[0] is None
        }
        return (generator, unknown) if unknown else None

    def decide_many(self, asked: Sequence[Asked]) -> list[DecisionRecord]:
        """`decide_all`, where one that is refused refuses the call.

        Raises:
            RequestError: the first of them.
        """
        return [
            record
            for first in range(0, len(asked), _AT_ONCE)
            for record in _granted(self.decide_all(asked[first : first + _AT_ONCE]))
        ]

    def decide(
        self,
        client: str,
        request: DecisionRequest,
        decision_id: str,
        index: int = 0,
        mode: ClientMode = "live",
        reason: Reason | None = None,
        seen: Collection[str] = (),
        scored: str | None = None,
        forgotten: bool = False,
    ) -> DecisionRecord:
        """`decide_all` for one request; the arguments are those of `Asked`.

        Raises:
            RequestError: as `candidates`.
        """
        asked = Asked(client, request, decision_id, index, mode, reason, seen, scored, forgotten)
        return self.decide_many([asked])[0]

    def decide_all(self, asked: Sequence[Asked]) -> list[DecisionRecord | RequestError]:
        """Choose the items of each request as if it were alone, in less time; who is refused gets the error.

        Models choose beside a baseline in the modes shadow and apprentice.
        """
        cases = [self._case(one) for one in asked]
        asking: dict[int, list[tuple[int, Case]]] = {}
        made: dict[int, DecisionRecord] = {}
        for place, case in enumerate(cases):
            if isinstance(case, RequestError):
                continue
            if case.current is not None and case.asks:
                asking.setdefault(id(case.current.published), []).append((place, case))
            else:
                made[place] = case.record(None)
        for group in asking.values():
            records = self._decided([case for _, case in group])
            made |= {place: record for (place, _), record in zip(group, records, strict=True)}
        return [case if isinstance(case, RequestError) else made[place] for place, case in enumerate(cases)]

    def _case(self, asked: Asked) -> Case | RequestError:
        current, tenant = self.current(asked.client), self._tenants[asked.client]
        catalogue = None if current is None else current.catalogue
        revision = tenant.revision if catalogue is None else catalogue.revision
        try:
            return Case(asked, current, candidates(catalogue, tenant.changes, asked, self._max_items), revision)
        except RequestError as error:
            return error

    def _decided(self, cases: Sequence[Case]) -> list[DecisionRecord]:
        """Those that models choose for, all by one publication."""
        try:
            return [case.record(choice) for case, choice in zip(cases, self._choices(cases), strict=True)]
        except Exception as error:  # a member, also the user's own, or a feature map: nobody waits in vain for it
            if len(cases) > 1:
                return [self._decided([case])[0] for case in cases]
            self._tell(cases[0], error)
            return [cases[0].record(None)]

    def _choices(self, cases: Sequence[Case]) -> list[Choice]:
        drafts = self._drafts(cases)
        decisions = law.decide_many(drafts[0].current.published, [draft.question for draft in drafts])
        return [draft.choice(decision) for draft, decision in zip(drafts, decisions, strict=True)]

    def _tell(self, case: Case, error: Exception) -> None:
        """Log what broke, once a minute for each version and kind of error."""
        asked, number = case.asked, case.current.loaded.number if case.current else None
        if self._seldom((number, type(error))) is not None:
            fields = {"decision_id": asked.decision_id, "client": asked.client, "version": number}
            logger.error("broken: %s", error, exc_info=error, extra={"fields": fields})

    def _drafts(self, cases: Sequence[Case]) -> list[Draft]:
        """In the order of the cases; features of those over the same items are made together."""
        alike: dict[int, list[int]] = {}
        for place, case in enumerate(cases):
            alike.setdefault(id(case.items), []).append(place)
        made: dict[int, Draft] = {}
        for places in alike.values():
            found = _features([cases[place] for place in places])
            made |= {place: self._draft(cases[place], one) for place, one in zip(places, found, strict=True)}
        return [made[place] for place in range(len(cases))]

    def _draft(self, case: Case, features: Features | None) -> Draft:
        """Without features a part of a large catalogue is retrieved."""
        asked, current, items = case.asked, case.current, case.items
        assert current is not None
        request, seed = asked.request, seed_of(asked.decision_id, self._seed)
        history, forgotten = self._history(current, asked)
        code_H = asked.code.code_H if asked.code and asked.code.generator == current.loaded.reader else None
        if features is None:
            assert isinstance(items, Shelf)
            own = () if asked.mode == "live" else baseline.own_choice(request, items)
            question, names, scored = part.question(current, request, items, own, history, seed, asked.scored, code_H)
            return Draft(current, names, question, scored, forgotten)
        features = features if code_H is None else replace(features, code_H=code_H)
        return Draft(current, items, law.Question(features, history, seed, request.slots), forgotten=forgotten)

    def _history(self, current: Current, asked: Asked) -> tuple[History | None, bool]:
        """The user's history as far as it is in memory, and whether there may be more of it."""
        if asked.user is None:
            return None, False
        if asked.forgotten:
            return current.loaded.version.ensemble.histories.get(asked.user), True
        return self.known(current, asked.client, asked.user)

    def known(self, current: Current, client: str, user: str) -> tuple[History | None, bool]:
        """A user's history as far as it is in memory, and whether there may be more of it."""
        loaded, epoch = current.loaded, current.published.epoch
        learned, forgotten = self.histories.get(client, loaded.number, user, epoch)
        if learned is not None:
            return learned, False
        return loaded.version.ensemble.histories.get(user), forgotten

    def _tenant(self, client: str) -> Tenant:
        """The client's state, made where it is not there. The lock is held."""
        tenant = self._tenants.get(client)
        if tenant is None:
            loaded = self.versions.of(client)
            tenant = Tenant(None if loaded is None else updated(loaded, None, loaded.catalogue))
            self._tenants[client] = tenant
        return tenant

    def current(self, client: str) -> Current | None:
        """What decides for this client now; None before any version."""
        tenant = self._tenants.get(client)
        if tenant is None:
            with self._lock:
                tenant = self._tenant(client)
        if self.versions.held:
            self.versions.use(client)
        return tenant.current


def _features(cases: Sequence[Case]) -> Sequence[Features | None]:
    """Of requests over the same items; None where they are a large catalogue's."""
    current, items = cases[0].current, cases[0].items
    if current is None or isinstance(items, Shelf):
        return [None] * len(cases)
    rows_K = current.catalogue.rows if items is current.catalogue.ids else None
    situations = [(case.asked.request.context, case.asked.request.user_id) for case in cases]
    return current.catalogue.feature_map.features_many(situations, items, rows_K)


def _granted(found: Sequence[DecisionRecord | RequestError]) -> list[DecisionRecord]:
    """Raises the first refusal."""
    for one in found:
        if isinstance(one, RequestError):
            raise one
    return [one for one in found if not isinstance(one, RequestError)]
