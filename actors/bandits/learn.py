"""Learning: one final outcome at a time, in the journal's order, by rank-one updates.

`step` donates its state: the arrays of the argument change in place and the argument must not be used again.
Batching may change how outcomes arrive, never the arithmetic. Factorisation waits for `publish`.
"""

import copy
import logging
import math
from dataclasses import dataclass, field, replace

import numpy as np

from actors.bandits.ensemble import Ensemble, Prior
from actors.bandits.history import History
from actors.bandits.law import Slot
from actors.bandits.members import SHARING, Custom, Member, Model, Shared, View, followed
from actors.bandits.posterior import Gaussian, Statistics
from actors.bandits.published import Published
from actors.bandits.shares import FREE_NOISE, ItemLearner
from actors.bandits.weights import Performance, alternatives, blend, logits, worth
from actors.features.features import Features, Floats
from cluster.errors import ModelError

log = logging.getLogger(__name__)

FORGET_EVERY = 256
"""Outcomes between two shrinkings toward the prior."""


@dataclass(frozen=True)
class Outcome:
    """One final reward with what was logged at the decision.

    user: key of the history (user, else session), None where neither is known. phi_D, arm, item: the chosen
    item's features. reward: as the world gave it. propensity and member_propensities_M: π(a), π_m(a); None where
    the members had no say, so that nothing can be said of their values. provider, cluster: the item's rows of
    parameters of the members of these names, -1 for unknown. member_means_M: what the members thought of it, in scaled
    reward, anything for one without scores; None where that was not logged.
    """

    user: str | None
    phi_D: Floats
    arm: int
    item: int
    reward: float
    propensity: float
    member_propensities_M: Floats | None
    provider: int = -1
    cluster: int = -1
    member_means_M: Floats | None = None

    @classmethod
    def of(
        cls,
        features: Features,
        index: int,
        *,
        user: str | None,
        reward: float,
        propensity: float,
        member_propensities_M: Floats | None,
        member_means_M: Floats | None = None,
    ) -> "Outcome":
        """Of item `index` of a decision; the rest as in this class. Means count where items have kin."""
        kin = features.kin
        return cls(
            user=user,
            phi_D=features.phi_KD[index],
            arm=int(features.arm_K[index]),
            item=int(features.item_K[index]),
            reward=reward,
            propensity=propensity,
            member_propensities_M=member_propensities_M,
            provider=-1 if kin is None else int(kin.provider_K[index]),
            cluster=-1 if kin is None else int(kin.cluster_K[index]),
            member_means_M=None if kin is None else member_means_M,
        )

    @classmethod
    def chosen(cls, features: Features, slot: Slot, user: str | None, reward: float) -> "Outcome":
        """Of what the law put into a slot."""
        return cls.of(
            features,
            slot.index,
            user=user,
            reward=reward,
            propensity=slot.propensity,
            member_propensities_M=slot.member_propensities_M,
            member_means_M=slot.member_means_M,
        )

    def row(self, view: View) -> int:
        """The row of parameters that learns of it, -1 for none."""
        return {"features": self.arm, "items": self.item, "cluster": self.cluster, "provider": self.provider}[view]


@dataclass
class State:
    """What a client's learner knows of one version."""

    ensemble: Ensemble
    statistics: dict[str, Statistics]
    models: dict[str, Model]
    performance: Performance
    items: ItemLearner
    histories: dict[str, History] = field(default_factory=dict)
    count: int = 0
    changed: set[str] = field(default_factory=set)
    """Users whose history changed since the last publication."""
    epoch: int = 0
    stale: dict[str, set[int]] = field(default_factory=dict)
    """Rows of parameters that learned since the last publication, by member."""
    posteriors: dict[str, Gaussian] = field(default_factory=dict)


def start(ensemble: Ensemble) -> State:
    """A learner that has seen nothing since the version was made."""
    priors = {p.name: p for p in ensemble.members if isinstance(p, Prior)}
    statistics = {n: Statistics.start(p.precision_ADD, p.shift_AD, p.noise) for n, p in priors.items()}
    noises = [p.noise for p in priors.values()]
    return State(
        ensemble=ensemble,
        statistics=statistics,
        models={m.name: copy.deepcopy(m.model) for m in ensemble.members if isinstance(m, Custom)},
        performance=Performance.start(ensemble.values_M.copy(), ensemble.errors_M),
        items=ItemLearner(ensemble.scored_M, float(np.mean(noises)) if noises else FREE_NOISE, ensemble.items),
        histories=dict(ensemble.histories),
        stale={name: _rows(prior) for name, prior in priors.items()},
    )


def step(state: State, outcome: Outcome) -> State:
    """Every model learns from every final reward, unweighted; performance is counted of members that had a say.

    Raises ModelError, with nothing changed, for an outcome that would spoil what was learned.
    """
    ensemble = state.ensemble
    _check(outcome, ensemble)
    reward = (outcome.reward - ensemble.low) / (ensemble.high - ensemble.low)
    ones = np.ones(1)
    for prior in ensemble.members:
        if isinstance(prior, Prior):
            row = outcome.row(prior.view)
            if row >= 0:
                phi_D = ones if prior.view == "items" else outcome.phi_D
                state.statistics[prior.name].learn(phi_D, row, reward)
                state.stale.setdefault(prior.name, set()).add(row)
    for name, model in state.models.items():
        try:
            model.learn(outcome.phi_D, outcome.arm, outcome.item, reward)
        except Exception:  # the user's code: it loses this outcome, the others do not stop for it
            log.exception("own model %r could not learn outcome %d; it goes on without it", name, state.count)
    if outcome.user is not None and ensemble.history:
        past = state.histories.get(outcome.user) or History.empty(ensemble.dimension)
        state.histories[outcome.user] = past.append(outcome.phi_D, outcome.arm, reward, ensemble.history)
        state.changed.add(outcome.user)
    if outcome.member_propensities_M is not None:
        state.performance.observe(
            outcome.member_propensities_M, outcome.propensity, reward, ensemble.weights.half_life_decisions
        )
    if outcome.member_means_M is not None and outcome.item >= 0:
        state.items.learn(outcome.item, outcome.member_means_M, reward)
    state.count += 1
    if state.count % FORGET_EVERY == 0:
        _forget(state)
    return state


def _check(outcome: Outcome, ensemble: Ensemble) -> None:
    if not 0 < outcome.propensity <= 1:
        raise ModelError(f"propensity {outcome.propensity} of an outcome must be above 0, at most 1; see the journal")
    if not (math.isfinite(outcome.reward) and np.isfinite(outcome.phi_D).all()):
        raise ModelError(f"reward {outcome.reward} and features of an outcome must be finite; see the journal")
    expected = ((ensemble.dimension,), (len(ensemble.members),))
    members_M = outcome.member_propensities_M
    found = (outcome.phi_D.shape, expected[1] if members_M is None else members_M.shape)
    if found != expected:
        raise ModelError(f"features and member propensities {found} of an outcome do not fit {expected}")
    if outcome.member_means_M is not None and outcome.member_means_M.shape != expected[1]:
        raise ModelError(f"means of {outcome.member_means_M.shape} of an outcome do not fit members {expected[1]}")


def _forget(state: State) -> None:
    for prior in state.ensemble.members:
        if isinstance(prior, Prior) and prior.half_life is not None:
            state.statistics[prior.name].forget(0.5 ** (FORGET_EVERY / prior.half_life))
            state.stale[prior.name] = _rows(prior)


def _rows(prior: Prior) -> set[int]:
    """All rows of a member that is published by rows; the others are published whole."""
    return set(range(len(prior.shift_AD))) if prior.view in SHARING else set()


def publish(state: State) -> Published:
    """Factor what changed and number it. The state goes on; what is published never changes."""
    views = {prior.name: prior.view for prior in state.ensemble.members if isinstance(prior, Prior)}
    for name, rows in state.stale.items():
        known, before = state.statistics[name], state.posteriors.get(name)
        state.posteriors[name] = known.again(before, rows) if views[name] in SHARING else known.gaussian()
    state.stale.clear()
    state.changed.clear()
    state.items.changed.clear()
    state.epoch += 1
    ensemble = state.ensemble
    value_M, error_M = state.performance.values(ensemble.weights.prior_count)
    logits_M = logits(value_M, error_M, ensemble.weights)
    predefined_M = np.array([member.predefined for member in ensemble.members])
    weights_M = blend(logits_M, predefined_M, ensemble.weights.predefined_floor)
    least_M = ensemble.law.least_worth * ensemble.scored_M  # uniform is asked by epsilon
    asked_M = np.maximum(worth(value_M, error_M, weights_M), least_M)
    return Published(
        members=followed(tuple(_member(state, member) for member in ensemble.members)),
        weights_M=weights_M,
        alternatives_M=asked_M * alternatives(logits_M, ensemble.law),
        law=ensemble.law,
        dimension=ensemble.dimension,
        low=ensemble.low,
        high=ensemble.high,
        epoch=state.epoch,
        values_M=value_M,
        errors_M=error_M,
        weights=ensemble.weights,
        items=state.items.published(),
        residual=ensemble.residual,
    )


def _member(state: State, member: Prior | Member) -> Member:
    if isinstance(member, Prior):
        return Shared(member.name, state.posteriors[member.name], member.view, member.predefined)
    if isinstance(member, Custom):
        return replace(member, model=copy.deepcopy(state.models[member.name]))
    return member
