"""What the generator changed for one candidate, against the pooled model that the same version has.

The candidate's prior mean is m_c; the pooled model's posterior mean is μ, and all priors start from aμ, a scalar a. So
what a context changed is m_c − aμ. A weight's move counts times the standard deviation of φ_d in the traffic: the
reward that it moves from one decision to the next. With parameters per item that holds of each item's own; there the
intercept, which tells items apart, counts as it is.

Shapes: C candidates, A arms, D features, K items, R rank.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from actors.bandits.ensemble import Prior
from actors.bandits.mixture import Mixture
from actors.bandits.posterior import Gaussian, gaussian
from actors.bandits.version import Version
from actors.features.feature_map import FeatureMap
from actors.features.features import Floats
from cluster.errors import ModelError
from tune.glossary import words

BLOCK = 4_096
"""Items scored at a time, for bounded memory."""
LEAST = 1e-9
"""A move that is no rounding, of rewards scaled to [0, 1]."""


@dataclass(frozen=True)
class Moved:
    """A feature or an item: what the pooled model says of it, what the candidate says, and by how much it counts.

    name; before and after: weights of a feature, expected rewards of an item; effect: in units of reward.
    """

    name: str
    before: float
    after: float
    effect: float


@dataclass(frozen=True)
class Explanation:
    """spread, pooled_spread: sd of an item's expected reward under the prior and under the pooled posterior.

    They are root mean squares over the catalogue in the context that stands for the candidate's domain. All rewards
    are scaled: 0 and 1 are the ends of the declared `range`. about: what the version tells of the candidate. scale:
    of the pooled mean, that priors start from. refused: why the gate did not admit the member; empty where it did.
    """

    candidate: str
    about: dict[str, Any]
    users: int
    range: tuple[float, float]
    features: tuple[Moved, ...]
    items: tuple[Moved, ...]
    spread: float
    pooled_spread: float
    scale: float
    refused: str = ""

    def facts(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Explainer:
    """A version with a generated member, and what it tells of it.

    linear: the pooled model that the candidates' means follow.
    """

    version: Version
    member: Mixture
    linear: Prior
    told: dict[str, Any]

    @classmethod
    def of(cls, version: Version) -> "Explainer":
        """Raises ModelError where the version has no generated member, or tells nothing of it."""
        parts = {member.name: member for member in version.ensemble.members}
        for member in parts.values():
            if isinstance(member, Mixture) and member.follow is not None and "told" in version.facts:
                linear = parts.get(member.follow.name)
                if isinstance(linear, Prior):
                    return cls(version, member, linear, version.facts["told"])
        raise ModelError(
            f"no generated member that could be explained among {', '.join(parts)}; compose one that the gate admits "
            "(metrics.gate of a version says why it has none)"
        )

    @property
    def names(self) -> tuple[str, ...]:
        return self.member.names_C

    def explain(self, candidate: str, top: int) -> Explanation:
        """The `top` features and items that moved most. Raises ModelError for an unknown candidate."""
        if candidate not in self.names:
            raise ModelError(f"no candidate {candidate!r} in this version; there are {', '.join(self.names)}")
        c, about = self.names.index(candidate), self.told["candidates"][candidate]
        scale = self.member.follow.scale if self.member.follow else 1.0
        found = gaussian(self.linear.precision_ADD, self.linear.shift_AD)
        pooled = replace(found, mean_AD=scale * found.mean_AD)
        prior = Gaussian(self.member.means_CAD[c], self.member.factor_ADD)
        before, after = self._scores(about, pooled, None), self._scores(about, prior, self.member.ranks_CADR[c])
        return Explanation(
            candidate,
            about,
            self.told["users"],
            (self.version.ensemble.low, self.version.ensemble.high),
            self._features(pooled.mean_AD, prior.mean_AD, top),
            _most(self.titles, before.mean_K, after.mean_K, np.ones(1), top),
            after.spread,
            before.spread,
            scale,
            self.version.facts.get("refused", ""),
        )

    @cached_property
    def feature_map(self) -> FeatureMap:
        return self.version.feature_map.with_items(self.version.items)

    @cached_property
    def titles(self) -> tuple[str, ...]:
        """Of the catalogue's items; the id of one that has none, or one that others have too."""
        told = self.version.items["title"].to_pylist()
        often = Counter(told)
        named = zip(told, self.feature_map.item_ids, strict=True)
        return tuple(
            item if title is None else title if often[title] == 1 else f"{title} ({item})" for title, item in named
        )

    def _features(self, before_AD: Floats, after_AD: Floats, top: int) -> tuple[Moved, ...]:
        spread_D, names = np.array(self.told["spread"]), words(self.feature_map, self.titles)
        if len(before_AD) > 1:
            spread_D[0] = 1.0
            arms = (*self.feature_map.fitted_ids, "an unknown item")
            names = tuple(f"{arm}: {name}" for arm in arms for name in names)
        return _most(names, before_AD.ravel(), after_AD.ravel(), np.tile(spread_D, len(before_AD)), top)

    def _scores(self, about: dict[str, Any], model: Gaussian, ranks_ADR: Floats | None) -> "_Scores":
        """Means of the catalogue's items in the candidate's context, and how far the model says that they vary."""
        means, variances = [], []
        for start in range(0, len(self.titles), BLOCK):
            rows_K = np.arange(start, min(start + BLOCK, len(self.titles)))
            found = self.feature_map.features(about["context"], [], about["user"], rows_K)
            mean_K, spread_K = model.moments(found.phi_KD, found.arm_K)
            variances.append(spread_K**2)
            if ranks_ADR is not None:
                along_KR = np.einsum("kd,kdr->kr", found.phi_KD, ranks_ADR[found.arm_K])
                variances[-1] = variances[-1] + (along_KR**2).sum(1)
            means.append(mean_K)
        return _Scores(np.concatenate(means), float(np.sqrt(np.concatenate(variances).mean())))


@dataclass(frozen=True)
class _Scores:
    mean_K: Floats
    spread: float


def _most(names: Sequence[str], before_N: Floats, after_N: Floats, unit_N: Floats, top: int) -> tuple[Moved, ...]:
    """The `top` moves that count most, in order; those that count nothing are left out."""
    effect_N = (after_N - before_N) * unit_N
    order = np.argsort(-np.abs(effect_N), kind="stable")[:top]
    moved = order[np.abs(effect_N[order]) > LEAST]
    return tuple(Moved(names[n], float(before_N[n]), float(after_N[n]), float(effect_N[n])) for n in moved)
