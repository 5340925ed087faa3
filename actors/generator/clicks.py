"""Clicks: how the variance of a reward follows its mean where a linear model gives the mean.

Var r = σ² max(m(1 − m), least). A linear model puts means of rare clicks near 0 or below it, where in truth some do
come; believed to be almost certain, such rows read as users who differ, and the prior becomes too wide.

Shapes: N rows.
"""

import numpy as np

from actors.features.features import Floats

LEAST = np.geomspace(0.0025, 0.25, 21)
"""From clicks of one in 400 to a variance that is the same for all."""


def least_variance(mean_N: Floats, reward_N: Floats) -> float:
    """The one of `LEAST` under which the rewards have the greatest Gaussian likelihood, σ² at its best for each.

    Args:
        mean_N: predictions by a model that has not seen these rewards (cross-fitted).
    """
    inside_N = np.clip(mean_N, 0.0, 1.0)
    binomial_N, square_N = inside_N * (1 - inside_N), (reward_N - mean_N) ** 2
    losses = []
    for least in LEAST:
        variance_N = np.maximum(binomial_N, least)
        losses.append(np.log(max((square_N / variance_N).mean(), 1e-12)) + np.log(variance_N).mean())
    return float(LEAST[int(np.argmin(losses))])
