"""Limits of a key: how much in a second, how large a body. Null limits of a key are the settings' defaults.

Both hold inside a replica's own application: its port can be reached beside the proxy, so the proxy's limits
protect nothing. Each replica counts for itself; n of them let through n times the rate.
"""

import math
import time
from collections.abc import Callable

from starlette.requests import Request

from cluster.config import ServeSettings
from cluster.errors import RequestError
from cluster.keys import Principal

_ROUNDING = 1e-6
"""Of a token: who waited as long as told is let through, whatever the sum of floats says."""


class TooMany(RequestError):
    """A key's rate is spent; `retry_after_s` seconds later the same call is let through."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(("header", "authorization"), message, 429)
        self.args = (message, retry_after_s)
        self.retry_after_s = retry_after_s


class Rates:
    """A token bucket per key: it fills at `rate_per_s` up to `burst`, and each request inside a call takes one.

    A call is let through whole or not at all, and one that is refused takes nothing more than it has paid before.

    Args:
        settings: the defaults.
        clock: seconds, monotone.
    """

    def __init__(self, settings: ServeSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}
        """key id -> (tokens, the moment at which there were so many)"""

    def take(self, principal: Principal, requests: int, paid: int = 0) -> None:
        """Take tokens for a call with so many requests; `paid` were taken before, when it was read.

        Raises:
            TooMany: it is told to wait for all of its tokens, because the same call pays anew.
            RequestError: 413, no waiting lets it through.
        """
        own, given = principal.limits, self._settings
        rate, burst = own.rate_per_s, own.burst
        if rate is None:
            rate, burst = given.rate_per_s, own.burst or given.burst
        if rate is None:
            return
        burst = burst or math.ceil(rate)
        if requests > burst:
            message = f"{requests} requests in one call; this key may send {burst} at once: split the call"
            raise RequestError(("body",), message, 413)
        now = self._clock()
        tokens, at = self._left.get(principal.key_id, (float(burst), now))
        tokens = min(float(burst), tokens + rate * (now - at))
        if tokens < requests - paid - _ROUNDING:
            self._left[principal.key_id] = (tokens, now)
            wait_s = math.ceil((requests - tokens) / rate)
            raise TooMany(f"more than {rate:g} requests in a second with this key; try again in {wait_s} s", wait_s)
        self._left[principal.key_id] = (tokens - (requests - paid), now)


async def body(request: Request, most: int) -> bytes:
    """The body of a call, read no further than `most` bytes, whether its length is declared or not.

    Raises:
        RequestError: 413, it is longer.
    """
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()) or len(declared) > 15 or int(declared) > most:
        raise _too_large(most)
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(most: int) -> RequestError:
    message = f"the body is larger than {most} bytes; split the call, or raise serve.max_body_bytes or the key's limit"
    return RequestError(("body",), message, 413)
