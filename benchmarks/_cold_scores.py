"""How well newcomers' rewards are told apart, and what of it is chance.

A newcomer's trail holds, after each number of rewards seen, the predictions of all of their first interactions.

Shapes: I interactions of one newcomer; row i of score_II is predicted after the first i rewards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from actors.features.features import Floats


@dataclass(frozen=True)
class Trail:
    """score_II, and the variance of the prediction of each interaction just before its reward came, if known."""

    score_II: Floats
    reward_I: Floats
    variance_I: Floats | None = None

    @property
    def told_I(self) -> Floats:
        """Predict, then learn: each interaction's score just before its own reward."""
        return np.diagonal(self.score_II)


def auc(score_N: Floats, reward_N: Floats) -> float:
    """The chance that a rewarded row scores above one without reward, ties half (Mann-Whitney); NaN without both."""
    good_N = reward_N > reward_N.min(initial=np.inf)
    good, bad = int(good_N.sum()), int((~good_N).sum())
    if not good or not bad:
        return float("nan")
    return float((stats.rankdata(score_N)[good_N].sum() - good * (good + 1) / 2) / (good * bad))


def overall(trails: Sequence[Trail]) -> float:
    """AUC over all newcomers' interactions, predict, then learn."""
    told = np.concatenate([trail.told_I for trail in trails])
    return auc(told, np.concatenate([trail.reward_I for trail in trails]))


def within(trails: Sequence[Trail]) -> float:
    """AUC within users: the mean, over newcomers with both outcomes, of the share of their pairs of a rewarded and
    an unrewarded interaction that are told apart. Both scores of a pair are those made when the earlier one came, so
    that both know the same rewards."""
    return float(np.nanmean([_told_apart(trail) for trail in trails]))


def stepwise(trails: Sequence[Trail]) -> float:
    """The same of scores that each know all rewards before their own. It is biased against whoever learns how often
    a user says yes: the score rises after a yes, and where both outcomes occur the rest are then more often noes."""
    return float(np.nanmean([auc(trail.told_I, trail.reward_I) for trail in trails]))


def calibration(trails: Sequence[Trail]) -> float:
    """Mean square of the standardised errors, predict, then learn: 1 where a model knows how wrong it is."""
    squares = [(t.reward_I - t.told_I) ** 2 / t.variance_I for t in trails if t.variance_I is not None]
    return float(np.concatenate(squares).mean()) if squares else float("nan")


def squared_error(trails: Sequence[Trail]) -> float:
    return float(np.concatenate([(trail.reward_I - trail.told_I) ** 2 for trail in trails]).mean())


def _told_apart(trail: Trail) -> float:
    early, late = np.triu_indices(len(trail.reward_I), 1)
    gap = trail.reward_I[early] - trail.reward_I[late]
    lead = trail.score_II[early, early] - trail.score_II[early, late]
    mixed = gap != 0
    return float((0.5 + 0.5 * np.sign(lead * gap))[mixed].mean()) if mixed.any() else float("nan")


def interval(values: Sequence[float], test: float, center: float | None = None) -> list[float]:
    """95 % of the mean over resampled splits (Nadeau & Bengio 2003): variance times (1/J + n_test/n_train).

    Args:
        values: one for each of J splits.
        test: share of the users that a split tests on.
        center: another estimate of the mean.
    """
    middle = float(np.mean(values)) if center is None else center
    if len(values) < 2:
        return [float("-inf"), float("inf")]
    half = stats.t.ppf(0.975, len(values) - 1) * np.sqrt(np.var(values, ddof=1) * (1 / len(values) + test / (1 - test)))
    return [float(middle - half), float(middle + half)]
