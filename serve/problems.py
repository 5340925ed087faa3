"""Errors as HTTP answers: one shape, `{"detail": [{"loc", "type", "msg"}]}`, for every status from 400 up."""

import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cluster.errors import RequestError, StateError
from serve.limits import TooMany

logger = logging.getLogger(__name__)

_VALUE = "a value is a finite number, a text, true, false, null or a list of texts"
_MOST = 20  # faults named in one answer
_TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    429: "too_many",
}
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer", "Connection": "close"},  # the body may be unread, and without end
    413: {"Connection": "close"},
    503: {"Retry-After": "1"},
}


def problem(status: int, loc: Sequence[str | int], message: str, kind: str | None = None) -> Response:
    """One fault as an answer."""
    return problems(status, [(loc, kind or _TYPES.get(status, "value_error"), message)])


def problems(status: int, faults: Sequence[tuple[Sequence[str | int], str, str]]) -> Response:
    """Faults as (path of the field, type, message)."""
    detail = [{"loc": list(loc), "type": kind, "msg": message} for loc, kind, message in faults[:_MOST]]
    return Response(to_json({"detail": detail}), status, _HEADERS.get(status), "application/json")


def invalid(error: ValidationError) -> Response:
    """A body that does not have the form of its message."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    named: dict[tuple[str | int, ...], tuple[str, str]] = {}
    for fault in faults:
        loc = ("body", *fault["loc"])
        place = next((i for i, part in enumerate(loc) if part in ("context", "attributes")), len(loc))
        if (
            len(loc) > place + 2 and loc[-1] != "[key]"
        ):  # one of the kinds that a value may have; pydantic names each that it is not
            named[loc[: place + 2]] = ("context_value", _VALUE)
        else:
            named.setdefault(loc, (fault["type"], fault["msg"]))
    return problems(422, [(loc, kind, message) for loc, (kind, message) in named.items()])


def install(app: FastAPI) -> None:
    """Turn every error that a handler raises on purpose into its answer."""

    @app.exception_handler(RequestError)
    async def refused(_: Request, error: RequestError) -> Response:
        answer = problem(error.status, error.loc, error.message)
        if isinstance(error, TooMany):
            answer.headers["Retry-After"] = str(error.retry_after_s)
        return answer

    @app.exception_handler(ValidationError)
    async def unreadable(_: Request, error: ValidationError) -> Response:
        return invalid(error)

    @app.exception_handler(RequestValidationError)
    async def parameters(_: Request, error: RequestValidationError) -> Response:
        return problems(422, [(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()])

    @app.exception_handler(StateError)
    async def unavailable(_: Request, error: StateError) -> Response:
        logger.error("%s", error)
        return problem(503, ("server",), str(error), "unavailable")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, error: ClientDisconnect) -> Response:
        return problem(400, ("body",), "the connection ended before the body did")

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, ("path",), str(error.detail))
