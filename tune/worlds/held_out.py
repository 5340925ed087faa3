"""What a world said of choices that it was not fitted on, beside what came of them.

Every error is between users: a user's events are one unit. Shapes: N events, U users, G groups, B bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from actors.features.features import Floats, Ints
from cluster.statistics import Interval, ratio_error
from tune.worlds.segments import OTHERS, Segment

LEVEL = 0.95
LEAST_USERS, LEAST_EITHER, LEAST_PAIRS = 20, 5.0, 100
"""Users of a group and its rewards of either end; pairs of events of one user. Fewer allow no interval."""
BINS = 10


@dataclass(frozen=True)
class Compared:
    """A mean of some events: what came, what the world said, and the interval of the first minus the second."""

    name: str
    events: int
    users: int
    real: float
    world: float
    difference: Interval
    error: float

    @property
    def p_value(self) -> float:
        """Of a world that is right here, by Student's t over users."""
        return 2 * float(stats.t.sf(abs(self.difference.value) / self.error, self.users - 1)) if self.error > 0 else 1.0


@dataclass(frozen=True)
class Family:
    """The groups of one segment. spread: standard deviation between their means in truth; missed: of what the world
    gets wrong of them; noise is taken out of both. p_value: of a world that misses nothing."""

    name: str
    groups: tuple[Compared, ...]
    spread: float
    missed: float
    p_value: float


@dataclass(frozen=True)
class HeldOut:
    """N events. said_N: the world's mean reward of what was chosen, fitted without the event's user.

    offered_N: its mean over all that was on offer. level_N: the mean reward of what it was fitted on; departures are
    from there, since a mean that leaves an event out is lower where the event is high. weight_N: uniform choice over
    the logged probability, where the log says it.
    """

    real_N: Floats
    said_N: Floats
    offered_N: Floats
    level_N: Floats
    user_N: Ints
    segments: tuple[Segment, ...]
    weight_N: Floats | None

    def compare(self, name: str, rows: Ints, weight_N: Floats | None = None) -> Compared:
        """The (weighted) mean of some events. The error is never below that of independent events."""
        weight_n = np.ones(len(rows)) if weight_N is None else weight_N[rows]
        total = float(weight_n.sum())
        missed_n = self.real_N[rows] - self.said_N[rows]
        users, user_n = np.unique(self.user_N[rows], return_inverse=True)
        missed_U: Floats = np.bincount(user_n, weight_n * missed_n).astype(np.float64)
        value, between = ratio_error(missed_U, np.bincount(user_n, weight_n).astype(np.float64))
        alone = float(np.std(self.real_N - self.said_N) * np.linalg.norm(weight_n) / total)
        error = max(between, alone) if len(users) > 1 else alone
        return Compared(
            name=name,
            events=len(rows),
            users=len(users),
            real=float(weight_n @ self.real_N[rows]) / total,
            world=float(weight_n @ self.said_N[rows]) / total,
            difference=_student(value, error, len(users)),
            error=error,
        )

    def mean(self) -> Compared:
        return self.compare("mean reward", np.arange(len(self.real_N)))

    def under_uniform(self) -> Compared | None:
        """The mean reward had items been chosen uniformly, by inverse propensities; None without them."""
        if self.weight_N is None:
            return None
        return self.compare("mean reward under uniform choice", np.arange(len(self.real_N)), self.weight_N)

    def family(self, segment: Segment) -> Family | None:
        """Groups of too few users or rewards count as one; None where fewer than two are left."""
        rows = [np.flatnonzero(segment.group_N == group) for group in range(len(segment.names))]
        enough = [self._enough(each) and name != OTHERS for each, name in zip(rows, segment.names, strict=True)]
        groups = [self.compare(segment.names[g], rows[g]) for g in range(len(rows)) if enough[g]]
        rest = np.concatenate([*(rows[g] for g in range(len(rows)) if not enough[g]), np.empty(0, np.int64)])
        if self._enough(rest):
            groups.append(self.compare(OTHERS, rest))
        if len(groups) < 2:
            return None
        share_G = np.array([group.events for group in groups]) / sum(group.events for group in groups)
        real_G = np.array([group.real for group in groups])
        error_G = np.array([group.error for group in groups])
        missed_G = np.array([group.difference.value for group in groups])
        spread = share_G @ ((real_G - share_G @ real_G) ** 2 - error_G**2)
        missed = share_G @ (missed_G**2 - error_G**2)
        z_G = special.ndtri(np.maximum([group.p_value for group in groups], 1e-300) / 2)
        p_value = float(stats.chi2.sf(z_G @ z_G, len(groups)))
        return Family(segment.name, tuple(groups), float(max(spread, 0) ** 0.5), float(max(missed, 0) ** 0.5), p_value)

    def _enough(self, rows: Ints) -> bool:
        low, high = float(self.real_N.min()), float(self.real_N.max())
        either = min(float((self.real_N[rows] - low).sum()), float((high - self.real_N[rows]).sum()))
        users = len(np.unique(self.user_N[rows]))
        return users >= LEAST_USERS and high > low and either / (high - low) >= LEAST_EITHER

    def slope(self) -> Interval | None:
        """What came for each unit of reward that the world said: 1 is calibrated; None if it says one thing."""
        return self._slopes([self.said_N - self.level_N])

    def choice_slope(self) -> Interval | None:
        """The same of the part that depends on the choice, said minus offered, with the situation's part held: what
        comparing policies rests on."""
        return self._slopes([self.said_N - self.offered_N, self.offered_N - self.level_N])

    def _slopes(self, columns: Sequence[Floats]) -> Interval | None:
        """The first coefficient of least squares, with an error between users (Liang & Zeger 1986)."""
        least = 1e-9 * max(float(np.ptp(self.real_N)), 1e-9)
        moving = [column - column.mean() for column in columns if float(np.ptp(column)) > least]
        if float(np.ptp(columns[0])) <= least:
            return None
        x_ND = np.stack(moving, axis=1)
        inverse_DD = np.linalg.pinv(x_ND.T @ x_ND)
        centred_N = self.real_N - self.real_N.mean()
        slope_D = inverse_DD @ (x_ND.T @ centred_N)
        score_ND = x_ND * (centred_N - x_ND @ slope_D)[:, None]
        users = int(self.user_N.max()) + 1
        score_UD = np.stack([np.bincount(self.user_N, score_N, users) for score_N in score_ND.T], axis=1)
        error = np.sqrt((inverse_DD @ (score_UD.T @ score_UD) @ inverse_DD)[0, 0] * users / (users - 1))
        return _student(float(slope_D[0]), float(error), users)

    def auc(self) -> Interval | None:
        """Probability that the world said more of an event above the mean reward than of one below (ties half), with
        an error between users (Obuchowski 1997); None where all rewards are alike."""
        above_N, departure_N = self.real_N > self.real_N.mean(), self.said_N - self.level_N
        high, low = np.sort(departure_N[above_N]), np.sort(departure_N[~above_N])
        if not len(high) or not len(low):
            return None
        of_high_N = _below(low, departure_N) / len(low)
        of_low_N = 1 - _below(high, departure_N) / len(high)
        value = float(of_high_N[above_N].mean())
        pull_N = np.where(above_N, (of_high_N - value) / len(high), (of_low_N - value) / len(low))
        pull_U = np.bincount(self.user_N, pull_N)
        users = len(pull_U)
        return _student(value, float(np.sqrt(pull_U @ pull_U * users / (users - 1))), users)

    def bins(self) -> list[Compared]:
        """Events by what the world said of them, in up to ten equal parts: the calibration curve."""
        edges = np.unique(np.quantile(self.said_N, np.arange(1, BINS) / BINS))
        bin_N = np.searchsorted(edges, self.said_N, side="right")
        return [self.compare(f"bin {b + 1}", np.flatnonzero(bin_N == b)) for b in np.unique(bin_N)]

    def between_users(self) -> tuple[float, float, Interval] | None:
        """Correlation of a user's rewards, in truth and in the world, and the interval of their difference.

        The mean product of two different events of one user, around the mean, over the variance of rewards. None
        where there are too few such pairs.
        """
        counts_U = np.bincount(self.user_N).astype(np.float64)
        pairs_U, variance = counts_U * (counts_U - 1), float(self.real_N.var())
        if pairs_U.sum() < LEAST_PAIRS or variance == 0:
            return None
        real_U, world_U = (self._products(values_N) / variance for values_N in (self.real_N, self.said_N))
        value, error = ratio_error(real_U - world_U, pairs_U)
        several = int((pairs_U > 0).sum())
        return (
            float(real_U.sum() / pairs_U.sum()),
            float(world_U.sum() / pairs_U.sum()),
            _student(value, error, several),
        )

    def _products(self, values_N: Floats) -> Floats:
        centred_N = values_N - values_N.mean()
        return np.asarray(np.bincount(self.user_N, centred_N) ** 2 - np.bincount(self.user_N, centred_N**2))


def _below(sorted_: Floats, values_N: Floats) -> Floats:
    """How many of the sorted numbers are below each value, ties half."""
    return (np.searchsorted(sorted_, values_N, "left") + np.searchsorted(sorted_, values_N, "right")) / 2


def _student(value: float, error: float, users: int) -> Interval:
    reach = float(stats.t.ppf((1 + LEVEL) / 2, max(users - 1, 1))) * error
    return Interval(value, value - reach, value + reach)
