"""Context codes: the language model's states in a few dimensions, and their numeric stand-in.

The head, the prototypes and the mixture use the first principal components of c. In a decision no language
model runs: a ridge regression from the feature map's context features gives the same code, with NumPy alone.
Without a language model (`generator.reader: numeric`) those features are the states, and the encoder is the code.

Shapes: N contexts, H hidden width, Q code dimensions, X context features.
"""

from dataclasses import dataclass

import numpy as np

from actors.features.features import Floats

FLOOR = 0.1


@dataclass(frozen=True)
class ContextMap:
    """code = (c - mean_H) @ turn_HQ; encoder_QX @ context_X approximates it.

    fit: share of the codes' variance that the encoder explains on the contexts it was fitted on.
    """

    mean_H: Floats
    turn_HQ: Floats
    encoder_QX: Floats
    fit: float

    @classmethod
    def of(cls, states_NH: Floats, context_NX: Floats, rank: int) -> "ContextMap":
        """Principal components, each scaled to unit variance (weak ones by a tenth of the strongest at least)."""
        states = states_NH.astype(np.float64)
        mean_H = states.mean(0)
        _, values, right = np.linalg.svd(states - mean_H, full_matrices=False)
        values = values[:rank] / np.sqrt(len(states))
        kept = max(int((values > 1e-8 * max(float(values[0]), 1e-8)).sum()), 1)
        scale = np.maximum(values[:kept], max(FLOOR * values[0], 1e-12))
        turn_HQ = right[:kept].T / scale
        code_NQ = (states - mean_H) @ turn_HQ
        return cls(mean_H, turn_HQ, *encoder(context_NX, code_NQ))

    @classmethod
    def numeric(cls, context_NX: Floats, rank: int) -> "ContextMap":
        """Principal components of the standardised context features themselves: the encoder is exact.

        An encoder has no constant, so the codes are centred by what of a constant the features can say.
        """
        spread_X = context_NX.std(0) if len(context_NX) else np.zeros(context_NX.shape[1])
        if not (spread_X > 1e-12).any():
            return cls(np.zeros(len(spread_X)), np.zeros((len(spread_X), 1)), np.zeros((1, len(spread_X))), 1.0)
        scale_X = np.where(spread_X > 1e-12, 1 / np.maximum(spread_X, FLOOR), 0.0)
        centred = cls.of(context_NX * scale_X, context_NX, rank)
        turn_XQ = scale_X[:, None] * centred.turn_HQ
        constant_X = ridge(context_NX, np.ones((len(context_NX), 1)))[0]
        turn_XQ = turn_XQ - np.outer(constant_X, centred.mean_H @ centred.turn_HQ)
        return cls(np.zeros(len(turn_XQ)), turn_XQ, turn_XQ.T.copy(), 1.0)

    def codes(self, states_NH: Floats) -> Floats:
        result: Floats = (states_NH.astype(np.float64) - self.mean_H) @ self.turn_HQ
        return result


def encoder(context_NX: Floats, code_NQ: Floats) -> tuple[Floats, float]:
    """encoder_QX from context features to codes, and the share of the codes' variance that it explains there."""
    encoder_QX = ridge(context_NX, code_NQ)
    left = ((code_NQ - context_NX @ encoder_QX.T) ** 2).sum() / max((code_NQ**2).sum(), 1e-12)
    return encoder_QX, float(1 - left)


def ridge(inputs_NX: Floats, targets_NQ: Floats) -> Floats:
    """Coefficients (Q, X) of a ridge regression; its penalty, from a grid, has the least generalised
    cross-validation error (Golub, Heath & Wahba 1979). Without features (no column of a context tells rows
    apart) there are none: every code is 0, and the history alone speaks."""
    if not inputs_NX.size:
        return np.zeros((targets_NQ.shape[1], inputs_NX.shape[1]))
    left, values, right = np.linalg.svd(inputs_NX, full_matrices=False)
    turned = left.T @ targets_NQ
    outside = (targets_NQ**2).sum() - (turned**2).sum()
    count, best, best_error = len(inputs_NX), 0.0, np.inf
    for penalty in np.logspace(-4, 3, 15) * max(float(values[0]) ** 2, 1e-12) / max(count, 1):
        shrink = values**2 / (values**2 + penalty)
        error = outside + (((1 - shrink)[:, None] * turned) ** 2).sum()
        freedom = max(1 - shrink.sum() / count, 1e-6)
        if error / freedom**2 < best_error:
            best, best_error = penalty, error / freedom**2
    result: Floats = ((values / (values**2 + best))[:, None] * turned).T @ right
    return result
