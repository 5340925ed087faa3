"""What each off-policy estimator adds up: with ρ = π(a|x)/p(a|x), r the reward and q(x, a) a reward model.

    ips          mean of ρr                               (Horvitz, Thompson 1952)
    clipped_ips  mean of wr,  w = min(ρ, λ)               (Ionides 2008; Bottou et al. 2013)
    snips        Σρr / Σρ                                 (Swaminathan, Joachims 2015)
    dm           mean of Σ_k π(k|x) q(x, k)               model-based: no propensity enters
    dr           mean of Σ_k π(k|x) q(x, k) + ρ(r − q)    (Dudík, Langford, Li 2011)
    switch_dr    the same with w = ρ where ρ ≤ λ, else 0  (Wang, Agarwal, Dudík 2017)
    dros         the same with w = λρ/(ρ² + λ)            (Su, Dimakopoulou, Krishnamurthy, Dudík 2020)
    cressie_read as ips, with value and bounds by empirical likelihood (tune.offpolicy.empirical_likelihood)

λ, the `parameter`, is in units of ρ (of ρ² for dros); at infinity the last two are dr and clipped_ips is ips.

Shapes: N events, K candidates (padded).
"""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from actors.features.features import Floats
from cluster.errors import EvidenceError
from tune.log import Log

Method: TypeAlias = Literal["ips", "clipped_ips", "snips", "dm", "dr", "switch_dr", "dros", "cressie_read"]

METHODS: tuple[Method, ...] = get_args(Method)
TUNED: tuple[Method, ...] = ("clipped_ips", "switch_dr", "dros")
"""Methods with a parameter λ."""
MODELLED: tuple[Method, ...] = ("dm", "dr", "switch_dr", "dros")
"""Methods that need a reward model."""


@dataclass(frozen=True)
class Terms:
    """What an estimate is the ratio of: Σ above / Σ below, per event.

    weight_N: w, the ratio as the method uses it (1 for dm).
    """

    method: Method
    parameter: float | None
    above_N: Floats
    below_N: Floats
    weight_N: Floats


@dataclass(frozen=True)
class Scored:
    """A log seen by one policy, before a method puts it together.

    ratio_N: ρ, None without propensities. direct_N, residual_N: Σ_k π(k) q(k) and r − q(a), None without a model.
    """

    reward_N: Floats
    ratio_N: Floats | None
    direct_N: Floats | None
    residual_N: Floats | None

    @classmethod
    def of(cls, log: Log, policy_NK: Floats, q_NK: Floats | None = None) -> "Scored":
        """Raises EvidenceError where the policy, a reward or the reward model is not what it must be, naming the
        event."""
        check_policy(log, policy_NK)
        outside_N = (log.reward_N < 0) | (log.reward_N > 1)
        _refuse(outside_N, "the scaled reward is not in [0, 1]", "declare the kind's true least and greatest reward")
        rows = np.arange(len(log))
        ratio_N = None if log.propensity_N is None else policy_NK[rows, log.action_N] / log.propensity_N
        if q_NK is None:
            return cls(log.reward_N, ratio_N, None, None)
        q_NK = _checked_model(log, q_NK)
        direct_N = np.asarray(np.einsum("nk,nk->n", policy_NK, q_NK))
        return cls(log.reward_N, ratio_N, direct_N, log.reward_N - q_NK[rows, log.action_N])

    def terms(self, method: Method, parameter: float | None = None) -> Terms:
        """Raises EvidenceError where the method needs what is not there."""
        check_parameter(method, parameter)
        ones_N = np.ones(len(self.reward_N))
        if method == "dm":
            return Terms(method, None, self._model(method)[0], ones_N, ones_N)
        if self.ratio_N is None:
            raise EvidenceError(
                f"{method} needs the propensity of every logged action, and this log does not have them; "
                "map the column that holds them, or use the model-based estimate (dm)"
            )
        weight_N = weights(method, self.ratio_N, parameter)
        if method not in MODELLED:
            below_N = weight_N if method == "snips" else ones_N
            return Terms(method, parameter, weight_N * self.reward_N, below_N, weight_N)
        direct_N, residual_N = self._model(method)
        return Terms(method, parameter, direct_N + weight_N * residual_N, ones_N, weight_N)

    def _model(self, method: Method) -> tuple[Floats, Floats]:
        if self.direct_N is None or self.residual_N is None:
            raise EvidenceError(f"{method} needs a reward model; give q_NK (tune.offpolicy.cross_fit), or use snips")
        return self.direct_N, self.residual_N


def terms(
    method: Method, log: Log, policy_NK: Floats, q_NK: Floats | None = None, parameter: float | None = None
) -> Terms:
    """The terms of an estimate, event by event, so that two policies can be compared in pairs.

    Args:
        policy_NK: the policy's probabilities of each event's candidates.
        q_NK: a reward model that has not seen the event's user; for dm and the doubly robust methods.
        parameter: λ; required where the method has one, refused elsewhere.

    Raises:
        EvidenceError: the log has no propensities and the method needs them, or the policy, the reward model or
            the parameter is not what it must be; the message names the event and the remedy.
    """
    return Scored.of(log, policy_NK, q_NK if method in MODELLED else None).terms(method, parameter)


def weights(method: Method, ratio_N: Floats, parameter: float | None = None) -> Floats:
    """w from ρ."""
    if parameter is None or parameter == np.inf:
        return ratio_N
    if method == "clipped_ips":
        return np.minimum(ratio_N, parameter)
    if method == "switch_dr":
        return np.where(ratio_N <= parameter, ratio_N, 0.0)
    return np.asarray(parameter * ratio_N / np.maximum(ratio_N**2 + parameter, 1e-300))


def check_parameter(method: Method, parameter: float | None) -> None:
    if method not in METHODS:
        raise EvidenceError(f"there is no estimator {method!r}; choose {', '.join(METHODS)}")
    if method in TUNED and (parameter is None or not parameter >= 0):
        raise EvidenceError(f"{method} needs a parameter of 0 or more, found {parameter}; give one, or use evaluate")
    if method not in TUNED and parameter is not None:
        raise EvidenceError(f"{method} has no parameter, found {parameter:g}; leave it out")


def check_policy(log: Log, policy_NK: Floats) -> None:
    """Raises EvidenceError unless every row is a distribution over the event's candidates."""
    if policy_NK.shape != log.mask_NK.shape:
        raise EvidenceError(
            f"policy has shape {policy_NK.shape}; the log has {log.mask_NK.shape[0]} events with up to "
            f"{log.mask_NK.shape[1]} candidates: give one row an event, padded with 0"
        )
    _refuse(~np.isfinite(policy_NK).all(1), "policy has NaN or infinite probabilities", "mask before dividing")
    inside = (policy_NK >= 0) & ((policy_NK == 0) | log.mask_NK)
    _refuse(~inside.all(1), "policy has probability below 0 or on an item that is no candidate", "mask it")
    sums_N = policy_NK.sum(1)
    wrong_N = np.abs(sums_N - 1) > 1e-6
    first = f", {sums_N[np.argmax(wrong_N)]:g}," if wrong_N.any() else ""
    _refuse(wrong_N, f"policy's probabilities sum to{first} not to 1", "normalise over candidates")


def _checked_model(log: Log, q_NK: Floats) -> Floats:
    if q_NK.shape != log.mask_NK.shape:
        raise EvidenceError(f"a reward model of shape {log.mask_NK.shape} is needed, found {q_NK.shape}; fit it again")
    q_NK = np.where(log.mask_NK, q_NK, 0.0)
    inside_NK = (q_NK >= 0) & (q_NK <= 1)
    _refuse(~inside_NK.all(1), "the reward model is not finite or not in [0, 1]", "clip it, or fit it again")
    return q_NK


def _refuse(wrong_N: Any, fault: str, remedy: str) -> None:
    if wrong_N.any():
        raise EvidenceError(f"event {int(np.argmax(wrong_N))}: {fault} ({int(wrong_N.sum())} such); {remedy}")
