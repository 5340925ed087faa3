"""User histories in a replica: the most recently used ones within a memory budget."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping

from actors.bandits.history import History

_OVERHEAD = 600  # bytes of three array headers, the entry and its key


class Histories:
    """A least-recently-used map; safe to use from the event loop and worker threads at once."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._bytes = 0
        self._kept: OrderedDict[tuple[str, int, str], tuple[int, History]] = OrderedDict()
        self._lock = threading.Lock()
        self.full = False
        """Whether any was dropped for want of room: who is not found may have one."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, client: str, version: int, user: str, epoch: int) -> tuple[History | None, bool]:
        """A user's history as of an epoch, and whether there may be one that is not to be had: dropped, or of a later
        publication, which a decision at this epoch could not be made again with.
        """
        key = (client, version, user)
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None, self.full
            self._kept.move_to_end(key)
            return (found[1], False) if found[0] <= epoch else (None, True)

    def update(self, client: str, version: int, histories: Mapping[str, History], epoch: int) -> None:
        with self._lock:
            for user, history in histories.items():
                key = (client, version, user)
                self._bytes += _size((epoch, history)) - _size(self._kept.pop(key, None))
                self._kept[key] = epoch, history
            while self._bytes > self._budget_bytes and self._kept:
                self.full = True
                self._bytes -= _size(self._kept.popitem(last=False)[1])

    def forget(self, before: int, but: Collection[int] = ()) -> None:
        """Drop the histories of versions before this one, `but` of these."""
        with self._lock:
            for key in [key for key in self._kept if key[1] < before and key[1] not in but]:
                self._bytes -= _size(self._kept.pop(key))


def _size(kept: tuple[int, History] | None) -> int:
    if kept is None:
        return 0
    history = kept[1]
    return _OVERHEAD + history.phi_ND.nbytes + history.arm_N.nbytes + history.reward_N.nbytes
