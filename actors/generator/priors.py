"""The pooled prior that the head starts from, fitted once without each fold of users and once with all.

A training user's rows must not be in the μ₀ and S₀ that its own likelihood is taken under, or the shift that is
left to learn looks smaller than it is for a new user. Fold F - 1 is the fit on all users; it serves users who
took no part in it, and candidates.

Shapes: F folds, A arms, D features.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actors.bandits import pooled
from actors.features.features import Floats, Ints

SMALLEST_NOISE = 1e-4


@dataclass(frozen=True)
class Priors:
    """mean_FAD (μ₀), and for S₀ its two parts: prior_FDD (Λ₀) and data_FADD (Σφφᵀ/σ²), S₀ = (Λ₀ + data)⁻¹.

    noise: σ² of the fit on all users.
    """

    mean_FAD: Floats
    prior_FDD: Floats
    data_FADD: Floats
    noise: float

    @property
    def whole(self) -> int:
        """The fold that left nobody out."""
        return len(self.mean_FAD) - 1

    @classmethod
    def of(cls, fits: Sequence[pooled.Pooled]) -> "Priors":
        """From fits without fold 0, 1, ..., and last the one on all users."""
        mean, prior, data = [], [], []
        for fit in fits:
            prior_DD = np.diag(fit.prior_D)
            mean.append(np.linalg.solve(fit.precision_ADD, fit.shift_AD[..., None])[..., 0])
            prior.append(prior_DD)
            data.append(fit.precision_ADD - prior_DD)
        return cls(np.stack(mean), np.stack(prior), np.stack(data), max(fits[-1].noise, SMALLEST_NOISE))


def crossfit(
    phi_ND: Floats, arm_N: Ints, reward_N: Floats, fold_N: Ints, arms: int, folds: int, whole: pooled.Pooled
) -> Priors:
    """Fit without each fold of users; `whole` is the fit on all of them."""
    fits = []
    for f in range(folds):
        rows = fold_N != f
        fits.append(pooled.fit(phi_ND[rows], arm_N[rows], reward_N[rows], arms, intercepts=whole.intercepts))
    return Priors.of([*fits, whole])


def fold_of(key: str, folds: int) -> int:
    """A user's fold, by hash: the same in every process and for every set of users."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little") % folds
