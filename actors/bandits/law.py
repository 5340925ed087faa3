"""The law of a decision: one for serving, simulation and logging, so that logged propensities are true.

    π = (1 − ε) [(1 − δ Σ_m w̃_m) π_blend + δ Σ_m w̃_m π_m] + ε / K

π_blend and π_m are shares of P joint particles in which an item is best: given the decision's seed they are
exact, not estimates. Of a large catalogue only a part is scored (`Part`), and half of ε goes to all of it.
docs/law.md derives it.

Shapes: M members, K items.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actors.bandits.history import History
from actors.bandits.noise import CHOICE, Noise
from actors.bandits.particles import Particles, particles
from actors.bandits.published import Published
from actors.features.features import Features, Floats
from cluster.errors import ModelError

TIE_SIZE = 1e-12
"""Means that differ by less are equal. Equal items (no attribute tells them apart) are in the order of a hash."""
ITEMS_TOGETHER = 800
"""Items of the decisions that are computed together: what fits a core's cache."""


@dataclass(frozen=True)
class Slot:
    """One place of an answer: the item's index, its conditional propensity, and what is logged with it.

    member_means_M: the members' means of the item in scaled reward, 0 for one without scores. models: the members'
    weights of the item, by name. shares_M: their parts in its blended mean, so that
    score = low + (high - low)·Σ_m shares_M·member_means_M; None for those of the publication (`Published.shares_M`).
    """

    index: int
    score: float
    propensity: float
    explored: bool
    member_propensities_M: Floats
    member_means_M: Floats
    models: dict[str, float]
    shares_M: Floats | None = None


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
    """first_K: π over the items before anything is chosen. member_means_MK: of all items as in `Slot`, where they have
    kin, so that the outcome of any can teach the weights of items."""

    slots: tuple[Slot, ...]
    first_K: Floats
    member_means_MK: Floats | None = None


@dataclass(frozen=True)
class Law:
    """pi_K (the law), member_MK (π_m), mean_K (blended means, scaled rewards), member_means_MK (as in `Slot`)."""

    pi_K: Floats
    member_MK: Floats
    mean_K: Floats
    member_means_MK: Floats


@dataclass(frozen=True)
class Question:
    """What one decision is made of.

    features: of its items. seed: its own. slots: places of its answer. part: of a large catalogue, what the features
    are of; else all eligible items.
    """

    features: Features
    history: History | None
    seed: int
    slots: int = 1
    part: Part | None = None

    @property
    def known(self) -> Part:
        return self.part or Part(len(self.features), len(self.features))


def decide(
    published: Published,
    features: Features,
    history: History | None,
    seed: int,
    slots: int = 1,
    part: Part | None = None,
) -> Decision:
    """Choose items for `slots` places, without repetition; the arguments are those of `Question`.

    Raises:
        ModelError: there is no eligible item, or fewer than `slots`.
    """
    return decide_many(published, [Question(features, history, seed, slots, part)])[0]


def decide_many(published: Published, questions: Sequence[Question]) -> list[Decision]:
    """`decide` for each, with the same bits, in less time.

    Raises:
        ModelError: as `decide`, for any of them.
    """
    for question in questions:
        if not 1 <= question.slots <= len(question.features):
            items = len(question.features)
            raise ModelError(f"{question.slots} slots cannot be filled from {items} eligible items")
    made: dict[int, Decision] = {}
    for places in _alike(questions):
        asked = [questions[place] for place in places]
        noises = [Noise(question.seed, published.law.particles) for question in asked]
        found = particles(
            published,
            [question.features for question in asked],
            [question.history for question in asked],
            noises,
            [question.known.inside for question in asked],
        )
        for place, question, noise, one in zip(places, asked, noises, found, strict=True):
            made[place] = _decided(published, question, noise, one)
    return [made[place] for place in range(len(questions))]


def _alike(questions: Sequence[Question]) -> Iterator[list[int]]:
    """Places of questions with as many items, all with kin or all without, some at a time."""
    places: dict[tuple[int, bool], list[int]] = {}
    for place, question in enumerate(questions):
        places.setdefault((len(question.features), question.features.kin is None), []).append(place)
    for (items, _), alike in places.items():
        size = max(1, ITEMS_TOGETHER // items)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))


def _decided(published: Published, question: Question, noise: Noise, found: Particles) -> Decision:
    part = question.known
    taken = part.inside
    first_K: Floats = np.empty(0)
    chosen: list[Slot] = []
    for place in range(question.slots):
        if place:
            found.remove(chosen[-1].index)
        rest, eligible = part.eligible - taken, part.eligible - place
        pi_K = found.pi(rest)
        share, uniform = _beyond(published, rest, eligible), noise.uniform(CHOICE, place)
        if uniform < share:
            index, propensity, taken = taken, share / rest, taken + 1
        else:
            index = _pick(pi_K, (uniform - share) / (1 - share))
            propensity = float(pi_K[index])
        if not place:
            first_K = pi_K if not rest else np.where(found.open_K, pi_K, share / rest)
        mean, weights_M = float(found.mean_K[index]), found.weights(index)
        chosen.append(
            Slot(
                index=index,
                score=published.low + (published.high - published.low) * mean,
                propensity=propensity,
                explored=mean < found.greatest - TIE_SIZE,
                member_propensities_M=found.propensities(index),
                member_means_M=found.means(index),
                models=published.models if weights_M is None else published.named(weights_M),
                shares_M=None if weights_M is None else published.shares(weights_M),
            )
        )
    return Decision(tuple(chosen), first_K, None if question.features.kin is None else found.all_means())


def probabilities(published: Published, features: Features, history: History | None, seed: int) -> Law:
    """The law of a decision with one slot, before anything is drawn from it."""
    noise = Noise(seed, published.law.particles)
    found = particles(published, [features], [history], [noise], [len(features)])[0]
    return Law(found.pi(), found.all_propensities(), found.mean_K, found.all_means())


def _pick(pi_K: Floats, uniform: float) -> int:
    """The item whose share of [0, 1) holds `uniform`; rounding never picks an item of probability 0."""
    edges_K = np.cumsum(pi_K)
    return int(np.searchsorted(edges_K, uniform * edges_K[-1], side="right"))
