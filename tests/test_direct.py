"""The short way answers what the long way would: same errors, same route in the scope, everything else past it."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from serve.http.direct import Direct


async def handler(request: Request) -> Response:
    body = await request.body()
    if body == b"known":
        raise ValueError("told")
    if body == b"unknown":
        raise KeyError("defect")
    return PlainTextResponse(body + b" " + request.scope["route"].path.encode())


def make() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/echo", handler, methods=["POST"], response_model=None)
    app.add_middleware(Direct, hot={("POST", "/echo"): (handler, app.routes[-1])})

    @app.exception_handler(ValueError)
    async def told(request: Request, error: ValueError) -> Response:
        return PlainTextResponse(str(error), 418)

    return app


def call(method: str, path: str, body: bytes = b"", root_path: str = "") -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(make(), root_path=root_path)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.request(method, path, content=body)

    return asyncio.run(run())


def test_a_hot_call_is_answered_by_its_handler() -> None:
    assert call("POST", "/echo", b"hello").text == "hello /echo"
    assert call("POST", "/below/echo", b"hello", root_path="/below").text == "hello /echo"


def test_errors_are_answered_as_the_application_says() -> None:
    found = call("POST", "/echo", b"known")
    assert (found.status_code, found.text) == (418, "told")
    with pytest.raises(KeyError, match="defect"):
        call("POST", "/echo", b"unknown")


def test_everything_else_goes_to_the_application() -> None:
    assert call("GET", "/echo").status_code == 405
    assert call("POST", "/other").status_code == 404
    assert call("GET", "/openapi.json").status_code == 200
