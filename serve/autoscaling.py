"""How many replicas a deployment should have: a pure function of queue, latency, learning lag and time.

Ray pickles this module by value into its controller: standard library only.

Procedure. Each look makes two needs and takes the greater one, within the bounds.

1. Queue: load / `TARGET`, rounded up. The load is the replicas' own count of contexts in work, where they report
   one, else Serve's count of ongoing requests.
2. Latency: one replica more than there are, where the 95th percentile of calls is above `target_p95_ms` and every
   replica has work to do (a slow disk or database is not helped by idle replicas). After each such step the next
   one waits `SETTLE_S`, until the percentile is of calls since then. While it is above three quarters of the target
   no replica is given up.
3. Learning lag: while the learner is more than `LAG_S` behind, latency asks for nothing. More replicas give a learner
   more outcomes and less of the machine; a queue is served all the same, because callers come first.

Going up is done at once. Going down waits until every look of the last `down_after_s` needed fewer, and then goes to
the most that any of them needed, so that a short pause costs no replica.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TARGET = 8.0
SETTLE_S = 20.0
DOWN_AFTER_S = 30.0
LAG_S = 30.0
_HOLD = 0.75


@dataclass(frozen=True)
class Signals:
    """What the replicas report: contexts in work over all, the worst p95 of calls, how far learning is behind."""

    load: float
    p95_ms: float = 0.0
    lag_s: float = 0.0


@dataclass(frozen=True)
class Memory:
    """What a look leaves to the next: (time, replicas needed) of the looks in the window, the last step for latency."""

    looks: tuple[tuple[float, int], ...] = ()
    stepped_at: float = -math.inf


def wanted(
    signals: Signals,
    replicas: int,
    least: int,
    most: int,
    now: float,
    memory: Memory,
    target_p95_ms: float = math.inf,
    down_after_s: float = DOWN_AFTER_S,
) -> tuple[int, Memory]:
    """Replicas to have, and what to remember.

    Args:
        replicas: the number aimed for now.
        least, most: bounds.
        now: seconds of any monotone clock.
        memory: of the look before.
        target_p95_ms: latency above which replicas are added.
        down_after_s: seconds of lower need before replicas are given up.
    """
    step = _slow(signals, replicas, target_p95_ms) and replicas < most and now - memory.stepped_at >= SETTLE_S
    stepped_at = now if step else memory.stepped_at
    by_queue = math.ceil(signals.load / TARGET)
    by_latency = replicas + 1 if step else replicas if signals.p95_ms > _HOLD * target_p95_ms else 0
    need = min(max(by_queue, by_latency, least), most)
    looks = _window((*memory.looks, (now, need)), now, down_after_s)
    if need < replicas:
        full = now - looks[0][0] >= down_after_s
        need = min(replicas, most, max(number for _, number in looks) if full else replicas)
    return need, Memory(looks, stepped_at)


def _slow(signals: Signals, replicas: int, target_p95_ms: float) -> bool:
    return signals.p95_ms > target_p95_ms and signals.load >= replicas and signals.lag_s <= LAG_S


def _window(looks: Sequence[tuple[float, int]], now: float, length_s: float) -> tuple[tuple[float, int], ...]:
    """The looks of the last `length_s`, and one from before it, which shows that it is full."""
    first = 0
    while first + 1 < len(looks) and now - looks[first + 1][0] >= length_s:
        first += 1
    return tuple(looks[first:])


class Policy:
    """Ray Serve's AutoscalingPolicy around `wanted`.

    Args:
        target_p95_ms, down_after_s: as in `wanted`; without the first the queue alone is looked at.
    """

    def __init__(self, target_p95_ms: float | None = None, down_after_s: float = DOWN_AFTER_S) -> None:
        self._target_p95_ms = math.inf if target_p95_ms is None else target_p95_ms
        self._down_after_s = down_after_s

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        number, memory = wanted(
            _signals(ctx),
            ctx.target_num_replicas,
            ctx.capacity_adjusted_min_replicas,
            ctx.capacity_adjusted_max_replicas,
            float(ctx.current_time or 0.0),
            ctx.policy_state.get("memory", Memory()),
            self._target_p95_ms,
            self._down_after_s,
        )
        return number, {"memory": memory}


def _signals(ctx: Any) -> Signals:
    reported = ctx.aggregated_metrics or {}
    in_work = reported.get("contexts_in_work")
    return Signals(
        float(sum(in_work.values())) if in_work else float(ctx.total_num_requests or 0.0),
        max((reported.get("p95_ms") or {}).values(), default=0.0),
        max((reported.get("lag_s") or {}).values(), default=0.0),
    )
