"""The law of a decision: one for serving, simulation and logging, so that logged propensities are true.

    π = (1 − ε) [(1 − δ) π_blend + δ Σ_m w̃_m π_m] + ε / K

π_blend and π_m are shares of P joint particles in which an item is best: given the decision's seed they are
exact, not estimates. Of a large catalogue only a part is scored (`Part`), and half of ε goes to all of it.
docs/law.md derives it.

Shapes: M members, K items, P particles.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actors.bandits import members as models
from actors.bandits.history import History
from actors.bandits.members import Member, Uniform
from actors.bandits.noise import CHOICE, TIE, Noise
from actors.features.features import Features, Floats, Ints
from cluster.config import LawSettings
from cluster.errors import ModelError

TIE_SIZE = 1e-12
"""Means that differ by less are equal. Equal items (no attribute tells them apart) are in the order of a hash."""


@dataclass(frozen=True)
class Published:
    """An ensemble as it decides: immutable, factored, numbered.

    weights_M blend the members; alternatives_M are w̃_M. The score of an item is `low + (high − low)·mean`.
    """

    members: tuple[Member, ...]
    weights_M: Floats
    alternatives_M: Floats
    law: LawSettings
    dimension: int
    low: float = 0.0
    high: float = 1.0
    epoch: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members)

    @cached_property
    def scored(self) -> Ints:
        """Indices of the members that have scores, those on joint features first."""
        scored = [m for m, member in enumerate(self.members) if not isinstance(member, Uniform)]
        return np.array(sorted(scored, key=lambda m: models.joint(self.members[m]) is None), np.int64)

    @cached_property
    def shares_M(self) -> Floats:
        """The members' parts in the blended mean: the weights of those that have scores, summing to one, else 0."""
        shares_M = np.zeros(len(self.members))
        weights_S = self.weights_M[self.scored] + np.finfo(np.float64).tiny
        shares_M[self.scored] = weights_S / weights_S.sum()
        return shares_M

    @cached_property
    def shares_R(self) -> Floats:
        """What the law gives to each row of `_Particles`: δw̃_m to a member, what is left of 1 - δ to the blend."""
        shares_S = self.law.delta * self.alternatives_M[self.scored]
        if len(self.scored) > 1:
            shares_S = np.append(shares_S, 0.0)
        if len(shares_S):
            shares_S[-1] += 1 - self.law.delta
        return (1 - self.law.epsilon) * shares_S

    @cached_property
    def alike(self) -> float:
        """What the law gives to all scored items alike beside ε: δw̃_m of members without scores."""
        if not len(self.scored):
            return 1 - self.law.epsilon
        return (1 - self.law.epsilon) * self.law.delta * float(1 - self.alternatives_M[self.scored].sum())

    @cached_property
    def models(self) -> dict[str, float]:
        """Weights by name; shared by all slots, so it must not be changed."""
        return dict(zip(self.names, self.weights_M.tolist(), strict=True))

    @cached_property
    def joint(self) -> "Joint | None":
        """The shared members on joint features, stacked so that one matrix product serves them all."""
        found = [posterior for m in self.scored if (posterior := models.joint(self.members[m])) is not None]
        if not found:
            return None
        roots_SDD = np.stack([posterior.factor_ADD[0].T for posterior in found])
        roots_SDD = (self.law.exploration_scale * roots_SDD).astype(np.float32)
        return Joint(np.stack([posterior.mean_AD[0] for posterior in found]), roots_SDD)


@dataclass(frozen=True)
class Joint:
    """mean_SD and, in single precision, roots_SDD (αLᵀ) of the first S scored members."""

    mean_SD: Floats
    roots_SDD: Floats


@dataclass(frozen=True)
class Slot:
    """One place of an answer: the item's index, its conditional propensity, and what is logged with it.

    member_means_M: the members' means of the item in scaled reward, 0 for one without scores, so that
    score = low + (high - low)·Σ_m shares_M·member_means_M with `Published.shares_M`.
    """

    index: int
    score: float
    propensity: float
    explored: bool
    member_propensities_M: Floats
    member_means_M: Floats
    models: dict[str, float]


@dataclass(frozen=True)
class Part:
    """A decision whose features are those of a part of all `eligible` items.

    The first `inside` rows are the part that was retrieved; the law chooses among them. With probability
    ε/2 · (eligible − inside)/eligible a slot takes one of the others instead, each alike. Which it takes follows from
    the seed and these numbers alone, so the rows of those that are taken stand after the retrieved ones, in the order
    of their slots: see `outside`.
    """

    eligible: int
    inside: int


def outside(published: Published, seed: int, part: Part, slots: int) -> list[int]:
    """The items beyond the retrieved ones that these slots take, as places in the order of those beyond, all different.

    Raises:
        ModelError: the slots could use up what was retrieved.
    """
    if not 1 <= slots <= part.inside <= part.eligible:
        raise ModelError(f"{slots} slots cannot be filled from {part.inside} retrieved of {part.eligible} items")
    noise = Noise(seed, published.law.particles)
    taken: list[int] = []
    for place in range(slots):
        rest, eligible = part.eligible - part.inside - len(taken), part.eligible - place
        share, uniform = _beyond(published, rest, eligible), noise.uniform(CHOICE, place)
        if uniform < share:
            number = min(int(uniform / share * rest), rest - 1)
            for earlier in sorted(taken):
                number += number >= earlier
            taken.append(number)
    return taken


def _beyond(published: Published, rest: int, eligible: int) -> float:
    """The probability that a slot takes one of the `rest` items that were not retrieved."""
    return published.law.epsilon / 2 * rest / eligible


@dataclass(frozen=True)
class Decision:
    """first_K: π over the items before anything is chosen."""

    slots: tuple[Slot, ...]
    first_K: Floats


@dataclass(frozen=True)
class Law:
    """pi_K (the law), member_MK (π_m), mean_K (blended means, scaled rewards)."""

    pi_K: Floats
    member_MK: Floats
    mean_K: Floats


def decide(
    published: Published,
    features: Features,
    history: History | None,
    seed: int,
    slots: int = 1,
    part: Part | None = None,
) -> Decision:
    """Choose items for `slots` places, without repetition.

    Args:
        part: of a large catalogue, what the features are of; else all eligible items.

    Raises:
        ModelError: there is no eligible item, or fewer than `slots`.
    """
    if not 1 <= slots <= len(features):
        raise ModelError(f"{slots} slots cannot be filled from {len(features)} eligible items")
    noise = Noise(seed, published.law.particles)
    part = part or Part(len(features), len(features))
    particles = _particles(published, features, history, noise, part.inside)
    taken = part.inside
    first_K: Floats = np.empty(0)
    chosen: list[Slot] = []
    for place in range(slots):
        if place:
            particles.remove(chosen[-1].index)
        rest, eligible = part.eligible - taken, part.eligible - place
        pi_K = particles.pi(rest)
        share, uniform = _beyond(published, rest, eligible), noise.uniform(CHOICE, place)
        if uniform < share:
            index, propensity, taken = taken, share / rest, taken + 1
        else:
            index = _pick(pi_K, (uniform - share) / (1 - share))
            propensity = float(pi_K[index])
        if not place:
            first_K = pi_K if not rest else np.where(particles.open_K, pi_K, share / rest)
        mean = float(particles.mean_K[index])
        chosen.append(
            Slot(
                index=index,
                score=published.low + (published.high - published.low) * mean,
                propensity=propensity,
                explored=mean < particles.greatest - TIE_SIZE,
                member_propensities_M=particles.propensities(index),
                member_means_M=particles.means(index),
                models=published.models,
            )
        )
    return Decision(tuple(chosen), first_K)


def probabilities(published: Published, features: Features, history: History | None, seed: int) -> Law:
    """The law of a decision with one slot, before anything is drawn from it."""
    noise = Noise(seed, published.law.particles)
    particles = _particles(published, features, history, noise, len(features))
    member_MK = np.stack([particles.propensities(k) for k in range(len(features))], axis=1)
    return Law(particles.pi(), member_MK, particles.mean_K)


class _Particles:
    """The particles of one decision, and how often each item is their best.

    Scores are computed with the items in the order of a hash of (seed, item), so that rounding, and who wins among
    equal scores, does not depend on the order of the list.

    Args:
        order_K: the list's places in that order.
        score_RPK: in that order, scores of the S members that have any, the last row those of their blend. A blend
            of one member is that member, and has no row of its own. Changed by `remove`.
        mean_RK: in that order, the means of the same rows.
        inside: the list's first items, which the particles choose among.

    mean_K (blended means), open_K (whether an item can be chosen) and greatest (the best mean of these) are in the
    order of the list.
    """

    def __init__(self, published: Published, order_K: Ints, score_RPK: Floats, mean_RK: Floats, inside: int) -> None:
        self._published, self._score_RPK, self._mean_RK = published, score_RPK, mean_RK
        items = len(order_K)
        self._rank_K = np.empty_like(order_K)
        self._rank_K[order_K] = np.arange(items)
        self.mean_K = mean_RK[-1].take(self._rank_K) if len(mean_RK) else np.zeros(items)
        self.open_K = np.arange(items) < inside
        if inside < items:
            score_RPK[:, :, self._rank_K[inside:]] = -np.inf
        self._best_RP = score_RPK.argmax(-1)
        self._share_RK = self._shares()

    @property
    def greatest(self) -> float:
        return float(self.mean_K[self.open_K].max())

    def remove(self, index: int) -> None:
        """Take an item out; its particles go to their next best."""
        rank = self._rank_K[index]
        self.open_K[index], self._score_RPK[:, :, rank] = False, -np.inf
        lost_RP = self._best_RP == rank
        self._best_RP[lost_RP] = self._score_RPK[lost_RP].argmax(-1)
        self._share_RK = self._shares()

    def _shares(self) -> Floats:
        rows, particles, items = self._score_RPK.shape
        row_RP = self._best_RP + np.arange(0, rows * items, max(items, 1))[:, None]
        counts_RK = np.bincount(row_RP.ravel(), minlength=rows * items).reshape(rows, items)
        return np.asarray(counts_RK / particles)

    def pi(self, rest: int = 0) -> Floats:
        """The law among the open items, pi_K, when there are `rest` more that are not scored."""
        published, count = self._published, np.count_nonzero(self.open_K)
        pi_K = (published.shares_R @ self._share_RK).take(self._rank_K)
        floor = published.alike / count + published.law.epsilon * (0.5 / count + 0.5 / (count + rest))
        return np.asarray(pi_K + floor * self.open_K)

    def propensities(self, index: int) -> Floats:
        """Each member's share of an item (M,)."""
        alike = float(self.open_K[index]) / np.count_nonzero(self.open_K)
        share_M = np.full(len(self._published.members), alike)
        scored = self._published.scored
        share_M[scored] = self._share_RK[: len(scored), self._rank_K[index]]
        return share_M

    def means(self, index: int) -> Floats:
        """Each member's mean of an item (M,), 0 where it has no scores."""
        mean_M = np.zeros(len(self._published.members))
        scored = self._published.scored
        mean_M[scored] = self._mean_RK[: len(scored), self._rank_K[index]]
        return mean_M


def _particles(
    published: Published, features: Features, history: History | None, noise: Noise, inside: int
) -> _Particles:
    _check(published, features)
    order_K = noise.hashes(TIE, features.key_K).argsort()[::-1]
    features = features.take(order_K)
    scored, items = published.scored, len(features)
    count = len(scored)
    score_RPK = np.empty((count + (count > 1), noise.particles, items), np.float32)
    mean_RK, deviation_SPK = np.zeros((len(score_RPK), items)), score_RPK[:count]
    joint, first = published.joint, 0
    if joint is not None:
        first = len(joint.mean_SD)
        np.matmul(joint.mean_SD, features.phi_KD.T, out=mean_RK[:first])
        theta_SPD = np.matmul(noise.theta(1, published.dimension)[:, 0], joint.roots_SDD)
        phi_KD = features.phi_KD.astype(np.float32)
        np.matmul(theta_SPD.reshape(-1, phi_KD.shape[1]), phi_KD.T, out=score_RPK[:first].reshape(-1, items))
    past = history if history is not None else History.empty(published.dimension)
    for place, m in enumerate(scored[first:].tolist(), first):
        score = models.scores(published.members[m], features, past, noise, published.law.exploration_scale)
        mean_RK[place], deviation_SPK[place] = score.mean_K, score.deviation_PK
    if count > 1:
        shares_S = published.shares_M[scored]
        mean_RK[-1], score_RPK[-1] = shares_S @ mean_RK[:count], blend(deviation_SPK, shares_S)
    if not (_finite(mean_RK) and _finite(score_RPK[-1:])):
        names = [published.names[m] for m, mean_K in zip(scored, mean_RK, strict=False) if not _finite(mean_K)]
        raise ModelError(f"scores of {names or 'a member'} are not finite; retire it, or publish a version without it")
    # Only differences count; those near the best are exact in single precision.
    score_RPK += (mean_RK - mean_RK.max(1, initial=-np.inf, keepdims=True)).astype(np.float32)[:, None]
    return _Particles(published, order_K, score_RPK, mean_RK, inside)


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


def blend(deviation_SPK: Floats, weights_S: Floats) -> Floats:
    """Blended deviations (P, K), with the weighted mean of the members' spreads.

    The mean of independent draws would shrink with the number of members and switch exploration off, so the
    blended deviations are scaled back to Σ w_m s_m, whether or not the members' draws are coupled. Spreads are
    root mean squares over the particles, hence a blend of one member is that member.
    """
    members, particles, items = deviation_SPK.shape
    weights_S = weights_S.astype(deviation_SPK.dtype)
    deviation_PK = (weights_S @ deviation_SPK.reshape(members, -1)).reshape(particles, items)
    spread_SK = np.sqrt(np.einsum("spk,spk->sk", deviation_SPK, deviation_SPK))
    blended_K = np.sqrt(np.einsum("pk,pk->k", deviation_PK, deviation_PK))
    deviation_PK *= np.divide(weights_S @ spread_SK, blended_K, out=np.zeros_like(blended_K), where=blended_K > 0)
    return deviation_PK


def _pick(pi_K: Floats, uniform: float) -> int:
    """The item whose share of [0, 1) holds `uniform`; rounding never picks an item of probability 0."""
    edges_K = np.cumsum(pi_K)
    return int(np.searchsorted(edges_K, uniform * edges_K[-1], side="right"))
