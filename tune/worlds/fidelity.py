"""Whether a fitted world may be trusted: how it reproduces what it was not fitted on, and a verdict in words.

- *trust*: its means hold, and where it says that one item earns more than another, it does. A policy's gain is
  understated by as much as the fit smooths what differs between items.
- *averages*: its means hold, but what it says of the difference between items is not proven.
- *none*: a mean is wrong, its differences are not there, or there is too little to tell.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cluster.statistics import Interval, holm
from tune.worlds.held_out import Compared, Family, HeldOut

Verdict = Literal["trust", "averages", "none"]
WORDS: dict[str, str] = {
    "trust": "trust it to say which policy is better (it tends to understate by how much)",
    "averages": "trust its averages only, not what it says between policies",
    "none": "do not trust it",
}
KNOWN = 0.25
"""The mean reward must be known to this share of itself before anything is said of it."""
TOLERANCE = 0.1
"""Share of the mean reward by which a mean may be wrong."""
ALPHA = 0.05
SLOPE = 0.5
"""Of the difference that the world says between items, at least this share must come."""


@dataclass(frozen=True)
class Fidelity:
    """What `Fidelity.of` found. reasons: for the verdict; remarks: what to know besides."""

    means: tuple[Compared, ...]
    families: tuple[Family, ...]
    slope: Interval | None
    choice_slope: Interval | None
    auc: Interval | None
    bins: tuple[Compared, ...]
    between_users: tuple[float, float, Interval] | None
    verdict: Verdict
    reasons: tuple[str, ...]
    remarks: tuple[str, ...]

    @classmethod
    def of(cls, held: HeldOut) -> "Fidelity":
        """Compare, and judge."""
        means = tuple(each for each in (held.mean(), held.under_uniform()) if each is not None)
        families = tuple(each for each in map(held.family, held.segments) if each is not None)
        scale = max(means[0].real - float(held.real_N.min()), 0.0)
        slope, between = held.choice_slope(), held.between_users()
        verdict, reasons = _judged(means, families, slope, scale)
        return cls(
            means=means,
            families=families,
            slope=held.slope(),
            choice_slope=slope,
            auc=held.auc(),
            bins=tuple(held.bins()),
            between_users=between,
            verdict=verdict,
            reasons=tuple(reasons),
            remarks=tuple(_remarks(slope, between)),
        )

    @property
    def calibration_error(self) -> tuple[float, float]:
        """Mean distance of the bins from what came of them (ECE), and what noise alone would make of it."""
        events = sum(each.events for each in self.bins)
        found = sum(each.events * abs(each.difference.value) for each in self.bins) / events
        return found, sum(each.events * each.error for each in self.bins) / events * math.sqrt(2 / math.pi)

    def say(self) -> str:
        return f"{WORDS[self.verdict]}: {'; '.join(self.reasons)}"

    def facts(self) -> dict[str, Any]:
        """For JSON."""
        found, noise = self.calibration_error
        return {
            "verdict": self.verdict,
            "words": self.say(),
            "remarks": list(self.remarks),
            "means": [_compared(each) for each in self.means],
            "families": [
                {
                    "name": each.name,
                    "spread": each.spread,
                    "missed": each.missed,
                    "p_value": each.p_value,
                    "groups": [_compared(group) for group in each.groups],
                }
                for each in self.families
            ],
            "slope": self.slope and list(self.slope),
            "choice_slope": self.choice_slope and list(self.choice_slope),
            "auc": self.auc and list(self.auc),
            "calibration": [_compared(each) for each in self.bins],
            "calibration_error": found,
            "calibration_error_of_noise": noise,
            "between_users": self.between_users
            and {
                "real": self.between_users[0],
                "world": self.between_users[1],
                "difference": list(self.between_users[2]),
            },
        }


def _compared(each: Compared) -> dict[str, Any]:
    return {
        "name": each.name,
        "events": each.events,
        "users": each.users,
        "real": each.real,
        "world": each.world,
        "difference": list(each.difference),
    }


def _judged(
    means: tuple[Compared, ...], families: tuple[Family, ...], slope: Interval | None, scale: float
) -> tuple[Verdict, list[str]]:
    low, high = means[0].difference[1:]
    if scale == 0:
        return "none", ["the held-out rewards are all alike, nothing to check against"]
    if (high - low) / 2 > KNOWN * scale:
        known = f"±{(high - low) / 2 / scale:.0%}"
        return "none", [f"the held-out mean reward is known to {known} only, too few rewards to check against"]
    if wrong := [*_wrong_means(means, families, scale), *_wrong_slope(slope)]:
        return "none", wrong
    held = "its means hold"
    if slope is None:
        return "averages", [f"{held}, but it says the same of every item"]
    return ("trust" if slope.low > SLOPE else "averages"), [held, _came(slope)]


def _wrong_means(means: tuple[Compared, ...], families: tuple[Family, ...], scale: float) -> list[str]:
    """What is off by more than the tolerance and, over all that is looked at, by more than chance (Holm)."""
    said = [f"{each.name} was {each.real:.3g}, the world says {each.world:.3g}" for each in means]
    said += [
        f"means by {each.name} are off by {each.missed:.2g} beyond noise where they differ by {each.spread:.2g}"
        for each in families
    ]
    off = [*(abs(each.difference.value) for each in means), *(each.missed for each in families)]
    adjusted = holm(np.array([*(each.p_value for each in means), *(each.p_value for each in families)]))
    return [
        words
        for words, size, p_value in zip(said, off, adjusted, strict=True)
        if size > TOLERANCE * scale and p_value <= ALPHA
    ]


def _wrong_slope(slope: Interval | None) -> list[str]:
    return [] if slope is None or slope.high >= SLOPE else [_came(slope)]


def _came(slope: Interval) -> str:
    return (
        f"of each difference between items that it says, {slope.value:.2f} of it came "
        f"(95 %: {slope.low:.2f} to {slope.high:.2f})"
    )


def _remarks(slope: Interval | None, between: tuple[float, float, Interval] | None) -> list[str]:
    found = []
    if slope is not None and slope.low > 1.25:
        found.append(f"differences between items are larger than it says, by a factor of {slope.value:.2f}")
    if between is not None and between[2].low > 0.01:
        found.append(
            f"a user's rewards are more alike (correlation {between[0]:.3f}) than in the world ({between[1]:.3f}): "
            "intervals by user come out too narrow in it"
        )
    return found
