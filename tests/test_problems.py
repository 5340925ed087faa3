"""Every error as an answer of one shape, and as a line of the log."""

import asyncio
import logging
import pickle
from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from cluster.config import ServeSettings
from cluster.errors import JournalError, RequestError
from serve.http import problems
from serve.http.limits import TooMany
from serve.http.problems import Refusals
from serve.observed.metrics import Metrics
from serve.observed.watch import Watch


def answer(error: Exception) -> httpx.Response:
    """What a caller gets where a handler raises."""
    app = FastAPI()
    problems.install(app, Watch(Metrics(), ServeSettings()))

    @app.get("/")
    async def fail() -> None:
        raise error

    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return await http.get("/")

    return asyncio.run(call())


FAULTS = [(("body", "rewards", n), "value_error", f"fault {n}") for n in range(25)]


@pytest.mark.parametrize(
    ("error", "status", "detail", "headers"),
    [
        (RequestError(("body", "x"), "no"), 422, [(["body", "x"], "value_error", "no")], {}),
        (RequestError(("path",), "gone", 404), 404, [(["path"], "not_found", "gone")], {}),
        (TooMany("slowly", 7), 429, [(["header", "authorization"], "too_many", "slowly")], {"retry-after": "7"}),
        (JournalError("no disk"), 503, [(["server"], "unavailable", "no disk")], {"retry-after": "1"}),
        (Refusals(404, FAULTS), 404, [(list(loc), kind, text) for loc, kind, text in FAULTS[:20]], {}),
    ],
)
def test_an_error_names_its_place(
    error: Exception, status: int, detail: list[tuple[list[str | int], str, str]], headers: dict[str, str]
) -> None:
    found = answer(error)
    assert found.status_code == status
    assert [(fault["loc"], fault["type"], fault["msg"]) for fault in found.json()["detail"]] == detail
    assert headers.items() <= dict(found.headers).items()


def test_a_defect_is_an_answer_of_the_same_shape_and_its_trace_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "serve"):
        found = answer(ZeroDivisionError("secret detail"))
    [fault] = found.json()["detail"]
    assert (found.status_code, fault["loc"], fault["type"]) == (500, ["server"], "failed")
    assert "secret detail" not in found.text
    [record] = [record for record in caplog.records if record.name == "serve.http.problems"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


@pytest.mark.parametrize("make", [lambda: Refusals(404, FAULTS), lambda: TooMany("slowly", 7)])
def test_refusals_survive_pickling(make: Callable[[], RequestError]) -> None:
    error = make()
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.status, vars(again)) == (str(error), error.status, vars(error))
