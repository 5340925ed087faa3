"""The outermost layer of a replica's HTTP: counts and times every call, and knows when the last one is answered."""

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

_LOOK_S = 0.02
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")


class Edge:
    """`calls` is how many are being answered now; `draining` is set once the process is to end."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.calls = 0
        self.draining = False
        metrics.level("medley_http_requests_in_flight", lambda: self.calls)

    async def drain(self, timeout_s: float) -> None:
        """Tell /v1/health to turn callers away, and wait until those that are here have their answers."""
        self.draining = True
        deadline = time.monotonic() + timeout_s
        while self.calls and time.monotonic() < deadline:
            await asyncio.sleep(_LOOK_S)
        if self.calls:
            logger.error("ended unanswered", extra={"fields": {"calls": self.calls, "after_s": timeout_s}})

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app` with every HTTP call counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            start, status = time.perf_counter(), 500

            async def seen(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                await send(message)

            self.calls += 1
            try:
                await app(scope, receive, seen)
            finally:
                self.calls -= 1
                self._count(scope, status, time.perf_counter() - start)

        return counted

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path_format", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.count("medley_http_requests_total", method, route, str(status))
        self._metrics.observe("medley_http_request_seconds", seconds, route)
