"""How many replicas a deployment should have: a pure function of its load and the time.

Ray pickles this module by value into its controller: standard library only.

Procedure: the load is the replicas' own count of contexts in work, where they report one (`contexts_in_work`),
else Serve's count of ongoing requests. The wanted number is load / target, rounded up. Going up is done at
once. Going down waits until every look of the last `down_after_s` wanted fewer, and then goes to the most
that any of them wanted, so that a short pause costs no replica.
"""

import math
from collections.abc import Sequence
from typing import Any

TARGET = 8.0
DOWN_AFTER_S = 30.0


def wanted(
    load: float,
    replicas: int,
    least: int,
    most: int,
    now: float,
    looks: Sequence[tuple[float, int]],
    target: float = TARGET,
    down_after_s: float = DOWN_AFTER_S,
) -> tuple[int, list[tuple[float, int]]]:
    """Replicas to have, and the looks to remember.

    Args:
        load: contexts (or requests) in work over all replicas.
        replicas: the number aimed for now.
        least, most: bounds.
        now: seconds of any monotone clock.
        looks: (time, number wanted) of the looks before.
        target: load that one replica should carry.
        down_after_s: seconds of lower demand before replicas are given up.
    """
    need = min(max(math.ceil(load / target), least), most)
    kept = [*looks, (now, need)]
    while len(kept) > 1 and now - kept[1][0] >= down_after_s:  # one look from before the window stays
        kept.pop(0)
    if need >= replicas:
        return need, kept
    if now - kept[0][0] < down_after_s:
        return min(replicas, most), kept
    return min(replicas, max(number for _, number in kept)), kept


def policy(ctx: Any) -> tuple[int, dict[str, Any]]:
    """Ray Serve's AutoscalingPolicy function around `wanted`."""
    reported = ctx.aggregated_metrics.get("contexts_in_work") if ctx.aggregated_metrics else None
    load = float(sum(reported.values())) if reported else float(ctx.total_num_requests or 0.0)
    number, looks = wanted(
        load,
        ctx.target_num_replicas,
        ctx.capacity_adjusted_min_replicas,
        ctx.capacity_adjusted_max_replicas,
        float(ctx.current_time or 0.0),
        [(at, n) for at, n in ctx.policy_state.get("looks", [])],
    )
    return number, {"looks": looks}
