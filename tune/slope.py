"""The choice of a clip, a switch or a shrinkage from the log itself: SLOPE (Su, Srinath, Krishnamurthy 2020).

Candidates stand in the order of growing bias and shrinking variance, from no clipping on. Around each value lies an
interval of twice its deviation bound. The choice is the last candidate up to which all intervals share a point: while
they do, what clipping changed may be noise. Its error is within a constant factor of the best candidate's.
"""

from collections.abc import Sequence

import numpy as np

from tune.terms import Method

CLIPS = (np.inf, 1_000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Greatest weights tried."""


def grid(method: Method) -> tuple[float, ...]:
    """Parameters tried, least bias first: the clips; for dros λ = (2·clip)², whose greatest weight √λ/2 is the clip;
    the doubly robust ones end at 0, which is dm."""
    if method == "clipped_ips":
        return CLIPS
    return (*CLIPS, 0.0) if method == "switch_dr" else (*((2 * clip) ** 2 for clip in CLIPS), 0.0)


def choose(values: Sequence[float], deviations: Sequence[float]) -> int:
    """The place of SLOPE's choice among values in the order of growing bias; `deviations` bound their noise."""
    low, high = -np.inf, np.inf
    for place, (value, deviation) in enumerate(zip(values, deviations, strict=True)):
        low, high = max(low, value - 2 * deviation), min(high, value + 2 * deviation)
        if low > high:
            return place - 1
    return len(values) - 1
