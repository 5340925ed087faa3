"""Does another cluster's model do better on a provider's content? Evidence that may be looked at every day.

A value is one user of one look: the mean log-likelihood of that user's outcomes under a rival cluster's model, less
that under the model of the provider's own cluster, cut to ±BOUND nats. Against "on average no better" a bettor who
puts λ on the rival holds Π (1 + λ·x), which exceeds 1/α with a chance of at most α, however often one looks (Ville's
inequality; Waudby-Smith & Ramdas 2024, arXiv:2010.09686). Many bettors share the stake: one for each bet λ, since
nobody knows how large the difference is, and one for each start, every START_DAYS of a year, since nobody knows when
an audience changes, and who bets since January has learned from the months before (Shin, Ramdas & Rinaldo 2023).

A year's error rate α is shared by the rivals equally; its k-th test has α/(k(k + 1)), which sums to α: a provider that
was moved, or moved back, is watched anew. Shapes: U users, R rivals, S starts, L bets.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, ndtri

from actors.features.features import Floats
from cluster.errors import ModelError

BOUND = 1.0
"""Nats per outcome beyond which a user counts no further."""
YEAR_DAYS, START_DAYS = 365, 28
STARTS = np.arange(0, YEAR_DAYS, START_DAYS)
BETS = np.geomspace(0.01, 0.9, 12) / BOUND


@dataclass(frozen=True)
class Trial:
    """The evidence on one provider.

    Args:
        rivals: R names of clusters.
        began: day (ordinal) on which its year began; opened: on which this test did.
        number: which test of the year it is, from 1 on.
        wealth_RSL: logarithm of what each bettor holds of a stake of 1.
        users_S: values seen since each start; gain_RS: their sum against each rival, nats.
    """

    rivals: tuple[str, ...]
    began: int
    opened: int
    number: int
    wealth_RSL: Floats
    users_S: NDArray[np.int64]
    gain_RS: Floats

    @classmethod
    def begin(cls, rivals: tuple[str, ...], day: int) -> "Trial":
        """The first test of a year that begins on this day."""
        return cls(rivals, day, day, 1, *_nothing(rivals))

    def again(self, rivals: tuple[str, ...], day: int) -> "Trial":
        """The next test of the year, of other rivals."""
        now = self.at(day)
        return Trial(rivals, now.began, day, now.number + 1, *_nothing(rivals))

    def at(self, day: int) -> "Trial":
        """As it is at the start of a day: every year has its own error rate."""
        years = (day - self.began) // YEAR_DAYS
        return self if years < 1 else Trial.begin(self.rivals, self.began + years * YEAR_DAYS)

    def look(self, day: int, gains_UR: Floats) -> "Trial":
        """With a look's users.

        Raises:
            ModelError: a value that is no number, or not one for each rival.
        """
        if gains_UR.shape[1:] != (len(self.rivals),) or not np.isfinite(gains_UR).all():
            raise ModelError(f"gains {gains_UR.shape} must be finite, one for each of {len(self.rivals)} rivals")
        now = self.at(day)
        cut_UR = np.clip(gains_UR, -BOUND, BOUND)
        step_RL = np.log1p(cut_UR[:, :, None] * BETS).sum(0)
        begun_S = now.began + STARTS <= day
        return replace(
            now,
            wealth_RSL=now.wealth_RSL + np.where(begun_S[None, :, None], step_RL[:, None], 0.0),
            users_S=now.users_S + len(cut_UR) * begun_S,
            gain_RS=now.gain_RS + cut_UR.sum(0)[:, None] * begun_S,
        )

    def log_e(self) -> Floats:
        """Evidence for each rival, R, in nats: the mean of what the bettors hold."""
        starts_bets = self.wealth_RSL.shape[1] * self.wealth_RSL.shape[2]
        return np.asarray(logsumexp(self.wealth_RSL, axis=(1, 2)) - np.log(starts_bets))

    def needed(self, alpha: float) -> float:
        """Evidence at which a rival has shown that it does better, nats."""
        return float(np.log(len(self.rivals) * self.number * (self.number + 1) / alpha))

    def since(self, rival: int) -> tuple[int, float, int]:
        """Where the evidence for a rival comes from: day of the start that holds most, mean gain since, users."""
        start = int(np.argmax(logsumexp(self.wealth_RSL[rival], axis=1)))
        users = int(self.users_S[start])
        return (
            max(self.began + int(STARTS[start]), self.opened),
            float(self.gain_RS[rival, start]) / max(users, 1),
            users,
        )

    def winner(self, alpha: float) -> int | None:
        """The rival that has shown that it does better, at the error rate alpha a year."""
        if not self.rivals:
            return None
        log_e_R = self.log_e()
        best = int(np.argmax(log_e_R))
        return best if log_e_R[best] >= self.needed(alpha) else None


def _nothing(rivals: tuple[str, ...]) -> tuple[Floats, NDArray[np.int64], Floats]:
    shape = (len(rivals), len(STARTS))
    return np.zeros((*shape, len(BETS))), np.zeros(len(STARTS), np.int64), np.zeros(shape)


def looks_needed(gain: float, deviation: float, users: int, rivals: int, alpha: float, chance: float = 0.95) -> float:
    """Looks after a change of audience within which a provider moves with this chance, in the first test of a year.

    START_DAYS until somebody bets anew, then what the best bet of that start needs. Its wealth grows by
    g = λ·gain − λ²·(deviation² + gain²)/2 a user, with deviation λ·deviation; n users suffice where
    n·g − z·λ·deviation·√n ≥ ln(2·R/alpha·S·L) (normal approximation, many small steps). Where the year of the provider
    turns meanwhile, the time counts from there.

    Args:
        gain, deviation: of a user's value against the better rival, nats.
        users: per look.
    """
    needed, noise_L = float(np.log(2 * rivals / alpha * len(STARTS) * len(BETS))), ndtri(chance) * BETS * deviation
    growth_L = BETS * gain - BETS**2 * (deviation**2 + gain**2) / 2
    if growth_L.max() <= 0:
        return float("inf")
    growth_L, noise_L = growth_L[growth_L > 0], noise_L[growth_L > 0]
    root_L = (noise_L + np.sqrt(noise_L**2 + 4 * growth_L * needed)) / (2 * growth_L)
    return START_DAYS + float(np.ceil(root_L.min() ** 2 / users))
