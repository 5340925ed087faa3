"""Situations of the marketplace: who comes when, with what in mind, to choose from what.

Shapes: N situations, K candidates, R recent items, U users, I items.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.marketplace.people import DEVICES, People
from cluster.marketplace.wares import Wares
from cluster.records import EVENTS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RECENT_ITEMS = 10
SESSION_S = 1_800.0
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@dataclass(frozen=True)
class Situations:
    """N situations; recent_NR, latest last, and candidates_NK hold item indices, -1 pads. Times are seconds since
    1970."""

    user_N: Ints
    time_N: Floats
    device_N: Ints
    recent_NR: Ints
    candidates_NK: Ints

    def __len__(self) -> int:
        return len(self.user_N)

    @property
    def hour_N(self) -> Ints:
        return np.asarray(self.time_N % 86_400 // 3_600, np.int64)

    @property
    def weekday_N(self) -> Ints:
        return np.asarray((self.time_N // 86_400 + 3) % 7, np.int64)  # 1 January 1970 was a Thursday

    def last(self) -> Ints:
        """The item seen last, -1 where none was."""
        if not self.recent_NR.shape[1]:
            return np.full(len(self), -1)
        count_N = (self.recent_NR >= 0).sum(axis=1)
        return np.where(count_N > 0, self.recent_NR[np.arange(len(self)), count_N - 1], -1)

    def take(self, rows: Ints) -> "Situations":
        return Situations(
            self.user_N[rows], self.time_N[rows], self.device_N[rows], self.recent_NR[rows], self.candidates_NK[rows]
        )


def moments(rng: np.random.Generator, n: int, start_s: float, end_s: float) -> Floats:
    """N times in order; three times as many come at 18:00 as at 6:00 (UTC)."""
    edges = np.linspace(start_s, end_s, 1 + max(1, int((end_s - start_s) // 3_600)))
    hour = (edges[:-1] + edges[1:]) / 2 % 86_400 / 3_600
    total = (2.0 + np.cos(2 * np.pi * (hour - 18.0) / 24)).cumsum()
    hour_N = np.searchsorted(total, rng.random(n) * total[-1], side="right")
    return np.sort(edges[hour_N] + rng.random(n) * (edges[1] - edges[0]))


def pick(rng: np.random.Generator, activity_U: Floats, start_U: Floats, share_N: Floats) -> Ints:
    """A user for each moment, by activity, among those who have come by then (start_U <= share_N)."""
    order = np.argsort(start_U, kind="stable")
    total_U = activity_U[order].cumsum()
    here_N = np.maximum(np.searchsorted(start_U[order], share_N, side="right"), 1)
    place_N = np.searchsorted(total_U, rng.random(len(share_N)) * total_U[here_N - 1], side="right")
    return np.asarray(order[place_N], np.int64)


def browse(rng: np.random.Generator, user_N: Ints, cdf_UI: Floats) -> Ints:
    """[N, R] the last ten distinct items, of the last twenty looks, of each situation's user, latest last.

    Users look at 0 to 2 items between two situations and have looked at 0 to 10 before the first. What they look
    at follows cdf_UI.
    """
    n, (users, items) = len(user_N), cdf_UI.shape
    order = np.argsort(user_N, kind="stable")
    first = np.diff(user_N[order], prepend=-1) != 0
    looked = np.where(first, rng.integers(RECENT_ITEMS + 1, size=n), rng.integers(3, size=n))
    end = looked.cumsum()
    begin = np.maximum.accumulate(np.where(first, end - looked, 0))
    who = np.repeat(user_N[order], looked)
    flat_cdf = (cdf_UI + np.arange(users)[:, None]).ravel()
    draws = np.searchsorted(flat_cdf, who + rng.random(len(who)), side="right") - who * items
    draws = np.append(np.clip(draws, 0, items - 1), -1)
    at = end[:, None] - 1 - np.arange(2 * RECENT_ITEMS)  # latest first
    window = np.where(at >= begin[:, None], draws[np.maximum(at, 0)], -1)
    seen_later = (window[:, :, None] == window[:, None, :]) & np.tri(window.shape[1], k=-1, dtype=bool)
    keep = (window >= 0) & ~seen_later.any(axis=2)
    rank = np.where(keep, keep.cumsum(axis=1), 0)
    count = np.minimum(keep.sum(axis=1), RECENT_ITEMS)
    recent = np.full((n, RECENT_ITEMS), -1, np.int64)
    rows, columns = np.nonzero(keep & (rank <= RECENT_ITEMS))
    recent[rows, count[rows] - rank[rows, columns]] = window[rows, columns]
    found = np.empty_like(recent)
    found[order] = recent
    return found


def table(
    situations: Situations,
    people: People,
    wares: Wares,
    column_N: Ints,
    position_N: Ints | None,
    propensity_N: Floats,
    reward_N: Floats,
) -> pa.Table:
    """EVENTS of decided situations; event ids count within the log."""
    n = len(situations)
    ids = pa.array(wares.ids())
    there_NK = situations.candidates_NK >= 0
    offsets = np.concatenate([[0], there_NK.sum(axis=1).cumsum()]).astype(np.int32)
    columns = {
        "event_id": [f"event-{i}" for i in range(n)],
        "timestamp": pa.array((situations.time_N * 1e6).astype(np.int64)).cast(EVENTS.field("timestamp").type),
        "client_id": pa.array([f"client-{c}" for c in range(people.clients)]).take(
            pa.array(people.client_U[situations.user_N])
        ),
        "user_id": pa.array(people.ids()).take(pa.array(situations.user_N)),
        "session_id": _sessions(situations),
        "context": contexts(situations, people, wares),
        "candidates": pa.ListArray.from_arrays(
            pa.array(offsets), ids.take(pa.array(situations.candidates_NK[there_NK]))
        ),
        "item_id": ids.take(pa.array(situations.candidates_NK[np.arange(n), column_N])),
        "position": position_N,
        "propensity": propensity_N,
        "reward": reward_N,
        "reward_kind": pa.repeat("reward", n),
    }
    return pa.table(
        [pa.nulls(n, f.type) if columns.get(f.name) is None else pa.array(columns[f.name], f.type) for f in EVENTS],
        schema=EVENTS,
    )


def _sessions(situations: Situations) -> pa.Array:
    """A user's situations less than half an hour apart are one session."""
    order = np.lexsort((situations.time_N, situations.user_N))
    fresh = np.diff(situations.user_N[order], prepend=-1) != 0
    fresh |= np.diff(situations.time_N[order], prepend=-np.inf) > SESSION_S
    number = np.empty(len(order), np.int64)
    number[order] = fresh.cumsum()
    return pa.array(np.char.add("session-", number.astype(str)), pa.string())


def contexts(situations: Situations, people: People, wares: Wares) -> pa.Array:
    """Arrow maps of JSON text (records): device, hour, weekday, member, recent."""
    names = ("device", "hour", "weekday", "member", "recent")
    user_N = situations.user_N
    values = [
        _words(DEVICES, situations.device_N),
        _words(range(24), situations.hour_N),
        _words(WEEKDAYS, situations.weekday_N),
        _words((False, True), people.member_U[user_N].astype(np.int64)),
        _lists(wares.ids(), situations.recent_NR),
    ]
    n, x = len(situations), len(names)
    flat = np.stack([np.asarray(v.to_numpy(zero_copy_only=False), object) for v in values], axis=1).ravel()
    keys = pa.array(names).take(pa.array(np.tile(np.arange(x), n)))
    return pa.MapArray.from_arrays(pa.array(np.arange(n + 1, dtype=np.int32) * x), keys, pa.array(flat, pa.string()))


def _words(values: Iterable[object], code_N: Ints) -> pa.Array:
    return pa.array([json.dumps(value) for value in values]).take(pa.array(code_N))


def _lists(ids: list[str], recent_NR: Ints) -> pa.Array:
    return pa.array([json.dumps([ids[i] for i in row if i >= 0]) for row in recent_NR.tolist()], pa.string())
