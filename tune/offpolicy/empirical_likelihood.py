"""Bounds by empirical likelihood with the Cressie-Read divergence of power −2, by user.

Karampatziakis, Langford & Mineiro 2020, "Empirical likelihood for contextual bandits". Which values v of the policy
are told apart from the data by no reweighting Q of the users near enough to the sample? Q must give weights their known
mean, Σ_Q(ρ − 1) = 0, and v its own, Σ_Q(ρr − vn) = 0. One user beside the sample, whose events have the least or the
greatest weight that can be and reward 0 or 1, stands for what the log did not happen to show, so that the bounds hold
what is missing when the weights seen do not average 1. Power −2 has a closed form: Q is near where the squared distance
of the means from 0, in units of their covariance, exceeds its least over v by at most an F quantile.

With one event a user this is the paper's interval. Shapes: U users, here with one more.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from actors.features.features import Floats
from cluster.errors import EvidenceError
from cluster.statistics import Interval
from tune.offpolicy.totals import Sums


def cressie_read(sums: Sums, alpha: float = 0.05) -> Interval:
    """Value and bounds of a policy from its sums of ρr; rewards in [0, 1].

    The value is what the likeliest Q of the users seen says: ips, less what Σρ − n explains of it. Weights are taken to
    lie between 0 and 1 / the least logged propensity.

    Raises:
        EvidenceError: the sums are of another method, or the log has no propensities.
    """
    if sums.method not in ("ips", "cressie_read") or sums.ratio_U is None:
        raise EvidenceError("Cressie-Read bounds need the sums of ips and propensities; map the column that holds them")
    users = len(sums.count_U)
    faked = {weight: _Sample.of(sums, weight) for weight in (0.0, sums.largest)}
    nearest = min(faked.values(), key=lambda sample: sample.misfit)
    limit = float(special.fdtri(1, users, 1 - alpha)) + nearest.misfit
    ends = [sample.ends(reward, limit) for sample in faked.values() for reward in (0.0, 1.0)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    (above, below), _ = _regressed(nearest.rows_U3[:-1])
    low, high = max(0.0, low), min(1.0, high)
    return Interval(float(np.clip(above / below, low, high)), low, high)


@dataclass(frozen=True)
class _Sample:
    """The users and one more: means and covariances of (Σρr, n) of a user after regression on Σρ − n.

    weight: of each event of the user that was added; its reward is still free. misfit: squared distance of the mean of
    Σρ − n from 0.
    """

    rows_U3: Floats
    weight: float
    misfit: float

    @classmethod
    def of(cls, sums: Sums, weight: float) -> "_Sample":
        assert sums.ratio_U is not None
        each = float(sums.count_U.mean())
        rows_U3 = np.stack([sums.above_U, sums.count_U, sums.ratio_U - sums.count_U], axis=1)
        rows_U3 = np.vstack([rows_U3, [0.0, each, each * (weight - 1)]])
        spread = float(rows_U3[:, 2].var())
        mean = float(rows_U3[:, 2].mean())
        return cls(rows_U3, weight, len(rows_U3) * mean**2 / spread if spread > 0 else 0.0)

    def ends(self, reward: float, limit: float) -> tuple[float, float]:
        """Least and greatest v within the limit; empty (∞, −∞) where no Q is near enough."""
        rows_U3 = self.rows_U3.copy()
        rows_U3[-1, 0] = self.weight * reward * rows_U3[-1, 1]
        (above, below), spread_22 = _regressed(rows_U3)
        scale = (limit - self.misfit) / len(self.rows_U3)
        if scale < 0:
            return np.inf, -np.inf
        (saa, sab), (_, sbb) = scale * spread_22
        square, half = below**2 - sbb, above * below - sab
        if square <= 0:
            return 0.0, 1.0
        root = float(np.sqrt(max(half**2 - square * (above**2 - saa), 0.0)))
        return float((half - root) / square), float((half + root) / square)


def _regressed(rows_U3: Floats) -> tuple[Floats, Floats]:
    mean_3, spread_33 = rows_U3.mean(0), np.cov(rows_U3.T, bias=True)
    slope_2 = spread_33[:2, 2] / spread_33[2, 2] if spread_33[2, 2] > 0 else np.zeros(2)
    return mean_3[:2] - slope_2 * mean_3[2], spread_33[:2, :2] - np.outer(slope_2, spread_33[:2, 2])
