"""The choice of a clip, a switch or a shrinkage from the log itself, after SLOPE (Su, Srinath, Krishnamurthy 2020).

Candidates stand in the order of growing bias and shrinking variance, from no clipping on. The choice is the last one
up to which every candidate agrees with all that have less bias: while they agree, what clipping changed may be noise.
SLOPE compares two candidates by the sum of their deviation bounds; the same events make both, so that here the standard
error of their difference, by user, stands in its place. (With the sum, ips was clipped until its error doubled.)

Shapes: C candidates, U users.
"""

import numpy as np

from actors.features.features import Floats
from tune.offpolicy.terms import Method

CLIPS = (np.inf, 1_000.0, 300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""Greatest weights tried."""
TOLERANCE = float(np.sqrt(2.0))
"""Standard errors that two candidates may differ by: beyond, bias squared outweighs the variance saved (Mallows)."""


def grid(method: Method) -> tuple[float, ...]:
    """Parameters tried, least bias first: the clips; for dros λ = (2·clip)², whose greatest weight √λ/2 is the clip;
    the doubly robust ones end at 0, which is dm."""
    if method == "clipped_ips":
        return CLIPS
    return (*CLIPS, 0.0) if method == "switch_dr" else (*((2 * clip) ** 2 for clip in CLIPS), 0.0)


def choose(linear_CU: Floats, values_C: Floats) -> int:
    """The place of the choice among candidates in the order of growing bias.

    Args:
        linear_CU: what each user moves each value by, of mean 0 (tune.offpolicy.intervals.linear).
    """
    users = linear_CU.shape[1]
    gap_CC = np.abs(values_C[:, None] - values_C)
    product_CC = linear_CU @ linear_CU.T / (users * max(users - 1, 1))
    square_CC = np.diag(product_CC)[:, None] + np.diag(product_CC) - 2 * product_CC
    agree_CC = gap_CC <= TOLERANCE * np.sqrt(np.maximum(square_CC, 0.0)) + 1e-12
    together_C = [bool(agree_CC[place, :place].all()) for place in range(len(values_C))]
    return together_C.index(False) - 1 if False in together_C else len(values_C) - 1
