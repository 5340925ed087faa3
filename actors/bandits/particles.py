"""How often each item is the best one, of each member and of their blend, in joint draws of the items' scores.

Decisions over as many items are computed together: most of the time of a single one is the interpreter's, between
array operations. Each has the bits that it has alone, since matrix products have its own shapes and everything else
goes by elements.

Shapes: B decisions, M members, S those of them that have scores, R rows of scores (S, and one for their blend),
K items, H pairs of particles, T = 2 the particles of a pair.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from actors.bandits import members as models
from actors.bandits.blending import ItemWeighing, blend_deviations, blend_means, item_weights
from actors.bandits.history import History
from actors.bandits.noise import TIE, Noise, together
from actors.bandits.published import Published
from actors.features.features import Features, Floats, Ints
from cluster.errors import ModelError


class Particles:
    """The particles of one decision.

    Args:
        order_K: the places of the list's items in the order of the rows.
        score_TRHK: in that order, scores of the S members that have any, the last row those of their blend. A blend
            of one member is that member, and has no row of its own. Changed by `remove`.
        mean_RK: in that order, the means of the same rows.
        best_TRH, share_RK: of score_TRHK.
        inside: the list's first items, which the particles choose among; others score -inf.
        weights_MK: in that order, the members' weights of each item; None where they are those of the publication.

    mean_K (blended means) and open_K (whether an item can be chosen) are in the order of the list.
    """

    def __init__(
        self,
        published: Published,
        order_K: Ints,
        score_TRHK: Floats,
        mean_RK: Floats,
        best_TRH: Ints,
        share_RK: Floats,
        inside: int,
        weights_MK: Floats | None,
    ) -> None:
        self._published, self._score_TRHK, self._mean_RK = published, score_TRHK, mean_RK
        self._weights_MK = weights_MK
        self._best_TRH, self._share_RK = best_TRH, share_RK
        items = len(order_K)
        self._rank_K = np.empty_like(order_K)
        self._rank_K[order_K] = np.arange(items)
        self.mean_K = mean_RK[-1].take(self._rank_K) if len(mean_RK) else np.zeros(items)
        self.open_K = np.arange(items) < inside
        self._open = inside

    @property
    def greatest(self) -> float:
        """The best blended mean of an open item."""
        return float(self.mean_K[self.open_K].max())

    def remove(self, index: int) -> None:
        """Take an item out; its particles go to their next best."""
        rank = self._rank_K[index]
        self._open -= bool(self.open_K[index])
        self.open_K[index], self._score_TRHK[..., rank] = False, -np.inf
        lost_TRH = self._best_TRH == rank
        self._best_TRH[lost_TRH] = self._score_TRHK[lost_TRH].argmax(-1)
        self._share_RK = shares(self._best_TRH[None], len(self.open_K), self._published.law.particles)[0]

    def pi(self, rest: int = 0) -> Floats:
        """The law among the open items, pi_K, when there are `rest` more that are not scored."""
        published, count = self._published, self._open
        pi_K = (published.shares_R @ self._share_RK).take(self._rank_K)
        floor = published.alike / count + published.law.epsilon * (0.5 / count + 0.5 / (count + rest))
        return np.asarray(pi_K + floor * self.open_K)

    def propensities(self, index: int) -> Floats:
        """Each member's share of an item (M,)."""
        share_M = np.full(len(self._published.members), float(self.open_K[index]) / self._open)
        scored = self._published.scored
        share_M[scored] = self._share_RK[: len(scored), self._rank_K[index]]
        return share_M

    def means(self, index: int) -> Floats:
        """Each member's mean of an item (M,), 0 where it has no scores."""
        mean_M = np.zeros(len(self._published.members))
        scored = self._published.scored
        mean_M[scored] = self._mean_RK[: len(scored), self._rank_K[index]]
        return mean_M

    @property
    def spread_MK(self) -> Floats:
        """Spreads of the members' scores of each item over the particles, 0 of one without scores; for open items."""
        scored = self._published.scored
        spread_MK = np.zeros((len(self._published.members), len(self._rank_K)))
        spread_MK[scored] = self._score_TRHK[:, : len(scored)].std(axis=(0, 2)).take(self._rank_K, axis=1)
        return spread_MK

    def all_propensities(self) -> Floats:
        """`propensities` of every item (M, K)."""
        share_MK = np.tile(self.open_K / self._open, (len(self._published.members), 1))
        scored = self._published.scored
        share_MK[scored] = self._share_RK[: len(scored), self._rank_K]
        return share_MK

    def all_means(self) -> Floats:
        """`means` of every item (M, K)."""
        mean_MK = np.zeros((len(self._published.members), len(self._rank_K)))
        scored = self._published.scored
        mean_MK[scored] = self._mean_RK[: len(scored), self._rank_K]
        return mean_MK

    def weights(self, index: int) -> Floats | None:
        """The members' weights of an item (M,), None where they are those of the publication."""
        return None if self._weights_MK is None else self._weights_MK[:, self._rank_K[index]]


def particles(
    published: Published,
    features: Sequence[Features],
    histories: Sequence[History | None],
    noises: Sequence[Noise],
    inside: Sequence[int],
) -> list[Particles]:
    """Of B decisions over as many items each; the rest as in `law.Question`.

    Rows are in the order of a hash of (seed, item), so that rounding, and who wins among equal scores, does not
    depend on the order of the list.

    Raises:
        ModelError: features do not fit, or numbers are not finite.
    """
    for one in features:
        _check(published, one)
    order_BK = [noise.hashes(TIE, f.key_K).argsort()[::-1] for noise, f in zip(noises, features, strict=True)]
    features = [f.take(order_K) for f, order_K in zip(features, order_BK, strict=True)]
    weights = item_weights(published, [f.kin for f in features])
    mean_BRK, score_BTRHK, mirrored = _scores(published, features, histories, noises, weights)
    if not (_finite(mean_BRK) and _finite(score_BTRHK[:, : 2 - mirrored, -1:])):
        finite_S = [_finite(mean_BRK[:, row]) for row in range(len(published.scored))]
        names = [published.names[m] for m, finite in zip(published.scored, finite_S, strict=True) if not finite]
        raise ModelError(f"scores of {names or 'a member'} are not finite; retire it, or publish a version without it")
    # Only differences count; those near the best are exact in single precision.
    lag_BR1K = (mean_BRK - mean_BRK.max(2, initial=-np.inf, keepdims=True)).astype(np.float32)[:, :, None]
    first_BRHK, second_BRHK = score_BTRHK[:, 0], score_BTRHK[:, 1]
    np.subtract(lag_BR1K, first_BRHK, out=second_BRHK) if mirrored else np.add(second_BRHK, lag_BR1K, out=second_BRHK)
    first_BRHK += lag_BR1K
    for order_K, score_TRHK, first in zip(order_BK, score_BTRHK, inside, strict=True):
        if first < len(order_K):
            score_TRHK[..., order_K >= first] = -np.inf
    best_BTRH = score_BTRHK.argmax(-1)
    share_BRK = shares(best_BTRH, len(order_BK[0]), published.law.particles)
    own = [None] * len(features) if weights is None else [w if told else None for w, told in zip(*weights, strict=True)]
    parts = zip(order_BK, score_BTRHK, mean_BRK, best_BTRH, share_BRK, inside, own, strict=True)
    return [Particles(published, *part) for part in parts]


def _scores(
    published: Published,
    features: Sequence[Features],
    histories: Sequence[History | None],
    noises: Sequence[Noise],
    weights: ItemWeighing | None,
) -> tuple[Floats, Floats, bool]:
    """Means (B, R, K), deviations from them (B, T, R, H, K) in single precision, and whether they are mirrored: those
    of the second particles, which are then not filled in, are the negatives of those of the first ones."""
    scored, decisions, items = published.scored, len(features), len(features[0])
    count, pairs, mirrored = len(scored), noises[0].pairs, published.mirrored
    score_BTRHK = np.empty((decisions, 2, count + (count > 1), pairs, items), np.float32)
    mean_BRK, deviation_BTSHK = (
        np.zeros((decisions, score_BTRHK.shape[2], items)),
        score_BTRHK[:, : 2 - mirrored, :count],
    )
    joint, first = published.joint, 0
    keys = [f.key_K for f in features] if published.itemised else None
    theta_BHD = together(noises, 0 if joint is None else published.dimension, keys)
    if joint is not None:
        first = len(joint.mean_SD)
        phi_BKD = np.stack([f.phi_KD for f in features]) if decisions > 1 else features[0].phi_KD[None]
        phi_BDK = phi_BKD.swapaxes(1, 2)
        np.matmul(joint.mean_SD, phi_BDK, out=mean_BRK[:, :first])
        theta_BSHD = np.matmul(theta_BHD[:, None], joint.roots_SDD)
        rows_BND = theta_BSHD.reshape(decisions, -1, phi_BDK.shape[1])
        np.matmul(rows_BND, phi_BDK.astype(np.float32), out=score_BTRHK[:, 0, :first].reshape(decisions, -1, items))
        if not mirrored:
            np.negative(score_BTRHK[:, 0, :first], out=score_BTRHK[:, 1, :first])
    empty = History.empty(published.dimension)
    for place, m in enumerate(scored[first:].tolist(), first):
        for b, (one, past, noise) in enumerate(zip(features, histories, noises, strict=True)):
            history = empty if past is None else past
            score = models.scores(published.members[m], one, history, noise, published.law.exploration_scale)
            mean_BRK[b, place], deviation_BTSHK[b, 0, place] = score.mean_K, score.deviation_HK
            if not mirrored:
                deviation_BTSHK[b, 1, place] = -score.deviation_HK if score.other_HK is None else score.other_HK
    if count > 1:
        for rows, parts in _parts(published, weights):
            mean_BRK[rows, -1] = blend_means(mean_BRK[rows, :count], parts)
            score_BTRHK[rows, : 2 - mirrored, -1] = blend_deviations(deviation_BTSHK[rows], parts)
    return mean_BRK, score_BTRHK, mirrored


def _parts(published: Published, weights: ItemWeighing | None) -> Iterator[tuple[Any, Floats]]:
    """Decisions whose blends are made alike, and the members' parts in them: of all items (S,), of each (B, S, K).

    A decision has the bits that it has alone, so that what tells items apart in another must not change its way.
    """
    if weights is None:
        yield slice(None), published.shares_M[published.scored]
        return
    weights_BMK, told_B = weights
    if not told_B.all():
        yield np.flatnonzero(~told_B), published.shares_M[published.scored]
    rows = slice(None) if told_B.all() else np.flatnonzero(told_B)
    yield rows, published.parts(weights_BMK[rows], 1)


def shares(best_BTRH: Ints, items: int, particles: int) -> Floats:
    """How much of so many particles each row gives to each item (B, R, K): of an odd number, the last pair's second
    particle is left out."""
    decisions, _, rows, pairs = best_BTRH.shape
    count = decisions * rows * items
    place_BTRH = best_BTRH + np.arange(0, count, max(items, 1)).reshape(decisions, 1, rows, 1)
    place_BTRH[:, 1, :, particles - pairs :] = count
    return np.asarray(
        np.bincount(place_BTRH.ravel(), minlength=count)[:count].reshape(decisions, rows, items) / particles
    )


def _check(published: Published, features: Features) -> None:
    if features.phi_KD.shape[1] != published.dimension:
        raise ModelError(
            f"{features.phi_KD.shape[1]} features do not fit a model of {published.dimension}; "
            "use the feature map of the model's own version"
        )
    if not (_finite(features.phi_KD) and _finite(features.context_X)):
        raise ModelError("features are not finite; mend the context or the item's attributes")


def _finite(numbers: Floats) -> bool:
    """Whether all are finite (and their squares' sum is)."""
    flat = numbers.ravel()
    return math.isfinite(flat @ flat)
