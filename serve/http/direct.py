"""The short way to handlers that read their own bodies: no routing table, no parameters to solve."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Direct:
    """Hands `hot` calls to their handlers, all others to `app`; errors become answers as the application says.

    Args:
        hot: (method, path) -> handler, and the route that stands for it in counts and in the document.
    """

    def __init__(self, app: ASGIApp, hot: Mapping[tuple[str, str], tuple[Handler, BaseRoute]]) -> None:
        self._app = app
        self._hot = hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._hot.get((scope["method"], _path(scope))) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        handler, scope["route"] = found
        request = Request(scope, receive, send)
        try:
            response = await handler(request)
        except Exception as error:
            handlers = scope["app"].exception_handlers
            known = next((c for c in type(error).__mro__ if c in handlers and c is not Exception), None)
            if known is None:
                raise
            response = await handlers[known](request, error)
        await response(scope, receive, send)


def _path(scope: Scope) -> str:
    """Below the application's own root."""
    path: str = scope["path"]
    below = path.removeprefix(scope.get("root_path", ""))
    return below if below.startswith("/") else path
