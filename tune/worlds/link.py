"""From a linear prediction to a mean reward inside its range.

    mean = low + (high − low)·σ(a + b·prediction)

Cutting a linear prediction off at the ends of the range would raise every mean where most rewards are low. a and b are
fitted by logistic quasi-likelihood on predictions of rows left out (Platt 1999; Papke & Wooldridge 1996), with b drawn
to where the curve is as steep as the prediction itself at the mean reward.

Shapes: N rows, K items.
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from actors.features.features import Floats
from tune.worlds.levels import Levels

TRUST = 4.0
"""Weight of the prior: the slope's own standard deviation before any data is half of itself."""
STEPS = 50


@dataclass(frozen=True)
class Link:
    low: float
    span: float
    shift: float
    slope: float

    @classmethod
    def fit(cls, predicted_N: Floats, reward_N: Floats, levels: Levels) -> "Link":
        """Newton's method; one reward everywhere gives one mean everywhere."""
        low, span = float(levels.value_V[0]), float(levels.value_V[-1] - levels.value_V[0])
        if span == 0:
            return cls(low, 0.0, 0.0, 0.0)
        share_N = (reward_N - low) / span
        mean = float(share_N.mean())
        usual = 1 / (span * mean * (1 - mean))
        x_N2 = np.stack([np.ones(len(share_N)), usual * (predicted_N - predicted_N.mean())], axis=1)
        theta_2 = np.array([special.logit(mean), 1.0])
        for _ in range(STEPS):
            p_N = special.expit(x_N2 @ theta_2)
            pull_2 = x_N2.T @ (share_N - p_N) - TRUST * np.array([0.0, theta_2[1] - 1])
            curve_22 = (x_N2 * (p_N * (1 - p_N))[:, None]).T @ x_N2 + np.diag([1e-9, TRUST])
            step_2 = np.linalg.solve(curve_22, pull_2)
            theta_2 = theta_2 + step_2 * min(1.0, 1.0 / float(np.abs(step_2).max(initial=1e-12)))
            if np.abs(step_2).max() < 1e-10:
                break
        slope = float(theta_2[1]) * usual
        return cls(low, span, float(theta_2[0]) - slope * float(predicted_N.mean()), slope)

    def __call__(self, predicted_K: Floats) -> Floats:
        return np.asarray(self.low + self.span * special.expit(self.shift + self.slope * predicted_K))
