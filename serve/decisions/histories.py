"""User histories in a replica: the most recently used ones within a memory budget.

Who is decided for, may have a history and is not found is noted: the replica asks the learner, and a later decision has
it. Whatever is found is what the learner had published at the decision's epoch, so that the decision can be made again.
"""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from actors.bandits.history import History

_OVERHEAD = 600  # bytes of three array headers, the entry and its key
_NOTED = 256
"""Users noted at a time; those beyond are noted when they come again."""


class Missed(NamedTuple):
    """A user of a client whose history on a version was not found."""

    client: str
    version: int
    user: str


@dataclass(frozen=True)
class Recalled:
    """What a learner had published of some users up to an epoch; None of those who have learned nothing since the
    version was made."""

    client: str
    version: int
    epoch: int
    histories: dict[str, History | None]


class Histories:
    """A least-recently-used map; safe to use from the event loop and worker threads at once."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._bytes = 0
        self._kept: OrderedDict[Missed, tuple[int, History | None]] = OrderedDict()
        self._epochs: dict[tuple[str, int], int] = {}
        self._noted: set[Missed] = set()
        self._lock = threading.Lock()
        self.short: set[int] = set()
        """Versions of which any was dropped: who is not found there may have one."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, client: str, version: int, user: str, epoch: int) -> tuple[History | None, bool]:
        """A user's history as of an epoch, and whether there may be one that is not to be had: dropped, or of a later
        publication, which a decision at this epoch could not be made again with.
        """
        key = Missed(client, version, user)
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                if version in self.short and len(self._noted) < _NOTED:
                    self._noted.add(key)
                return None, version in self.short
            self._kept.move_to_end(key)
            return (found[1], False) if found[0] <= epoch else (None, True)

    def update(self, client: str, version: int, histories: Mapping[str, History], epoch: int) -> None:
        """Take a publication: every history that changed since the one before."""
        with self._lock:
            self._epochs[client, version] = epoch
            for user, history in histories.items():
                self._put(Missed(client, version, user), epoch, history)
            self._trim()

    def wanted(self) -> list[Missed]:
        """Users that were missed since this was last asked."""
        with self._lock:
            noted, self._noted = self._noted, set()
        return list(noted)

    def recall(self, found: Recalled) -> int:
        """Take what the learner answered; not where a later publication came meanwhile, which may have changed it.
        Returns the number of users whose history is known by it.
        """
        with self._lock:
            if found.epoch < self._epochs.get((found.client, found.version), 1):
                return 0
            keys = {user: Missed(found.client, found.version, user) for user in found.histories}
            new = [user for user, key in keys.items() if key not in self._kept]
            for user in new:
                self._put(keys[user], found.epoch, found.histories[user])
            self._trim()
            return len(new)

    def forget(self, before: int, but: Collection[int] = ()) -> None:
        """Drop the histories of versions before this one, `but` of these."""
        with self._lock:
            for key in [key for key in self._kept if key.version < before and key.version not in but]:
                self._drop(key)

    def _put(self, key: Missed, epoch: int, history: History | None) -> None:
        self._bytes += _size((epoch, history)) - _size(self._kept.pop(key, None))
        self._kept[key] = epoch, history

    def _trim(self) -> None:
        while self._bytes > self._budget_bytes and self._kept:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Missed) -> None:
        self.short.add(key.version)
        self._bytes -= _size(self._kept.pop(key))


def _size(kept: tuple[int, History | None] | None) -> int:
    if kept is None:
        return 0
    history = kept[1]
    if history is None:
        return _OVERHEAD
    return _OVERHEAD + history.phi_ND.nbytes + history.arm_N.nbytes + history.reward_N.nbytes
