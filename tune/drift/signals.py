"""What a look compares: rewards and contexts of a block with what the blocks before it led to expect.

Every expectation is made before the block is seen. What learning does to the choices is no drift: rewards are compared
given the features of what was chosen, by a model that goes on learning, and calibrated by level, slope, hour and
weekday. Four signals:

    down, up    Σe: rewards lie below, or above, what is expected of them
    shape       Σ(e − ē)·f(φ): one choice against another, they have moved the way f says, a quick model of the errors
                of the last few blocks
    context     Σg(x): contexts have moved, given hour and weekday, the way they did in the last few blocks

f and g are learned on one half of the users and tried on the other, so that a user who comes again does not confirm
what was learned of that user. A shift of less than `tolerance` standard deviations is no drift: it is
taken off every look (Podkopaev & Ramdas 2022, arXiv:2110.06177), and with it what a wrong model makes of new choices.

Shapes: N events of a block, D features, X context features, C calendar features, S signals, H halves of users.
"""

from collections.abc import Sequence

import numpy as np

from actors.bandits import pooled
from actors.bandits.posterior import Statistics
from actors.features.features import Floats
from tune.drift.stream import Stream

SIGNALS = ("down", "up", "shape", "context")
KEEP = 0.8
"""What a block's evidence on the way of a change still counts when the next one comes."""
RIDGE = 30.0
"""Events' worth of doubt in that way."""
SLOPE = 20.0
"""Events' worth of trust that the model's slope is 1."""


class Signals:
    """Begins from a first stretch of the stream, then gives z_S of block after block, and learns each.

    Args:
        blocks: rows of the first stretch's own blocks.
        tolerance: shift that is no drift, in standard deviations of an event.

    Raises EvidenceError where the first stretch is empty or not finite.
    """

    def __init__(self, first: Stream, blocks: Sequence[slice], tolerance: float) -> None:
        fitted = pooled.fit(first.phi_ND, first.arm_N, first.reward_N, first.arms)
        self._model = Statistics.start(fitted.precision_ADD, fitted.shift_AD, fitted.noise)
        self._errors = [_quick(self._model) for _ in range(2)]
        self._calibration = _Calibration(first.calendar_NC.shape[1])
        self._contexts = _Contexts(first)
        self._tolerance = tolerance
        self._square_S, self._largest_S = np.zeros(len(SIGNALS)), np.zeros(len(SIGNALS))
        self._seen = 0
        said_N = self._said(self._model, first)
        self._calibration.learn(first, said_N)
        term_SN = self._terms_SN(first, first.reward_N - self._calibration.expected(first, said_N))
        for rows in blocks:
            self._scale(first.take(rows), term_SN[:, rows])

    def look(self, block: Stream) -> tuple[Floats, Floats]:
        """z_S of a block and the greatest part that a user has of it, (S,); the block is then learned."""
        said_N = self._said(self._model, block)
        error_N = block.reward_N - self._calibration.expected(block, said_N)
        looked = self._scale(block, self._terms_SN(block, error_N))
        for half, errors in enumerate(self._errors):
            inside_N = block.half_N == half
            errors.forget(KEEP)
            errors.learn_batch(block.phi_ND[inside_N], block.arm_N[inside_N], error_N[inside_N])
        self._contexts.learn(block)
        self._calibration.learn(block, said_N)
        self._model.learn_batch(block.phi_ND, block.arm_N, block.reward_N)
        return looked

    def _terms_SN(self, block: Stream, error_N: Floats) -> Floats:
        """What each signal adds up; shape and context in units of a root mean square of 1 beside the error."""
        said_HN = [_said(errors, block) for errors in self._errors]
        moved_N = np.where(block.half_N == 0, said_HN[1], said_HN[0])
        shape_N = (error_N - error_N.mean()) * _unit(moved_N - moved_N.mean())
        return np.stack([-error_N, error_N, shape_N, _unit(self._contexts.moved(block))])

    def _scale(self, block: Stream, term_SN: Floats) -> tuple[Floats, Floats]:
        """(Σ terms − tolerance·N·s) / standard error between users, and the greatest user's terms in that unit.

        Neither counts for less than in the past: a block without any of the rare rewards would look certain.
        """
        users = int(block.user_N.max()) + 1
        total_SU = np.stack([np.bincount(block.user_N, term_N, users) for term_N in term_SN])
        square_S = (total_SU**2).sum(axis=1)
        past_S = self._square_S * len(block) / max(self._seen, 1)
        error_S = np.sqrt(np.maximum(square_S, past_S))
        self._square_S += square_S
        self._largest_S = np.maximum(self._largest_S, total_SU.max(axis=1))
        self._seen += len(block)
        spread = float(np.sqrt(np.mean(term_SN[0] ** 2)))
        allowed_S = self._tolerance * len(block) * np.array([spread, spread, spread, 1.0])
        unit_S = np.where(error_S > 0, error_S, np.inf)
        return (term_SN.sum(axis=1) - allowed_S) / unit_S, self._largest_S / unit_S

    @staticmethod
    def _said(model: Statistics, block: Stream) -> Floats:
        return np.clip(_said(model, block), 0.0, 1.0)


class _Calibration:
    """What a reward is expected to be, given what the model says and the calendar: ridge regression."""

    def __init__(self, calendar: int) -> None:
        self._gram = np.eye(calendar + 1)
        self._gram[-1, -1] = SLOPE
        self._cross = np.append(np.zeros(calendar), SLOPE)

    def expected(self, block: Stream, said_N: Floats) -> Floats:
        rows = np.concatenate([block.calendar_NC, said_N[:, None]], axis=1)
        return np.asarray(rows @ np.linalg.solve(self._gram, self._cross))

    def learn(self, block: Stream, said_N: Floats) -> None:
        rows = np.concatenate([block.calendar_NC, said_N[:, None]], axis=1)
        self._gram += rows.T @ rows
        self._cross += rows.T @ block.reward_N


class _Contexts:
    """Means of context features given the calendar, and how far the last few blocks were from them."""

    def __init__(self, first: Stream) -> None:
        width = first.context_NX.shape[1]
        self._gram_CC = np.eye(first.calendar_NC.shape[1])
        self._cross_CX = np.zeros((len(self._gram_CC), width))
        self._square_X, self._count = np.zeros(width), 0
        self._sum_X = np.zeros(width)
        self._moved_HX, self._count_H = np.zeros((2, width)), np.zeros(2)
        self.learn(first)
        self._moved_HX[:], self._count_H[:] = 0, 0  # of the first stretch nothing was expected

    def moved(self, block: Stream) -> Floats:
        """g(x): along the shift of the other half's last blocks, features in units of their variance."""
        mean_X = self._sum_X / max(self._count, 1)
        variance_X = self._square_X / max(self._count, 1) - mean_X**2
        way_HX = self._moved_HX / (self._count_H + RIDGE)[:, None]
        way_HX = np.divide(way_HX, variance_X, out=np.zeros_like(way_HX), where=variance_X > 1e-9)
        rest_NX = self._rest(block)
        return np.asarray(np.einsum("nx,nx->n", rest_NX, way_HX[1 - block.half_N]))

    def learn(self, block: Stream) -> None:
        rest_NX = self._rest(block)
        for half in range(2):
            inside_N = block.half_N == half
            self._moved_HX[half] = KEEP * self._moved_HX[half] + rest_NX[inside_N].sum(axis=0)
            self._count_H[half] = KEEP * self._count_H[half] + inside_N.sum()
        self._square_X += (block.context_NX**2).sum(axis=0)
        self._sum_X += block.context_NX.sum(axis=0)
        self._count += len(block)
        self._gram_CC += block.calendar_NC.T @ block.calendar_NC
        self._cross_CX += block.calendar_NC.T @ block.context_NX

    def _rest(self, block: Stream) -> Floats:
        return np.asarray(block.context_NX - block.calendar_NC @ np.linalg.solve(self._gram_CC, self._cross_CX))


def _quick(model: Statistics) -> Statistics:
    """A model of the errors of a few blocks, which expects none."""
    dimension = model.prior_shift_AD.shape[1]
    precision_ADD = np.broadcast_to(RIDGE * np.eye(dimension), model.prior_precision_ADD.shape)
    return Statistics.start(precision_ADD, np.zeros_like(model.prior_shift_AD), 1.0)


def _said(model: Statistics, block: Stream) -> Floats:
    theta_AD = np.linalg.solve(model.precision_ADD, model.shift_AD[..., None])[..., 0]
    return np.asarray(np.einsum("nd,nd->n", block.phi_ND, theta_AD[block.arm_N]))


def _unit(value_N: Floats) -> Floats:
    size = float(np.sqrt(np.mean(value_N**2)))
    return value_N / size if size > 1e-12 else np.zeros_like(value_N)
