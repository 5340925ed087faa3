"""Errors as HTTP answers: one shape, `{"detail": [{"loc", "type", "msg"}]}`, for every status from 400 up."""

import logging
from collections.abc import Sequence
from typing import TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from cluster.errors import RequestError, StateError
from serve.http.limits import TooMany
from serve.observed.watch import Watch

logger = logging.getLogger(__name__)

_VALUE = "a value is a finite number, a text, true, false, null or a list of texts"
Faults: TypeAlias = Sequence[tuple[Sequence[str | int], str, str]]
"""(path of the field, type, message) of each."""

_MOST = 20  # faults named in one answer
_TYPES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported",
    429: "too_many",
}
_HEADERS = {
    401: {"WWW-Authenticate": "Bearer", "Connection": "close"},  # the body may be unread, and without end
    413: {"Connection": "close"},
    503: {"Retry-After": "1"},
}


def problems(status: int, faults: Faults) -> Response:
    """Faults as an answer."""
    detail = [{"loc": list(loc), "type": kind, "msg": message} for loc, kind, message in faults[:_MOST]]
    return Response(to_json({"detail": detail}), status, _HEADERS.get(status), "application/json")


def invalid(error: ValidationError) -> Faults:
    """The faults of a body that does not have the form of its message."""
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
    return [(loc, kind, message) for loc, (kind, message) in named.items()]


class Refusals(RequestError):
    """Several faults, answered together."""

    def __init__(self, status: int, faults: Faults) -> None:
        loc, _, message = faults[0]
        super().__init__(tuple(loc), message, status)
        self.args = (status, faults)
        self.faults = faults


def install(app: FastAPI, watch: Watch) -> None:
    """Turn every error that a handler raises into its answer, and tell `watch`."""

    def answer(request: Request, status: int, faults: Faults) -> Response:
        watch.refused(request, status, faults)
        return problems(status, faults)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        kind = _TYPES.get(error.status, "value_error")
        faults = error.faults if isinstance(error, Refusals) else [(error.loc, kind, error.message)]
        told = answer(request, error.status, faults)
        if isinstance(error, TooMany):
            told.headers["Retry-After"] = str(error.retry_after_s)
        return told

    @app.exception_handler(ValidationError)
    async def unreadable(request: Request, error: ValidationError) -> Response:
        return answer(request, 422, invalid(error))

    @app.exception_handler(RequestValidationError)
    async def parameters(request: Request, error: RequestValidationError) -> Response:
        return answer(request, 422, [(fault["loc"], fault["type"], fault["msg"]) for fault in error.errors()])

    @app.exception_handler(StateError)
    async def unavailable(request: Request, error: StateError) -> Response:
        return answer(request, 503, [(("server",), "unavailable", str(error))])

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return answer(request, 400, [(("body",), _TYPES[400], "the connection ended before the body did")])

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        kind = _TYPES.get(error.status_code, "value_error")
        return answer(request, error.status_code, [(("path",), kind, str(error.detail))])

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> Response:
        logger.error("failed", exc_info=error, extra={"fields": {"call": f"{request.method} {request.url.path}"}})
        return problems(
            500, [(("server",), "failed", f"{type(error).__name__}: this is a defect of Medley; see its log")]
        )
