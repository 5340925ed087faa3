"""Rates with a clock of the test's own; the body limit over ASGI, declared and undeclared."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI, Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse

from cluster.config import ServeSettings
from cluster.errors import RequestError
from cluster.keys import Limits, Principal
from serve.http import limits, problems
from serve.http.limits import Rates, TooMany
from serve.observed.metrics import Metrics
from serve.observed.watch import Watch


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def key(name: str = "k", **own: float) -> Principal:
    return Principal(name, "shop", limits=Limits(**own))  # type: ignore[arg-type]


def test_a_burst_then_the_rate_and_a_refused_call_takes_nothing() -> None:
    clock = Clock()
    rates, mine = Rates(ServeSettings(), clock), key(rate_per_s=2.0, burst=5)
    rates.take(mine, 5)
    for _ in range(3):
        with pytest.raises(TooMany) as refused:
            rates.take(mine, 3)
        assert refused.value.retry_after_s == 2  # 3 requests at 2 a second: 1.5 s, in whole seconds
    clock.now += 1.4
    with pytest.raises(TooMany):
        rates.take(mine, 3)
    clock.now += 0.1
    rates.take(mine, 3)
    clock.now += 60
    rates.take(mine, 5)  # filled up to the burst, no further
    with pytest.raises(TooMany):
        rates.take(mine, 1)


def test_who_waits_as_told_after_paying_for_a_refused_call_is_let_through() -> None:
    clock = Clock()
    rates, mine = Rates(ServeSettings(), clock), key(rate_per_s=1.0, burst=4)
    rates.take(mine, 2)
    rates.take(mine, 1)
    with pytest.raises(TooMany) as refused:
        rates.take(mine, 4, paid=1)
    assert refused.value.retry_after_s == 3  # 1 of 4 is left, and the same call pays for all 4 again
    clock.now += 3
    rates.take(mine, 1)
    rates.take(mine, 4, paid=1)
    with pytest.raises(TooMany):
        rates.take(mine, 1)


def test_keys_are_counted_apart_and_none_is_limited_by_default() -> None:
    rates = Rates(ServeSettings(rate_per_s=1.5), Clock())
    rates.take(key("a"), 2)  # a second of the rate, in whole requests
    rates.take(key("b"), 2)
    rates.take(key("c", rate_per_s=100.0), 100)
    for name in ("a", "b"):
        with pytest.raises(TooMany):
            rates.take(key(name), 1)
    Rates(ServeSettings(), Clock()).take(key(), 10**9)


def test_a_call_larger_than_the_burst_is_told_to_split() -> None:
    with pytest.raises(RequestError, match="11 requests in one call; this key may send 10 at once") as refused:
        Rates(ServeSettings(), Clock()).take(key(rate_per_s=10.0), 11)
    assert refused.value.status == 413


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 6)), max_size=80),
    st.floats(0.3, 20),
    st.integers(6, 30),
)
def test_never_more_than_the_burst_and_the_rate_allow(calls: list[tuple[float, int]], rate: float, burst: int) -> None:
    """In every interval of length t at most burst + rate·t requests pass; waiting as told is always enough."""
    clock, passed = Clock(), []
    rates, mine = Rates(ServeSettings(), clock), key(rate_per_s=rate, burst=burst)
    for wait_s, requests in calls:
        clock.now += wait_s
        try:
            rates.take(mine, requests)
        except TooMany as refused:
            clock.now += refused.retry_after_s
            rates.take(mine, requests)
        passed.append((clock.now, requests))
    for first in range(len(passed)):
        total = 0
        for at, requests in passed[first:]:
            total += requests
            assert total <= burst + rate * (at - passed[first][0]) + 1e-5


def post(content: bytes | Iterator[bytes]) -> httpx.Response:
    app = FastAPI()
    problems.install(app, Watch(Metrics(), ServeSettings()))

    @app.post("/")
    async def length(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await limits.body(request, 100))))

    async def call() -> httpx.Response:
        async def chunks():  # type: ignore[no-untyped-def]
            for chunk in content:
                yield chunk

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            return await http.post("/", content=content if isinstance(content, bytes) else chunks())

    return asyncio.run(call())


def test_up_to_the_limit() -> None:
    assert post(b"x" * 100).text == "100"
    assert post(b"").text == "0"
    assert post(iter([b"x" * 60, b"x" * 40])).text == "100"


@pytest.mark.parametrize("content", [b"x" * 101, [b"x" * 60, b"x" * 41]])
def test_beyond_it(content: bytes | list[bytes]) -> None:
    answer = post(content if isinstance(content, bytes) else iter(content))
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")
    assert answer.json()["detail"][0]["loc"] == ["body"]
    assert "100 bytes" in answer.json()["detail"][0]["msg"]


@pytest.mark.parametrize("length", [b"-1", b"1e9", b"99999999999999999999", b""])
def test_a_length_that_is_none(length: bytes) -> None:
    async def receive():  # type: ignore[no-untyped-def]
        return {"type": "http.request", "body": b""}

    request = Request({"type": "http", "method": "POST", "headers": [(b"content-length", length)]}, receive)
    with pytest.raises(RequestError) as refused:
        asyncio.run(limits.body(request, 100))
    assert refused.value.status == 413
