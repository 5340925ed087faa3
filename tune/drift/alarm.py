"""Evidence for a change, looked at as often as one likes, with so many false alarms a year.

A look gives every signal a number z, which is a sum over users of mean 0 or less and variance 1 or less while nothing
has changed. A change at look j would make it greater from then on, so exp(Σ_{i>=j} (λz_i − ψ_i(λ))) is evidence for
it: at most 1 in expectation without a change, whenever one stops (Ville 1939), where no user's part of z is above h and

    ψ(λ) = (exp(λh) − 1 − λh)/h²        (Bennett 1962; λ²/2, the normal's, at h = 0)

Nobody knows j, λ and the signal, so the evidence is their mean, each start weighted by the share of a year that passed
since the one before (an e-detector: Shin, Ramdas & Rinaldo 2023, arXiv:2203.03532, with weights in time):

    R_t = (R_{t−1} + w_t) · exp(λz_t − ψ_t(λ)),   alarm where the mean of R_t is 1/alpha or more.

R is a non-negative submartingale without a change, of mean at most the years that it was watched, so that
P(an alarm in a year) <= alpha (Doob's inequality), however many looks are taken.

Shapes: S signals, L sizes of a change, T looks.
"""

from typing import NamedTuple

import numpy as np

from actors.features.features import Floats

YEAR_S = 365.25 * 86_400.0
SIZES_L = np.array([0.25, 0.5, 1.0, 2.0])
"""λ, the sizes of a change that it is best at, in standard deviations of a look."""
MOST = 1e100
"""Evidence is counted no further."""


class Evidence:
    """Signals watched together: R, and the looks so far for the estimate of when it began."""

    def __init__(self, signals: int) -> None:
        self._sums_SL = np.zeros((signals, len(SIZES_L)))
        self._growth: list[Floats] = []
        self._weights: list[float] = []

    def look(self, z_S: Floats, largest_S: Floats, passed_s: float) -> Floats:
        """Take in a look; returns each signal's part of the mean evidence, (S,): their sum, or any alone, may alarm.

        Args:
            largest_S: h, the greatest part that one user can have of each z.
            passed_s: seconds between the two looks before this one, a start's weight; must be known before the look.
        """
        weight = passed_s / YEAR_S
        self._growth.append(_growth(z_S, largest_S))
        self._weights.append(weight)
        self._sums_SL = np.minimum((self._sums_SL + weight) * np.exp(self._growth[-1]), MOST)
        return np.asarray(self._sums_SL.sum(axis=1) / self._sums_SL.size)

    def since(self, level: float = 0.95) -> "Since":
        """When what the evidence speaks of began."""
        onward_TSL = np.cumsum(np.stack(self._growth)[::-1], axis=0)[::-1]
        with np.errstate(divide="ignore"):
            log_T = np.logaddexp.reduce(onward_TSL, axis=(1, 2)) + np.log(self._weights)
        share_T = np.exp(log_T - log_T.max())
        order = np.argsort(-share_T, kind="stable")
        enough = int(np.searchsorted(np.cumsum(share_T[order]) / share_T.sum(), level)) + 1
        inside = order[:enough]
        return Since(int(order[0]), int(inside.min()), int(inside.max()))


class Since(NamedTuple):
    """The look at which a change most likely began, and the first and last of those that hold 95 % of the evidence."""

    look: int
    first: int
    last: int


def _growth(z_S: Floats, largest_S: Floats) -> Floats:
    """λz − ψ(λ), (S, L)."""
    reach_SL = np.maximum(largest_S, 1e-3)[:, None] * SIZES_L
    return np.asarray(z_S[:, None] * SIZES_L - SIZES_L**2 * (np.expm1(reach_SL) - reach_SL) / reach_SL**2)
