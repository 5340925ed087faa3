"""The HTTP surface fuzzed from its own OpenAPI document: no 500 ever, and every answer is as the document says.

A real HTTP server in a thread of the test's own, over a real engine and journal, with a version and without one,
called with a client's key, with an operator's and with none. Schemathesis makes calls that the document allows, and
others that it does not; the seed is fixed.
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks

from cluster import config
from cluster.config import Settings
from tests import content_serving, serving
from tests.servers import free_port
from tests.serving import Running

CHECKS = [
    schemathesis.checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
    checks.negative_data_rejection,
    checks.unsupported_method,
]
EXAMPLES = 15
OPERATORS = ("/v1/versions", "/v1/weights", "/v1/clients")


@contextmanager
def listening(settings: Settings) -> Iterator[tuple[str, Running]]:
    """A replica behind a real HTTP server: its address, and its parts."""
    port = free_port()
    started, parts = threading.Event(), []

    async def main() -> None:
        async with serving.running(settings, content=content_serving.Reader) as replica:
            server = uvicorn.Server(uvicorn.Config(replica.parts.app, port=port, log_level="error"))
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            parts.extend([server, replica])
            started.set()
            await task

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(30)
        yield f"http://127.0.0.1:{port}", parts[1]
    finally:
        if parts:
            parts[0].should_exit = True
        thread.join()


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("published", [True, False], ids=["with a version", "without one"])
def test_every_answer_is_as_the_document_says(home: Any, published: bool, mode: Any) -> None:
    settings = config.load(rewards={"reward": {"window_s": 60}}, serve={"max_batch": 50})
    if published:
        serving.publish(settings, content_serving.version())
    with listening(settings) as (url, replica):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        keys = [replica.headers(), {"Authorization": f"Bearer {replica.operator}"}, {}]
        operations = [found.ok() for found in schema.get_all_operations()]
        with requests.Session() as session:
            for operation in operations:
                _fuzz(operation, mode, keys, session)
        assert len(operations) >= 10
        statuses = {labels[2] for name, labels in replica.metrics.counts if name == "medley_http_requests_total"}
        assert statuses >= {"200", "401", "403", "422"}
        assert not {status for status in statuses if status >= "500"}


def _fuzz(operation: Any, mode: Any, keys: list[dict[str, str]], session: requests.Session) -> None:
    """Examples of one operation, mostly with the kind of key that it is for."""
    if mode.is_negative and not (operation.query or operation.path_parameters or operation.body):
        return  # nothing to send that could be wrong
    mine = keys[operation.path.startswith(OPERATORS)]

    @hypothesis_settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), key=st.sampled_from([mine] * 4 + keys))
    def check(case: Any, key: dict[str, str]) -> None:
        case.call_and_validate(headers=key, checks=CHECKS, session=session)

    check()
