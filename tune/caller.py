"""One HTTP server, called safely: the same body again after a second where the answer did not come.

Requests carry ids of their own, so a repeat is answered from what the server stored. A proxy whose replica was
just killed answers immediate retries with 500; a second later it does not.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from cluster.errors import ClusterError

RETRY_S = 1.0
PATIENCE_S = 20.0
TIMEOUT_S = 10.0


class Caller:
    """An asynchronous client of the API; one key per caller name.

    Args:
        url: where the server listens.
        keys: API key by client id.
        connections: most connections at a time.
        retry_s, patience_s: pause before a repeat, and how long repeats go on, seconds.
    """

    def __init__(
        self,
        url: str,
        keys: Mapping[str, str],
        connections: int = 8,
        retry_s: float = RETRY_S,
        patience_s: float = PATIENCE_S,
    ):
        self.keys = dict(keys)
        self.retries = 0
        self.latency_s: list[float] = []
        self._retry_s, self._patience_s = retry_s, patience_s
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            trust_env=False,
        )

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def post(self, path: str, client: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a POST as `client`."""
        return await self._call("POST", path, client, body)

    async def get(self, path: str, client: str) -> dict[str, Any]:
        return await self._call("GET", path, client, None)

    async def _call(self, method: str, path: str, client: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        """Raises ClusterError where the server refuses the request, or gives no answer for `patience_s`."""
        if client not in self.keys:
            raise ClusterError(f"no API key of client {client!r}; make one with `medley client add {client}`")
        headers = {"Authorization": f"Bearer {self.keys[client]}"}
        started = time.monotonic()
        while True:
            sent = time.monotonic()
            try:
                answer = await self._http.request(method, path, json=body, headers=headers)
                fault = f"{answer.status_code} {answer.text[:300]}"
            except httpx.TransportError as error:
                answer, fault = None, f"{type(error).__name__} {error}"
            if answer is not None and answer.is_success:
                self.latency_s.append(time.monotonic() - sent)
                found: dict[str, Any] = answer.json()
                return found
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                raise ClusterError(f"{method} {path} as client {client!r} was refused: {fault}")
            if time.monotonic() - started > self._patience_s:
                raise ClusterError(
                    f"{method} {self._http.base_url}{path}: no answer for {self._patience_s:g} s ({fault}); "
                    "is the server up? see /v1/health"
                )
            self.retries += 1
            await asyncio.sleep(self._retry_s)
