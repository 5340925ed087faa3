"""The body limit at the ASGI level, declared and undeclared."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from serve.limits import BodyLimit


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(str(len(body)))(scope, receive, send)


def post(body: bytes | Iterator[bytes]) -> httpx.Response:
    async def call() -> httpx.Response:
        async def chunks():  # type: ignore[no-untyped-def]
            for chunk in body:
                yield chunk

        transport = httpx.ASGITransport(BodyLimit(echo, 100))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.post("/", content=body if isinstance(body, bytes) else chunks())

    return asyncio.run(call())


def test_up_to_the_limit() -> None:
    assert post(b"x" * 100).text == "100"
    assert post(b"").text == "0"
    assert post(iter([b"x" * 60, b"x" * 40])).text == "100"


@pytest.mark.parametrize("body", [b"x" * 101, [b"x" * 60, b"x" * 41]])
def test_beyond_it(body: bytes | list[bytes]) -> None:
    answer = post(body if isinstance(body, bytes) else iter(body))
    assert answer.status_code == 413
    assert answer.json()["detail"][0]["loc"] == ["body"]
    assert "100 bytes" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"99999999999999999999", b""])
def test_a_length_that_is_none(length: bytes) -> None:
    sent = []

    async def send(message):  # type: ignore[no-untyped-def]
        sent.append(message)

    async def receive():  # type: ignore[no-untyped-def]
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-length", length)]}
    asyncio.run(BodyLimit(echo, 100)(scope, receive, send))
    assert sent[0]["status"] == 413
