"""Candidates: one bandit per prototype of the current contexts and code, as arrays for `bandits.mixture`.

Shapes: U tasks, J prototypes, S codes, C = J * S candidates at most, Q code dimensions, A arms, D features,
R rank, X context features.
"""

import logging
from collections import Counter
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans

from actors.bandits.mixture import LEAST_VARIANCE, Mixture
from actors.features.features import Floats, Ints
from cluster.errors import ModelError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prototypes:
    """centre_JQ; nearest_U: the prototype of each task; example_J: the task nearest to each prototype."""

    centre_JQ: Floats
    nearest_U: Ints
    example_J: Ints

    @classmethod
    def of(cls, code_UQ: Floats, count: int, seed: int) -> "Prototypes":
        """k-means; fewer prototypes where there are fewer distinct contexts."""
        if not len(code_UQ):
            raise ModelError("no contexts to generate candidates for; the traffic has no users")
        count = min(count, len(np.unique(code_UQ.round(6), axis=0)))
        fit = KMeans(count, n_init=2, random_state=seed).fit(code_UQ)
        example_J = fit.transform(code_UQ).argmin(0)
        return cls(fit.cluster_centers_, fit.labels_.astype(np.int64), example_J.astype(np.int64))


@dataclass(frozen=True)
class Candidates:
    """Generated priors that passed the checks, and for whom each was made.

    factor_ADD is shared (Cholesky factor of S(τ) + diag(v)); ranks_CADR are V e^g. domains[c] holds the keys of
    the users nearest to the candidate's prototype, texts[c] the context of the nearest one, examples[c] its key.
    dropped: reason -> count. fingerprint: of the feature map that the parameters belong to.
    """

    names: tuple[str, ...]
    means_CAD: Floats
    factor_ADD: Floats
    ranks_CADR: Floats
    noise: float
    prototype_C: Ints
    prototypes_CQ: Floats
    encoder_QX: Floats
    temperature: float
    domains: tuple[tuple[str, ...], ...]
    texts: tuple[str, ...]
    examples: tuple[str, ...]
    dropped: dict[str, int]
    fingerprint: str
    base_AD: Floats | None = None
    least_variance: float = LEAST_VARIANCE

    def __len__(self) -> int:
        return len(self.names)

    def mixture(self, name: str, chosen: Ints | None = None) -> Mixture:
        """The chosen candidates (default all) as one member of the ensemble."""
        chosen = np.arange(len(self)) if chosen is None else np.asarray(chosen, np.int64)
        if not len(chosen):
            raise ModelError(f"{name}: a member needs one candidate at least; dropped were {self.dropped}")
        return Mixture(
            name=name,
            means_CAD=self.means_CAD[chosen],
            factor_ADD=self.factor_ADD,
            ranks_CADR=self.ranks_CADR[chosen],
            noise=self.noise,
            base_AD=self.base_AD,
            least_variance=self.least_variance,
            encoder_HX=self.encoder_QX,
            prototypes_CH=self.prototypes_CQ[chosen],
            temperature=self.temperature,
            names_C=tuple(self.names[c] for c in chosen),
        )


@dataclass(frozen=True)
class Parameters:
    """What the head says: means_CAD, ranks_CADR, and shared covariance_ADD and noise, of one fingerprint."""

    means_CAD: Floats
    ranks_CADR: Floats
    covariance_ADD: Floats
    noise: float
    fingerprint: str


def check(parameters: Parameters, arms: int, dimension: int, fingerprint: str) -> tuple[Ints, Counter[str]]:
    """Candidates that can be used, and why the others cannot.

    A wrong fingerprint, dimension, noise or shared covariance drops all; what is not finite drops its own.
    """
    count = len(parameters.means_CAD)
    reason = _shared_fault(parameters, arms, dimension, fingerprint)
    if reason:
        dropped = Counter({reason: count})
        kept = np.zeros(0, np.int64)
    else:
        finite = np.isfinite(parameters.means_CAD).all((1, 2)) & np.isfinite(parameters.ranks_CADR).all((1, 2, 3))
        kept = np.flatnonzero(finite)
        dropped = Counter({"not finite": count - len(kept)} if len(kept) < count else {})
    for reason, number in dropped.items():
        log.warning("%d of %d candidates dropped: %s", number, count, reason)
    return kept, dropped


def _shared_fault(parameters: Parameters, arms: int, dimension: int, fingerprint: str) -> str | None:
    if parameters.fingerprint != fingerprint:
        return f"fingerprint {parameters.fingerprint[:12]} is not the feature map's {fingerprint[:12]}"
    shapes = (parameters.means_CAD.shape[1:], parameters.covariance_ADD.shape, parameters.ranks_CADR.shape[1:3])
    if shapes != ((arms, dimension), (arms, dimension, dimension), (arms, dimension)):
        return f"shapes {shapes} do not fit {arms} arms x {dimension} features"
    if not (np.isfinite(parameters.covariance_ADD).all() and np.isfinite(parameters.noise)):
        return "covariance or noise not finite"
    try:
        np.linalg.cholesky(parameters.covariance_ADD)
    except np.linalg.LinAlgError:
        return "covariance not positive definite"
    return None if parameters.noise > 0 else "noise not above zero"
