"""How much each feature matters to a Gaussian kernel: automatic relevance determination.

The scales s_R of k(x, y) = exp(−|s∘(x − y)|²/2) that maximise the marginal likelihood of rewards (Rasmussen & Williams
2006, §5.1, gradient 5.9) and the log-normal prior log s_r² ~ N(0, 1/TIGHT), with amplitude and noise, by resilient
steps (Riedmiller & Braun 1993). Rewards of items with parameters of their own tell nothing of each other.

Shapes: N rows, R features.
"""

import numpy as np

from actors.features.features import Floats

STEPS = 25
TIGHT = 4.0
"""Precision of the prior: a factor of more than 2 or less than a half asks for evidence."""
LEAST_STEP, FIRST_STEP, MOST_STEP = 1e-3, 0.3, 0.7
LEAST_VARIANCE = 1e-3
NOISE = 0.3
"""Where the noise starts, a share of the amplitude."""
BOUNDS = (-7.0, 4.0)
"""Of the logs of amplitude and noise."""


def relevance(x_NR: Floats, reward_N: Floats, alike_NN: Floats) -> Floats:
    """The factors s_R of these features.

    Args:
        x_NR: rows at the scale that the kernel has where all features matter alike.
        reward_N: of mean 0.
        alike_NN: what a row's reward says of another's where their contexts are the same, from −1 to 1.
    """
    place = np.zeros(x_NR.shape[1] + 2)
    place[-2:] = np.log(max(float(reward_N.var()), LEAST_VARIANCE)), np.log(NOISE)
    step, last = np.full(len(place), FIRST_STEP), np.zeros(len(place))
    best, found = -np.inf, place
    for _ in range(STEPS):
        try:
            value, slope = _evidence(place, x_NR, reward_N, alike_NN)
        except np.linalg.LinAlgError:  # rows that repeat, and next to no noise: what was found before holds
            break
        if value > best:
            best, found = value, place
        turned = np.sign(slope) * np.sign(last)
        step = np.clip(step * np.where(turned > 0, 1.3, np.where(turned < 0, 0.5, 1.0)), LEAST_STEP, MOST_STEP)
        last = np.where(turned < 0, 0.0, slope)
        place = place + np.sign(last) * step
        place[-2:] = np.clip(place[-2:], *BOUNDS)
    return np.asarray(np.exp(0.5 * found[:-2]))


def _evidence(place: Floats, x_NR: Floats, reward_N: Floats, alike_NN: Floats) -> tuple[float, Floats]:
    """The log posterior of `place` (log s², log amplitude, log noise over amplitude), and its gradient."""
    weight_R, (amplitude, noise) = np.exp(place[:-2]), np.exp(place[-2:])
    prior_NN = amplitude * np.exp(-0.5 * _squared(x_NR * np.sqrt(weight_R))) * alike_NN
    whole_NN = prior_NN + amplitude * noise * np.eye(len(reward_N))
    root_NN = np.linalg.cholesky(whole_NN)
    inverse_NN = np.linalg.inv(whole_NN)
    told_N = inverse_NN @ reward_N
    value = -0.5 * float(reward_N @ told_N + TIGHT * place[:-2] @ place[:-2]) - float(np.log(np.diag(root_NN)).sum())
    pull_NN = np.outer(told_N, told_N) - inverse_NN
    pulled_NN = pull_NN * prior_NN
    apart_R = 2 * (pulled_NN.sum(axis=1) @ x_NR**2 - np.einsum("nr,nr->r", x_NR, pulled_NN @ x_NR))
    own = (0.5 * float((pull_NN * whole_NN).sum()), 0.5 * amplitude * noise * float(np.trace(pull_NN)))
    return value, np.append(-0.25 * apart_R * weight_R - TIGHT * place[:-2], own)


def _squared(x_NR: Floats) -> Floats:
    """Squared distances of all rows, (N, N)."""
    square_N = (x_NR**2).sum(axis=1)
    return np.asarray(np.maximum(square_N[:, None] + square_N - 2 * x_NR @ x_NR.T, 0.0))
