"""Who is calling: API keys checked against a key ring in memory, reloaded from time to time."""

import asyncio
import time
from collections.abc import Callable

from cluster.keys import KeyRing, Principal

_LOOK_AGAIN_S = 1.0
"""An unknown key may have been made a moment ago; the ring is then reloaded, at most this often."""


class Access:
    """Args: load reads all keys (it may block); refresh_s is the age at which a ring is replaced."""

    def __init__(
        self, load: Callable[[], KeyRing], refresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._refresh_s = refresh_s
        self._clock = clock
        self._ring = KeyRing()
        self._loaded_at = float("-inf")
        self._loading: asyncio.Lock | None = None

    async def principal(self, header: str | None) -> Principal | None:
        """Who holds the key of an Authorization header; None where there is none that is valid.

        Raises:
            DatabaseError: no keys could be read yet.
        """
        scheme, _, plain = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not plain.isascii():
            return None
        found = self._ring.verify(plain)
        if found is None and self._clock() - self._loaded_at >= _LOOK_AGAIN_S:
            await self.refresh(_LOOK_AGAIN_S)
            found = self._ring.verify(plain)
        return found

    async def refresh(self, age_s: float | None = None) -> None:
        """Reload the ring if it is older than `age_s` (default: the configured age)."""
        self._loading = self._loading or asyncio.Lock()
        async with self._loading:
            if self._clock() - self._loaded_at >= (self._refresh_s if age_s is None else age_s):
                self._ring = await asyncio.to_thread(self._load)
                self._loaded_at = self._clock()
