"""HTTP: handlers, authentication, limits. No Ray; `serve.app` puts it into a deployment.

Handlers read the raw body and let pydantic parse it, and answer bytes that are made once. Nothing on the event
loop waits for a database: keys are in memory, the journal answers by a future, reads go to a thread.
"""

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from fastapi import Query, Request
from pydantic_core import from_json, to_json
from starlette.responses import Response

from cluster.config import ClientMode, ServeSettings
from cluster.errors import RequestError, StateError
from cluster.journal.journal import DecisionRecord, ItemRecord, Journal, Repeat
from cluster.keys import Principal
from serve.decide import Engine
from serve.decisions.deciding import Call, Deciding
from serve.durable import Durable
from serve.http import bulk, limits
from serve.http.access import Access
from serve.http.edge import Edge
from serve.http.limits import Rates
from serve.http.problems import Refusals
from serve.http.rewards import Rewarding, answered
from serve.ids import DecisionIds
from serve.messages import (
    ID_PATTERN,
    DecisionRequest,
    Decisions,
    ItemBody,
    PredictionAnswer,
    Predictions,
    Rewards,
    Versions,
)
from serve.observed.metrics import Metrics
from serve.observed.watch import Watch
from serve.predicting.predicting import Predicting

M = TypeVar("M", Decisions, Predictions, Rewards)
B = TypeVar("B", Decisions, Predictions, Rewards, ItemBody)

_LARGE = 64 * 2**10
"""Bytes of a body that is parsed in a thread."""


class Link(Protocol):
    """The learner and the journal's catalogue changes, as a replica follows them."""

    following: bool

    async def catch_up(self, client: str, revision: int) -> bool: ...

    async def publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]: ...


class Gateway:
    """The HTTP side of one replica.

    Args:
        engine, journal, durable, ids, access, metrics: this replica's own.
        link: the learner, and catalogue changes.
        versions: lists the registry; it may block.
        tenant: tells of a client, as `messages.Client`, and nothing of one that there is not; it may block.
        rewarding: takes rewards.
        deciding: decides.
        predicting: predicts.
        settings: limits.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        durable: Durable,
        ids: DecisionIds,
        access: Access,
        metrics: Metrics,
        link: Link,
        versions: Callable[[], Versions],
        tenant: Callable[[str], dict[str, Any] | None],
        rewarding: Rewarding,
        deciding: Deciding,
        predicting: Predicting,
        settings: ServeSettings,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._ids = ids
        self._access = access
        self._link = link
        self._versions = versions
        self._tenant = tenant
        self._rewarding = rewarding
        self._settings = settings
        self._deciding = deciding
        self._predicting = predicting
        self._rates = Rates(settings)
        self._durable = durable
        self._metrics = metrics
        self.watch = Watch(metrics, settings)
        self.edge = Edge(metrics)
        self._rebuilding = asyncio.Lock()
        self.in_work = 0
        metrics.level("medley_contexts_in_work", lambda: self.in_work)
        metrics.level("medley_version", lambda: engine.number or 0)
        metrics.level("medley_learner_following", lambda: link.following)
        metrics.level("medley_journal_failed", lambda: journal.failed is not None)

    async def decisions(self, request: Request) -> Response:
        """Choose items for one or many requests; the answer leaves when it is durable."""
        start = time.perf_counter()
        principal, client = await self._client(request)
        message = await self._read(request, principal, Decisions, "requests")
        self._rates.take(principal, len(message.requests), paid=1)
        answers = await self._decided(client, principal.mode, message.requests, start)
        if _is_arrow(request):
            return Response(await asyncio.to_thread(bulk.decisions, answers), media_type=bulk.MEDIA_TYPE)
        return Response(f'{{"decisions":[{",".join(answers)}]}}', media_type="application/json")

    async def predictions(self, request: Request) -> Response:
        """Say how an item of the catalogue, or one that is sent along, would be responded to; nothing is kept."""
        principal, client = await self._client(request)
        message = await self._read(request, principal, Predictions, "requests")
        self._rates.take(principal, len(message.requests), paid=1)
        made = await self._predicting(client, message.requests)
        return Response(PredictionAnswer(predictions=made).model_dump_json(), media_type="application/json")

    async def rewards(self, request: Request) -> Response:
        """Take rewards; each counts once, whenever and however often it comes."""
        principal, client = await self._client(request)
        message = await self._read(request, principal, Rewards, "rewards")
        self._rates.take(principal, len(message.rewards), paid=1)
        outcomes = await self._rewarding.take(client, message.rewards)
        if all(outcome.http for outcome in outcomes):
            faults = [(("body", "rewards", i, o.field), "value_error", o.reason or "") for i, o in enumerate(outcomes)]
            raise Refusals(min(outcome.http or 422 for outcome in outcomes), faults)
        if _is_arrow(request):
            return Response(bulk.outcomes(outcomes), media_type=bulk.MEDIA_TYPE)
        return Response(answered(outcomes).model_dump_json(), media_type="application/json")

    async def put_item(self, request: Request, item_id: str) -> Response:
        """Add an item to the client's catalogue, or replace it."""
        principal, client = await self._client(request)
        body = await self._parsed(await self._body(request, principal) or b"{}", ItemBody)
        await self._change(client, item_id, body.model_dump_json())
        return _json(body.model_dump(mode="json") | {"item_id": item_id})

    async def delete_item(self, request: Request, item_id: str) -> Response:
        """Take an item out of the client's catalogue."""
        principal, client = await self._client(request)
        self._rates.take(principal, 1)
        if self._engine.item(client, item_id) is None:
            raise _no_item(item_id)
        await self._change(client, item_id, None)
        return Response(status_code=204)

    async def get_item(self, request: Request, item_id: str) -> Response:
        """One item of the client's catalogue."""
        principal, client = await self._client(request)
        self._rates.take(principal, 1)
        found = self._engine.item(client, item_id)
        if found is None:
            raise _no_item(item_id)
        return _json(_item(item_id, found))

    async def items(
        self, request: Request, after: int = Query(0, ge=0), limit: int = Query(100, ge=1, le=1_000)
    ) -> Response:
        """The client's catalogue by pages: `after` is the `next` of the page before."""
        principal, client = await self._client(request)
        self._rates.take(principal, 1)
        ids = self._engine.item_ids(client)
        page = [_item(item_id, self._engine.item(client, item_id) or {}) for item_id in ids[after : after + limit]]
        following = str(after + limit) if after + limit < len(ids) else None
        return _json({"items": page, "next": following})

    async def versions(self, request: Request) -> Response:
        """Published versions, the newest last. Operator keys."""
        await self._operator(request)
        return _json((await asyncio.to_thread(self._versions)).model_dump(mode="json"))

    async def client(self, request: Request, client_id: str) -> Response:
        """Who answers a client's calls, and how far the engine agrees with its baseline. Operator keys."""
        await self._operator(request)
        found = await asyncio.to_thread(self._tenant, client_id)
        if found is None:
            raise RequestError(("path", "client_id"), f"no client {client_id!r}; `medley client list` shows them", 404)
        return _json(found)

    async def weights(self, request: Request, client_id: str | None = None, version: int | None = None) -> Response:
        """Weights of the models over time, publication by publication. Operator keys."""
        await self._operator(request)
        rows = await self._link.publications(client_id, version)
        names = {"client": "client_id"}
        return _json({"publications": [{names.get(k, k): v for k, v in row.items() if k != "seq"} for row in rows]})

    async def health(self) -> Response:
        """Whether decisions can be made durable, and by which version. No key."""
        if self.edge.draining:
            raise StateError("draining: this replica is about to end; ask another one")
        failed = self._journal.failed
        if failed is not None:
            raise failed
        number = self._engine.number
        return _json(
            {
                "status": "ready" if number is not None else "baseline",
                "version": number,
                "clients": self._engine.clients,
                "learner": "following" if self._link.following else "away",
            }
        )

    async def _decided(
        self, client: str, mode: ClientMode, requests: Sequence[DecisionRequest], start: float
    ) -> list[str]:
        """Decide and make durable; each answer is the JSON of a `messages.Decision`."""
        self.in_work += len(requests)
        try:
            ids = [self._ids.new(client) for _ in requests]
            began = time.perf_counter()
            records, known = await self._deciding(Call(client, mode, requests, ids, start))
            engine_s = time.perf_counter() - began
            repeats = await self._durable(self._journal.deciding(records)) if records else {}
        finally:
            self.in_work -= len(requests)
        self._metrics.observe("medley_decision_seconds", engine_s / len(requests))
        self.watch.decided(records, repeats, time.perf_counter() - start)
        decided = iter([repeats.get(i, record) for i, record in enumerate(records)])
        return [_answer(i, known.get(i) or next(decided)) for i in range(len(requests))]

    async def _change(self, client: str, item_id: str, body: str | None) -> None:
        _check_item_id(item_id)
        revision = await self._durable(self._journal.changing([ItemRecord(client, item_id, body)]))
        async with self._rebuilding:  # changes that come meanwhile, here or in another replica, share the next rebuild
            await self._link.catch_up(client, revision)

    async def _client(self, request: Request) -> tuple[Principal, str]:
        """Who calls, and the client that it is."""
        principal = await self._principal(request)
        if principal.client_id is None:
            raise RequestError(("header", "authorization"), "this call needs a client key, not an operator's", 403)
        return principal, principal.client_id

    async def _operator(self, request: Request) -> None:
        principal = await self._principal(request)
        if principal.client_id is not None:
            raise RequestError(("header", "authorization"), "this call needs an operator's key", 403)
        self._rates.take(principal, 1)

    async def _principal(self, request: Request) -> Principal:
        principal = await self._access.principal(request.headers.get("authorization"))
        if principal is None:
            raise _unauthorized()
        request.scope["principal"] = principal
        _check_query(request)
        return principal

    async def _body(self, request: Request, principal: Principal) -> bytes:
        """The body of a call, which costs a token: to read it is work, whatever is in it."""
        self._rates.take(principal, 1)
        return await limits.body(request, principal.limits.max_body_bytes or self._settings.max_body_bytes)

    async def _read(self, request: Request, principal: Principal, message: type[M], name: str) -> M:
        """The message of a call, as JSON or as an Arrow stream of its one field; no more of it than a call may have."""
        body = await self._body(request, principal)
        if _is_arrow(request):
            if message is Predictions:
                raise RequestError(("header", "content-type"), "predictions are asked for in JSON", 415)
            return await asyncio.to_thread(bulk.read, body, message, name, self._settings.max_batch)
        read = await self._parsed(body, message, partial(self._counted, body, name))
        self._check(name, len(getattr(read, name)))
        return read

    async def _parsed(self, body: bytes, message: type[B], first: Callable[[], None] = lambda: None) -> B:
        """A large body is read in a thread, and `first` looks at it."""

        def parse() -> B:
            first()
            return message.model_validate_json(body)

        return message.model_validate_json(body) if len(body) <= _LARGE else await asyncio.to_thread(parse)

    def _counted(self, body: bytes, name: str) -> None:
        """Refuse a body with too many requests before they are validated: that takes twenty times as long as to parse
        it, and keeps the interpreter's lock, in a thread too."""
        with contextlib.suppress(ValueError):  # which validation tells
            found = from_json(body)
            if isinstance(found, dict) and isinstance(found.get(name), list):
                self._check(name, len(found[name]))

    def _check(self, name: str, number: int) -> None:
        """Refuse a call with too many requests in it."""
        most = self._settings.max_batch
        if number > most:
            raise RequestError(("body", name), f"{number} in one call; at most {most} (serve.max_batch)", 413)


def _answer(index: int, found: DecisionRecord | Repeat) -> str:
    if isinstance(found, Repeat) and not found.same:
        where = ("body", "requests", index, "request_id")
        raise RequestError(where, "this request_id was used for another request; take a new one")
    return found.answer


def _item(item_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"item_id": item_id, **body}


def _check_item_id(item_id: str) -> None:
    if not 1 <= len(item_id) <= 256 or not re.fullmatch(ID_PATTERN, item_id):
        raise RequestError(("path", "item_id"), "an item id has 1 to 256 characters, none of them a control character")


def _no_item(item_id: str) -> RequestError:
    return RequestError(("path", "item_id"), f"no item {item_id!r} in this client's catalogue", 404)


def _is_arrow(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == bulk.MEDIA_TYPE


def _unauthorized() -> RequestError:
    message = "send `Authorization: Bearer <key>` with a key that is valid; `medley key create` makes one"
    return RequestError(("header", "authorization"), message, 401)


def _json(answer: dict[str, Any]) -> Response:
    return Response(to_json(answer), media_type="application/json")


def _check_query(request: Request) -> None:
    """Raises RequestError for a query parameter that the route does not have, such as a misspelt one."""
    if not request.scope["query_string"]:
        return
    known = {field.alias for field in request.scope["route"].dependant.query_params}
    for name in request.query_params:
        if name not in known:
            raise RequestError(("query", name), f"no such parameter; known: {sorted(known) or 'none'}")
