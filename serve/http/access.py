"""Who is calling: API keys checked against a key ring in memory, reloaded from time to time."""

import asyncio
import logging
import time
from collections.abc import Callable

from cluster.errors import StateError
from cluster.keys import KeyRing, Principal

logger = logging.getLogger(__name__)

_LOOK_AGAIN_S = 1.0
"""An unknown key may have been made a moment ago; the ring is then reloaded, at most this often."""


class Access:
    """A key that was revoked is refused after `refresh_s` at the latest.

    Args:
        load: reads all keys; it may block.
        refresh_s: greatest age of a ring that is checked against. From half of it on a new one is fetched beside.
    """

    def __init__(
        self, load: Callable[[], KeyRing], refresh_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._load = load
        self._refresh_s = refresh_s
        self._clock = clock
        self._ring = KeyRing()
        self._loaded_at = float("-inf")
        self._loading = asyncio.Lock()
        self._beside: asyncio.Task[None] | None = None

    async def principal(self, header: str | None) -> Principal | None:
        """Who holds the key of an Authorization header; None where there is none that is valid.

        Raises:
            DatabaseError: no keys could be read yet.
        """
        scheme, _, plain = (header or "").partition(" ")
        if scheme.lower() != "bearer" or not plain.isascii():
            return None
        age_s = self._clock() - self._loaded_at
        if age_s >= self._refresh_s:
            await self._reload(self._refresh_s)
        elif age_s >= self._refresh_s / 2 and (self._beside is None or self._beside.done()):
            self._beside = asyncio.create_task(self._reload_beside())
        found = self._ring.verify(plain)
        if found is None and self._clock() - self._loaded_at >= _LOOK_AGAIN_S:
            await self._reload(_LOOK_AGAIN_S)
            found = self._ring.verify(plain)
        return found

    async def _reload_beside(self) -> None:
        try:
            await self._reload(self._refresh_s / 2)
        except StateError as error:
            logger.warning("API keys cannot be reloaded: %s", error)  # the next check past the age says so itself

    async def _reload(self, age_s: float) -> None:
        """Replace a ring of at least this age; those who come meanwhile wait for the same one."""
        async with self._loading:
            if self._clock() - self._loaded_at >= age_s:
                self._ring = await asyncio.to_thread(self._load)
                self._loaded_at = self._clock()
