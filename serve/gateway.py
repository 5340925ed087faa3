"""HTTP: routes, authentication, limits. No Ray; `serve.app` puts it into a deployment.

Handlers read the raw body and let pydantic parse it, and answer bytes that are made once. Nothing on the event
loop waits for a database: keys are in memory, the journal answers by a future, reads go to a thread.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from fastapi import FastAPI, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from cluster.config import ClientMode, ServeSettings
from cluster.errors import RequestError, StateError
from cluster.journal import DecisionRecord, ItemRecord, Journal, Repeat
from cluster.keys import Principal
from serve import limits, problems
from serve.access import Access
from serve.decide import Engine
from serve.durable import Durable
from serve.edge import Edge
from serve.ids import DecisionIds
from serve.limits import Rates
from serve.messages import (
    ID_PATTERN,
    Client,
    DecisionAnswer,
    DecisionRequest,
    Decisions,
    Health,
    Item,
    ItemBody,
    ItemPage,
    Problems,
    RewardAnswer,
    Rewards,
    Versions,
    Weights,
)
from serve.metrics import Metrics
from serve.problems import Refusals
from serve.rewards import Rewarding
from serve.watch import Watch

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problems, "description": text}
    for status, text in {
        401: "no valid key",
        403: "the key is of the other kind",
        404: "not there, or another client's",
        413: "the body or batch is too large",
        422: "a field is wrong; `loc` names it",
        429: "too many requests with this key; `Retry-After` says how many seconds to wait",
        503: "nothing could be made durable, or the replica is draining; try again",
    }.items()
}


class Models(Protocol):
    """Replicas that decide large batches."""

    async def decide(
        self, client: str, requests: Sequence[DecisionRequest], ids: Sequence[str], mode: ClientMode
    ) -> list[DecisionRecord] | None:
        """None where no replica answers."""


class LearnerLink(Protocol):
    """The learner as a replica sees it."""

    following: bool

    async def publications(self, client: str | None, version: int | None) -> list[dict[str, Any]]: ...


class Gateway:
    """The HTTP side of one replica.

    Args:
        engine, journal, durable, ids, access, metrics: this replica's own.
        link: the learner.
        versions: lists the registry; it may block.
        clients: lists the clients, as `messages.Client`; it may block.
        rewarding: takes rewards.
        settings: limits.
        models: where batches of `settings.models_batch` requests or more go; None decides them here.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        durable: Durable,
        ids: DecisionIds,
        access: Access,
        metrics: Metrics,
        link: LearnerLink,
        versions: Callable[[], Versions],
        clients: Callable[[], list[dict[str, Any]]],
        rewarding: Rewarding,
        settings: ServeSettings,
        models: Models | None = None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._ids = ids
        self._access = access
        self._link = link
        self._versions = versions
        self._clients = clients
        self._rewarding = rewarding
        self._settings = settings
        self._models = models
        self._rates = Rates(settings)
        self._durable = durable
        self._metrics = metrics
        self._watch = Watch(metrics, settings)
        self.edge = Edge(metrics)
        self._rebuilding = asyncio.Lock()
        self.in_work = 0
        metrics.level("medley_contexts_in_work", lambda: self.in_work)
        metrics.level("medley_version", lambda: engine.number or 0)
        metrics.level("medley_learner_following", lambda: link.following)
        metrics.level("medley_journal_failed", lambda: journal.failed is not None)
        self.app = _application(self, self._watch)

    async def decisions(self, request: Request) -> Response:
        """Choose items for one or many requests; the answer leaves when it is durable."""
        start = time.perf_counter()
        principal, client = await self._client(request)
        message = Decisions.model_validate_json(await self._body(request, principal))
        self._admit(principal, "requests", len(message.requests))
        answers = await self._decided(client, principal.mode, message.requests, start)
        return Response(f'{{"decisions":[{",".join(answers)}]}}', media_type="application/json")

    async def rewards(self, request: Request) -> Response:
        """Take rewards; each counts once, whenever and however often it comes."""
        principal, client = await self._client(request)
        message = Rewards.model_validate_json(await self._body(request, principal))
        self._admit(principal, "rewards", len(message.rewards))
        answer, faults = await self._rewarding.take(client, message.rewards)
        if len(faults) == len(message.rewards):
            raise Refusals(
                min(fault.status for fault in faults.values()),
                [(("body", "rewards", i, fault.field), "value_error", fault.text) for i, fault in faults.items()],
            )
        return Response(answer.model_dump_json(), media_type="application/json")

    async def put_item(self, request: Request, item_id: str) -> Response:
        """Add an item to the client's catalogue, or replace it."""
        principal, client = await self._client(request)
        body = ItemBody.model_validate_json(await self._body(request, principal) or b"{}")
        self._rates.take(principal, 1)
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
        for found in await asyncio.to_thread(self._clients):
            if found["client_id"] == client_id:
                return _json(found)
        raise RequestError(("path", "client_id"), f"no client {client_id!r}; `medley client list` shows them", 404)

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
            records = await self._decide(client, requests, ids, mode)
            engine_s = time.perf_counter() - began
            repeats = await self._durable(self._journal.deciding(records))
        finally:
            self.in_work -= len(requests)
        self._metrics.observe("medley_decision_seconds", engine_s / len(requests))
        self._watch.decided(records, repeats, time.perf_counter() - start)
        return [_answer(i, record, repeats.get(i)) for i, record in enumerate(records)]

    async def _decide(
        self, client: str, requests: Sequence[DecisionRequest], ids: Sequence[str], mode: ClientMode
    ) -> list[DecisionRecord]:
        if len(requests) <= self._settings.thread_batch:
            return self._engine.decide_many(client, requests, ids, mode)
        if self._models is not None and len(requests) >= self._settings.models_batch:
            records = await self._models.decide(client, requests, ids, mode)
            if records is not None:
                return records
        return await asyncio.to_thread(self._engine.decide_many, client, requests, ids, mode)

    async def _change(self, client: str, item_id: str, body: str | None) -> None:
        _check_item_id(item_id)
        revision = await self._durable(self._journal.changing([ItemRecord(client, item_id, body)]))
        self._engine.change(client, item_id, body, revision)
        async with self._rebuilding:  # changes that come meanwhile share the next rebuild
            await asyncio.to_thread(self._engine.rebuild, client)

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
        return principal

    async def _body(self, request: Request, principal: Principal) -> bytes:
        return await limits.body(request, principal.limits.max_body_bytes or self._settings.max_body_bytes)

    def _admit(self, principal: Principal, name: str, number: int) -> None:
        """Refuse a call with too many requests in it, or too many for now."""
        most = self._settings.max_batch
        if number > most:
            raise RequestError(("body", name), f"{number} in one call; at most {most} (serve.max_batch)", 413)
        self._rates.take(principal, number)


def _application(gateway: Gateway, watch: Watch) -> FastAPI:
    app = FastAPI(title="Medley", version="1", summary="Decisions, rewards and items")
    problems.install(app, watch)
    app.add_middleware(gateway.edge.around)
    routes: list[tuple[str, str, Callable[..., Awaitable[Response]], Any, Any]] = [
        ("POST", "/v1/decisions", gateway.decisions, Decisions, DecisionAnswer),
        ("POST", "/v1/rewards", gateway.rewards, Rewards, RewardAnswer),
        ("PUT", "/v1/items/{item_id:path}", gateway.put_item, ItemBody, Item),
        ("GET", "/v1/items/{item_id:path}", gateway.get_item, None, Item),
        ("DELETE", "/v1/items/{item_id:path}", gateway.delete_item, None, None),
        ("GET", "/v1/items", gateway.items, None, ItemPage),
        ("GET", "/v1/versions", gateway.versions, None, Versions),
        ("GET", "/v1/clients/{client_id:path}", gateway.client, None, Client),
        ("GET", "/v1/weights", gateway.weights, None, Weights),
        ("GET", "/v1/health", gateway.health, None, Health),
    ]
    for method, path, handler, body, answer in routes:
        extra: dict[str, Any] = {} if path == "/v1/health" else {"security": [{"key": []}]}
        if body is not None:
            schema = {"$ref": f"#/components/schemas/{body.__name__}"}
            extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        app.add_api_route(
            path,
            handler,
            methods=[method],
            response_model=answer,
            status_code=204 if method == "DELETE" else 200,
            responses=REFUSALS,
            openapi_extra=extra,
        )
    app.openapi = lambda: _openapi(app, [body for *_, body, _ in routes if body is not None])  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI, bodies: Sequence[Any]) -> dict[str, Any]:
    """FastAPI's document with the bodies, which handlers parse themselves, and the key."""
    if app.openapi_schema is None:
        from fastapi.openapi.utils import get_openapi
        from pydantic.json_schema import models_json_schema

        document = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        _, schemas = models_json_schema(
            [(body, "validation") for body in bodies], ref_template="#/components/schemas/{model}"
        )
        components = document.setdefault("components", {})
        components["schemas"] = components.get("schemas", {}) | schemas["$defs"]
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = document
    return app.openapi_schema


def _answer(index: int, record: DecisionRecord, repeat: Repeat | None) -> str:
    if repeat is None:
        return record.answer
    if not repeat.same:
        where = ("body", "requests", index, "request_id")
        raise RequestError(where, f"{record.request_id!r} was used for another request; take a new one")
    return repeat.answer


def _item(item_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"item_id": item_id, **body}


def _check_item_id(item_id: str) -> None:
    if not 1 <= len(item_id) <= 256 or not re.fullmatch(ID_PATTERN, item_id):
        raise RequestError(("path", "item_id"), "an item id has 1 to 256 characters, none of them a control character")


def _no_item(item_id: str) -> RequestError:
    return RequestError(("path", "item_id"), f"no item {item_id!r} in this client's catalogue", 404)


def _unauthorized() -> RequestError:
    message = "send `Authorization: Bearer <key>` with a key that is valid; `medley key create` makes one"
    return RequestError(("header", "authorization"), message, 401)


def _json(answer: dict[str, Any]) -> Response:
    return Response(to_json(answer), media_type="application/json")
