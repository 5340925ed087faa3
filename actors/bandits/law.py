"""The law of a decision: one for serving, simulation and logging, so that logged propensities are true.

    π = (1 − ε) [(1 − δ) π_blend + δ Σ_m w̃_m π_m] + ε / K

π_blend and π_m are shares of P joint particles in which an item is best: given the decision's seed they are
exact, not estimates. Of a large catalogue only a part is scored (`Part`), and half of ε goes to all of it.
docs/law.md derives it.

Shapes: M members, K items, P particles.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from actors.bandits import members as models
from actors.bandits.history import History
from actors.bandits.members import Member, Uniform
from actors.bandits.noise import CHOICE, TIE, Noise
from actors.features.features import Features, Floats, Ints
from cluster.config import LawSettings
from cluster.errors import ModelError

TIE_SIZE = 1e-12
"""Equal items (no attribute tells them apart) are ordered by noise of this size, not by their place in the list."""


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
    def joint(self) -> "Joint | None":
        """The shared members on joint features, stacked so that one matrix product serves them all."""
        found = [posterior for m in self.scored if (posterior := models.joint(self.members[m])) is not None]
        if not found:
            return None
        roots_SDD = np.stack([posterior.factor_ADD[0].T for posterior in found])
        return Joint(np.stack([posterior.mean_AD[0] for posterior in found]), self.law.exploration_scale * roots_SDD)


@dataclass(frozen=True)
class Joint:
    """mean_SD and roots_SDD (αLᵀ) of the first S scored members."""

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
    particles = _particles(published, features, history, noise)
    part = part or Part(len(features), len(features))
    open_K, taken = np.arange(len(features)) < part.inside, part.inside
    first_K: Floats = np.empty(0)
    chosen = []
    for place in range(slots):
        rest, eligible = part.eligible - taken, part.eligible - place
        law = particles.law(published, open_K, rest)
        share, uniform = _beyond(published, rest, eligible), noise.uniform(CHOICE, place)
        if uniform < share:
            index, propensity, taken = taken, share / rest, taken + 1
        else:
            index = _pick(law.pi_K, (uniform - share) / (1 - share))
            propensity = float(law.pi_K[index])
        if not place:
            first_K = law.pi_K if not rest else np.where(open_K, law.pi_K, share / rest)
        best = float(law.mean_K[open_K].max())
        chosen.append(
            Slot(
                index=index,
                score=published.low + (published.high - published.low) * float(law.mean_K[index]),
                propensity=propensity,
                explored=bool(law.mean_K[index] < best - TIE_SIZE),
                member_propensities_M=law.member_MK[:, index],
                member_means_M=particles.means(published, index),
                models=dict(zip(published.names, published.weights_M.tolist(), strict=True)),
            )
        )
        open_K[index] = False
    return Decision(tuple(chosen), first_K)


def probabilities(published: Published, features: Features, history: History | None, seed: int) -> Law:
    """The law of a decision with one slot, before anything is drawn from it."""
    noise = Noise(seed, published.law.particles)
    particles = _particles(published, features, history, noise)
    return particles.law(published, np.ones(len(features), np.bool_))


@dataclass(frozen=True)
class _Particles:
    """score_RPK: scores of the S members that have any (rows `scored` of M), the last row those of their blend.

    A blend of one member is that member, and has no row of its own. mean_SK: their means.
    """

    scored: Ints
    score_RPK: Floats
    mean_SK: Floats
    mean_K: Floats

    def means(self, published: Published, index: int) -> Floats:
        """Each member's mean of one item (M,), 0 where it has no scores."""
        mean_M = np.zeros(len(published.members))
        mean_M[self.scored] = self.mean_SK[:, index]
        return mean_M

    def law(self, published: Published, open_K: NDArray[np.bool_], rest: int = 0) -> Law:
        """The law among the open items, when there are `rest` more that are not scored."""
        count = int(open_K.sum())
        settings, uniform_K = published.law, open_K / count
        member_MK = np.empty((len(published.members), len(open_K)))
        member_MK[:] = uniform_K
        blend_K = uniform_K
        if len(self.scored):
            share_RK = _shares(self.score_RPK, open_K)
            member_MK[self.scored] = share_RK[: len(self.scored)]
            blend_K = share_RK[-1]
        mixed_K = (1 - settings.delta) * blend_K + settings.delta * (published.alternatives_M @ member_MK)
        floor_K = open_K * (0.5 / count + 0.5 / (count + rest))
        pi_K = (1 - settings.epsilon) * mixed_K + settings.epsilon * floor_K
        return Law(pi_K, member_MK, self.mean_K)


def _particles(published: Published, features: Features, history: History | None, noise: Noise) -> _Particles:
    _check(published, features)
    scored, items = published.scored, len(features)
    count = len(scored)
    score_RPK = np.empty((count + (count > 1), noise.particles, items))
    if not count:
        return _Particles(scored, score_RPK, np.empty((0, items)), np.zeros(items))
    mean_SK, deviation_SPK = np.empty((count, items)), score_RPK[:count]
    joint = published.joint
    first = 0
    if joint is not None:
        first = len(joint.mean_SD)
        mean_SK[:first] = joint.mean_SD @ features.phi_KD.T
        theta_SPD = np.matmul(noise.theta(1, published.dimension)[:, 0], joint.roots_SDD)
        np.matmul(theta_SPD, features.phi_KD.T, out=deviation_SPK[:first])
    past = history if history is not None else History.empty(published.dimension)
    for place, m in enumerate(scored[first:], first):
        score = models.scores(published.members[m], features, past, noise, published.law.exploration_scale)
        mean_SK[place], deviation_SPK[place] = score.mean_K, score.deviation_PK
    mean_K = mean_SK[0]
    if count > 1:
        mean_K, score_RPK[-1] = blend(mean_SK, deviation_SPK, published.shares_M[scored])
    tie_K = TIE_SIZE * noise.uniforms(TIE, features.key_K)
    deviation_SPK += (mean_SK + tie_K)[:, None]
    score_RPK[count:] += tie_K
    if not np.isfinite(score_RPK[-1].sum()):
        names = [published.names[m] for m, mean in zip(scored, mean_SK, strict=True) if not np.isfinite(mean).all()]
        raise ModelError(f"scores of {names or 'a member'} are not finite; retire it, or publish a version without it")
    return _Particles(scored, score_RPK, mean_SK, mean_K)


def _check(published: Published, features: Features) -> None:
    if features.phi_KD.shape[1] != published.dimension:
        raise ModelError(
            f"{features.phi_KD.shape[1]} features do not fit a model of {published.dimension}; "
            "use the feature map of the model's own version"
        )
    if not (np.isfinite(features.phi_KD).all() and np.isfinite(features.context_X).all()):
        raise ModelError("features are not finite; mend the context or the item's attributes")


def blend(mean_SK: Floats, deviation_SPK: Floats, weights_S: Floats) -> tuple[Floats, Floats]:
    """Blended means (K,) and scores (P, K): weighted means, with the weighted mean of the members' spreads.

    The mean of independent draws would shrink with the number of members and switch exploration off, so the
    blended deviations are scaled back to Σ w_m s_m, whether or not the members' draws are coupled. Spreads are
    root mean squares over the particles, hence a blend of one member is that member.
    """
    members, particles, items = deviation_SPK.shape
    deviation_PK = (weights_S @ deviation_SPK.reshape(members, -1)).reshape(particles, items)
    spread_SK = np.sqrt(np.einsum("spk,spk->sk", deviation_SPK, deviation_SPK) / particles)
    blended_K = np.sqrt(np.einsum("pk,pk->k", deviation_PK, deviation_PK) / particles)
    ratio_K = np.divide(weights_S @ spread_SK, blended_K, out=np.zeros_like(blended_K), where=blended_K > 0)
    mean_K = weights_S @ mean_SK
    return mean_K, mean_K + deviation_PK * ratio_K


def _shares(score_RPK: Floats, open_K: NDArray[np.bool_]) -> Floats:
    """The share of particles in which each open item is a row's best, (R, K)."""
    if not open_K.all():
        score_RPK = np.where(open_K, score_RPK, -np.inf)
    rows, particles, items = score_RPK.shape
    best_RP = score_RPK.argmax(-1) + np.arange(rows)[:, None] * items
    counts_RK = np.bincount(best_RP.ravel(), minlength=rows * items).reshape(rows, items)
    return np.asarray(counts_RK / particles)


def _pick(pi_K: Floats, uniform: float) -> int:
    """The item whose share of [0, 1) holds `uniform`; rounding never picks an item of probability 0."""
    edges_K = np.cumsum(pi_K)
    return int(np.searchsorted(edges_K, uniform * edges_K[-1], side="right"))
