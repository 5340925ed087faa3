"""What users were shown lately: read from the journal, and kept so that the next look reads what is new."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cluster.journal.journal import Shown

_USERS = 20_000


@dataclass(frozen=True)
class _Kept:
    """rows: of the last within_s seconds, in order; all later ones have a greater seq."""

    within_s: float
    rows: tuple[Shown, ...]
    seq: int


class Seen:
    """Exact for what was committed before the look, by whichever replica; safe in several threads.

    Args:
        read: `journal.Reader.shown`.
        clock: server time, seconds.
        users: kept at most, the most recently asked for.
    """

    def __init__(
        self,
        read: Callable[[str, str, float, int], list[Shown]],
        clock: Callable[[], float] = time.time,
        users: int = _USERS,
    ) -> None:
        self._read = read
        self._clock = clock
        self._users = users
        self._kept: OrderedDict[tuple[str, str], _Kept] = OrderedDict()
        self._lock = threading.Lock()

    def items(self, client: str, user: str, within_s: float) -> frozenset[str]:
        """What the user was shown within so many seconds. It asks the journal.

        Raises:
            JournalError: the journal cannot be read.
        """
        now = self._clock()
        with self._lock:
            kept = self._kept.get((client, user))
        if kept is None or kept.within_s < within_s:
            kept = _Kept(within_s, (), 0)
        since = now - kept.within_s
        new = self._read(client, user, since, kept.seq)
        rows = tuple(row for row in kept.rows if row.at >= since) + tuple(new)
        self._keep((client, user), _Kept(kept.within_s, rows, new[-1].seq if new else kept.seq))
        return frozenset(item for row in rows if row.at >= now - within_s for item in row.item_ids)

    def _keep(self, key: tuple[str, str], kept: _Kept) -> None:
        with self._lock:
            self._kept[key] = kept
            self._kept.move_to_end(key)
            while len(self._kept) > self._users:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)
