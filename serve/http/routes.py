"""Which path is answered by which handler, and the OpenAPI document that says so."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import BaseRoute

from serve.gateway import Gateway
from serve.http import bulk, problems
from serve.http.direct import Direct, Handler
from serve.messages import (
    Client,
    DecisionAnswer,
    Decisions,
    Health,
    Item,
    ItemBody,
    ItemPage,
    PredictionAnswer,
    Predictions,
    Problems,
    RewardAnswer,
    Rewards,
    Versions,
    Weights,
)

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problems, "description": text}
    for status, text in {
        401: "no valid key",
        403: "the key is of the other kind",
        404: "not there, or another client's",
        413: "the body or batch is too large",
        415: "a body of this kind is not read here",
        422: "a field is wrong; `loc` names it",
        429: "too many requests with this key; `Retry-After` says how many seconds to wait",
        503: "nothing could be made durable, or the replica is draining; try again",
    }.items()
}

HOT = ("/v1/decisions", "/v1/rewards", "/v1/predictions")
"""Calls that go past the router."""

BULK = {
    "/v1/decisions": (
        "one row a request; columns as the fields in JSON, nulls where a field is not sent, `context` a struct or a "
        "text that holds its JSON; not compressed",
        "one row a slot: row of the request, decision_id, version, mode, slot, item_id, score, propensity, explored",
    ),
    "/v1/rewards": (
        "one row a reward; columns as the fields in JSON; not compressed",
        "one row a reward: row, status (accepted, duplicate, rejected), reason",
    ),
}
"""Calls that also take an Arrow IPC stream, and then answer with one: what its rows are."""


def application(gateway: Gateway) -> FastAPI:
    app = FastAPI(title="Medley", version="1", summary="Decisions, rewards and items")
    problems.install(app, gateway.watch)
    hot: dict[tuple[str, str], tuple[Handler, BaseRoute]] = {}
    app.add_middleware(Direct, hot=hot)
    app.add_middleware(gateway.edge.around)
    routes: list[tuple[str, str, Callable[..., Awaitable[Response]], Any, Any]] = [
        ("POST", "/v1/decisions", gateway.decisions, Decisions, DecisionAnswer),
        ("POST", "/v1/rewards", gateway.rewards, Rewards, RewardAnswer),
        ("POST", "/v1/predictions", gateway.predictions, Predictions, PredictionAnswer),
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
        if path in BULK:
            extra["requestBody"]["content"] |= _stream(BULK[path][0])
        app.add_api_route(
            path,
            handler,
            methods=[method],
            response_model=answer,
            status_code=204 if method == "DELETE" else 200,
            responses=REFUSALS | ({200: {"content": _stream(BULK[path][1])}} if path in BULK else {}),
            openapi_extra=extra,
        )
        if path in HOT:
            hot[method, path] = (handler, app.routes[-1])
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


def _stream(text: str) -> dict[str, Any]:
    return {bulk.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary", "description": text}}}
