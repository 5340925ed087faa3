"""Versions in memory: the newest, and those at which clients are held, as far as there is room."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

from serve.decisions.current import Loaded


class Versions:
    """Which version decides for whom. Safe to use from the event loop and worker threads at once.

    A client that is held at a version gets it while it is in memory, else the newest; that it decided is what makes
    its version wanted. Of more than `most` versions the least recently used leaves; the newest never does.

    Args:
        most: versions in memory, the newest among them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[int, Loaded] = OrderedDict()
        self._wanted: set[int] = set()
        self._lock = threading.Lock()
        self.newest: Loaded | None = None
        self.held: Mapping[str, int] = {}

    def of(self, client: str) -> Loaded | None:
        """The version that decides for this client now; None before there is any."""
        number, newest = self.held.get(client), self.newest
        found = self._kept.get(number, newest) if number is not None else newest
        return None if found is None else found.of(client)

    def use(self, client: str) -> None:
        """Note that this client decides."""
        number, newest = self.held.get(client), self.newest
        if number is None or (newest is not None and number == newest.number):
            return
        with self._lock:
            if number in self._kept:
                self._kept.move_to_end(number)
            else:
                self._wanted.add(number)

    def wanted(self) -> list[int]:
        """Versions that are not in memory, of clients that decided since this was last asked."""
        with self._lock:
            found, self._wanted = self._wanted & set(self.held.values()), set()
        return sorted(found) if self._most > 1 else []

    def hold(self, held: Mapping[str, int]) -> None:
        """Clients and the versions at which they are held; all others follow the newest."""
        with self._lock:
            self.held = dict(held)
            self._trim()

    def install(self, loaded: Loaded) -> None:
        """Make a version the newest."""
        with self._lock:
            before, self.newest = self.newest, loaded
            self._kept.pop(loaded.number, None)
            if before is not None and before.number != loaded.number:
                self._kept[before.number] = before
            self._trim()

    def keep(self, loaded: Loaded) -> list[int]:
        """Take a version into memory; returns those that had to leave for it."""
        with self._lock:
            self._kept[loaded.number] = loaded
            return self._trim()

    def _trim(self) -> list[int]:
        numbers, left = set(self.held.values()), []
        for number in [number for number in self._kept if number not in numbers]:
            del self._kept[number]
        while len(self._kept) >= max(self._most, 1):
            left.append(self._kept.popitem(last=False)[0])
        return left
