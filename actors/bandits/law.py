"""The law of a decision: one for serving, simulation and logging, so that logged propensities are true.

    π = (1 − ε) [(1 − δ) π_blend + δ Σ_m w̃_m π_m] + ε / K

π_blend and π_m are shares of P joint particles in which an item is best: given the decision's seed they are
exact, not estimates. docs/law.md derives it.

Shapes: M members, K items, P particles.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.bandits import members as models
from actors.bandits.history import History
from actors.bandits.members import Member
from actors.bandits.noise import CHOICE, Noise
from actors.bandits.posterior import Scores
from actors.features.features import Features, Floats
from cluster.config import LawSettings
from cluster.errors import ModelError


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


@dataclass(frozen=True)
class Slot:
    """One place of an answer: the item's index, its conditional propensity, and what is logged with it."""

    index: int
    score: float
    propensity: float
    explored: bool
    member_propensities_M: Floats
    models: dict[str, float]


@dataclass(frozen=True)
class Decision:
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Law:
    """pi_K (the law), member_MK (π_m), mean_K (blended means, scaled rewards)."""

    pi_K: Floats
    member_MK: Floats
    mean_K: Floats


def decide(published: Published, features: Features, history: History | None, seed: int, slots: int = 1) -> Decision:
    """Choose items for `slots` places, without repetition.

    Raises:
        ModelError: there is no eligible item, or fewer than `slots`.
    """
    if not 1 <= slots <= len(features):
        raise ModelError(f"{slots} slots cannot be filled from {len(features)} eligible items")
    noise = Noise(seed, published.law.particles)
    particles = _particles(published, features, history, noise)
    open_K = np.ones(len(features), np.bool_)
    chosen = []
    for place in range(slots):
        law = particles.law(published, open_K)
        index = _pick(law.pi_K, noise.uniform(CHOICE, place))
        best = int(np.argmax(np.where(open_K, law.mean_K, -np.inf)))
        chosen.append(
            Slot(
                index=index,
                score=published.low + (published.high - published.low) * float(law.mean_K[index]),
                propensity=float(law.pi_K[index]),
                explored=index != best,
                member_propensities_M=law.member_MK[:, index],
                models=dict(zip(published.names, published.weights_M.tolist(), strict=True)),
            )
        )
        open_K[index] = False
    return Decision(tuple(chosen))


def probabilities(published: Published, features: Features, history: History | None, seed: int) -> Law:
    """The law of a decision with one slot, before anything is drawn from it."""
    noise = Noise(seed, published.law.particles)
    particles = _particles(published, features, history, noise)
    return particles.law(published, np.ones(len(features), np.bool_))


@dataclass(frozen=True)
class _Particles:
    """Scores in every particle: score_PK of the blend, member_MPK of those members that score; mean_K."""

    score_PK: Floats | None
    member_MPK: Sequence[Floats | None]
    mean_K: Floats

    def law(self, published: Published, open_K: NDArray[np.bool_]) -> Law:
        settings, uniform_K = published.law, open_K / open_K.sum()
        blend_K = uniform_K if self.score_PK is None else _shares(self.score_PK, open_K)
        member_MK = np.stack(
            [uniform_K if score_PK is None else _shares(score_PK, open_K) for score_PK in self.member_MPK]
        )
        mixed_K = (1 - settings.delta) * blend_K + settings.delta * (published.alternatives_M @ member_MK)
        pi_K = (1 - settings.epsilon) * mixed_K + settings.epsilon * uniform_K
        return Law(pi_K, member_MK, self.mean_K)


def _particles(published: Published, features: Features, history: History | None, noise: Noise) -> _Particles:
    past = history if history is not None else History.empty(published.dimension)
    scale = published.law.exploration_scale
    scores = [models.scores(member, features, past, noise, scale) for member in published.members]
    scored = [m for m, score in enumerate(scores) if score is not None]
    member_MPK = [None if s is None else s.mean_K + s.deviation_PK for s in scores]
    if not scored:
        return _Particles(None, member_MPK, np.zeros(len(features)))
    weights_M = published.weights_M[scored]
    mean_K, score_PK = blend([scores[m] for m in scored], weights_M / weights_M.sum())  # type: ignore[misc]
    return _Particles(score_PK, member_MPK, mean_K)


def blend(scores: list[Scores], weights_M: Floats) -> tuple[Floats, Floats]:
    """Blended means (K,) and scores (P, K): weighted means, with the weighted mean of the members' spreads.

    The mean of independent draws would shrink with the number of members and switch exploration off, so the
    blended deviations are scaled back to Σ w_m s_m, whether or not the members' draws are coupled. Spreads are
    root mean squares over the particles, hence a blend of one member is that member.
    """
    mean_K = sum(w * s.mean_K for w, s in zip(weights_M, scores, strict=True))
    deviation_PK = sum(w * s.deviation_PK for w, s in zip(weights_M, scores, strict=True))
    spread_K = sum(w * _spread(s.deviation_PK) for w, s in zip(weights_M, scores, strict=True))
    blended_K = _spread(np.asarray(deviation_PK))
    ratio_K = np.divide(spread_K, blended_K, out=np.zeros_like(blended_K), where=blended_K > 0)
    return np.asarray(mean_K), np.asarray(mean_K + deviation_PK * ratio_K)


def _spread(deviation_PK: Floats) -> Floats:
    result: Floats = np.sqrt(np.einsum("pk,pk->k", deviation_PK, deviation_PK) / len(deviation_PK))
    return result


def _shares(score_PK: Floats, open_K: NDArray[np.bool_]) -> Floats:
    """The share of particles in which each open item is best."""
    if not open_K.all():
        score_PK = np.where(open_K, score_PK, -np.inf)
    return np.bincount(score_PK.argmax(1), minlength=len(open_K)) / len(score_PK)


def _pick(pi_K: Floats, uniform: float) -> int:
    """The item whose share of [0, 1) holds `uniform`; rounding never picks an item of probability 0."""
    edges_K = np.cumsum(pi_K)
    return int(np.searchsorted(edges_K, uniform * edges_K[-1], side="right"))
