"""Every yes or no of the offline side: may a generated member enter the ensemble?

The evidence is the paired difference of a member against the best predefined model on *confirm*, summed by
user. A member is admitted when its lower bound is above 0 at its step of Holm's procedure over all members
tested, and kept (not dropped from a version that has it) when the bound is above −margin. The p-value is the
larger of the bootstrap's and Student's, both by user: with few users the bootstrap alone lets too much pass.

Shapes: U users, R resamples, M members.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from actors.bandits.ensemble import Admission
from actors.features.features import Floats
from cluster.config import GateSettings
from cluster.errors import EvidenceError
from cluster.statistics import bootstrap_by_user, holm, ratio_error

Bools = NDArray[np.bool_]
Texts = NDArray[np.str_]
POOLED = ""
"""No client has this name."""


@dataclass(frozen=True)
class Paired:
    """Differences member − best predefined: sums_U over each user's events, counts_U events per user.

    range: width of the reward's range in the units of the sums (1 where rewards are scaled), for the margin.
    model_based: true where no propensity entered the differences.
    """

    sums_U: Floats
    counts_U: Floats
    range: float = 1.0
    model_based: bool = False

    def take(self, inside_U: Bools) -> "Paired":
        """These users only."""
        return replace(self, sums_U=self.sums_U[inside_U], counts_U=self.counts_U[inside_U])

    def __post_init__(self) -> None:
        if self.sums_U.shape != self.counts_U.shape or not np.isfinite(self.sums_U).all():
            raise EvidenceError(
                f"differences {self.sums_U.shape} and counts {self.counts_U.shape} of users must be finite "
                "and of one shape; find the event that is not before summing"
            )


@dataclass(frozen=True)
class Verdict:
    """What the gate said of one member, and why.

    difference, low, high: mean difference per event with one-sided bounds at the member's Holm level; without
        support the bounds are the whole range.
    p_value: adjusted over all members tested.
    """

    admitted: bool
    kept: bool
    difference: float
    low: float
    high: float
    p_value: float
    users: int
    events: int
    model_based: bool
    reason: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Verdicts:
    """pooled: on all users, for every client without a verdict of its own. clients: the others'."""

    pooled: Verdict
    clients: dict[str, Verdict]

    @property
    def admission(self) -> Admission:
        return Admission(self.pooled.admitted, {name: verdict.admitted for name, verdict in self.clients.items()})

    def facts(self) -> dict[str, Any]:
        """Those of the pooled verdict; `admitted` says whether any verdict admits, `pooled` whether this one does."""
        about = {"admitted": self.admission.anywhere, "pooled": self.pooled.admitted}
        clients = {name: verdict.facts() for name, verdict in self.clients.items()}
        return self.pooled.facts() | about | {"clients": clients}

    def words(self) -> str:
        """The verdict in one line."""
        text = f"{'admitted' if self.pooled.admitted else 'not admitted'}: {self.pooled.reason}"
        if not self.clients:
            return text
        own = [f"{name} {'yes' if verdict.admitted else 'no'}" for name, verdict in self.clients.items()]
        return f"{text}; clients of their own verdict: {', '.join(own)}"


def by_client(paired: Paired, client_U: Texts, settings: GateSettings, seed: int = 0) -> Verdicts:
    """The verdict on all users, and of each client that has enough of them one of its own, unless it has them all.

    Each is a test of its own: Holm's procedure goes over all of them. The pooled one stands for clients of few or no
    confirm users, and is no proof of any single one of them.
    """
    names, counts = np.unique(client_U, return_counts=True)
    large = [str(name) for name in names[(counts >= settings.client_users) & (counts < len(client_U))]]
    found = judge({POOLED: paired} | {name: paired.take(client_U == name) for name in large}, settings, seed)
    return Verdicts(found[POOLED], {name: found[name] for name in large})


def admit(paired: Paired, settings: GateSettings, seed: int = 0) -> Verdict:
    """The verdict on a single member."""
    return judge({"": paired}, settings, seed)[""]


def judge(members: Mapping[str, Paired], settings: GateSettings, seed: int = 0) -> dict[str, Verdict]:
    """The verdicts on all members tested on one confirm part; their familywise error is `settings.alpha`."""
    tested = {name: paired for name, paired in members.items() if _fault(paired, settings) is None}
    drawn = {n: _resample(p, settings, seed) for n, p in tested.items()}
    raw_M = np.array([_p_value(tested[name], drawn[name]) for name in tested])
    adjusted = dict(zip(tested, holm(raw_M), strict=True))
    rank = dict(zip(tested, np.argsort(np.argsort(raw_M, kind="stable")), strict=True))
    verdicts = {}
    for name, paired in members.items():
        if name in tested:
            level = settings.alpha / (len(tested) - int(rank[name]))
            verdicts[name] = _verdict(paired, drawn[name], float(adjusted[name]), level, settings)
        else:
            verdicts[name] = _unsupported(paired, _fault(paired, settings) or "", settings)
    return verdicts


def _fault(paired: Paired, settings: GateSettings) -> str | None:
    users = int((paired.counts_U > 0).sum())
    if users < settings.least_users:
        return f"too little support: {users} confirm users, {settings.least_users} needed"
    if not np.any(paired.sums_U != paired.sums_U[0]) and paired.sums_U[0] == 0:
        return "no difference: it chooses as the best predefined model does"
    return None


def _resample(paired: Paired, settings: GateSettings, seed: int) -> Floats:
    return bootstrap_by_user(paired.sums_U[:, None], paired.counts_U[:, None], settings.bootstrap, seed)[:, 0]


def _p_value(paired: Paired, drawn_R: Floats, null: float = 0.0) -> float:
    """One-sided, of mean difference <= null: the larger of the bootstrap's and Student's."""
    value, error = ratio_error(paired.sums_U, paired.counts_U)
    freedom = len(paired.sums_U) - 1
    student = float(stats.t.sf((value - null) / max(error, 1e-300), freedom))
    beyond = int((drawn_R <= null).sum())
    resampled = (1 + beyond) / (1 + len(drawn_R))
    if not beyond:  # less than so many resamples can tell, but their spread can
        resampled = min(resampled, float(stats.t.sf((value - null) / max(float(drawn_R.std()), 1e-300), freedom)))
    return max(student, resampled)


def _bounds(paired: Paired, drawn_R: Floats, level: float) -> tuple[float, float]:
    """One-sided bounds at `level` each, the wider of bootstrap and Student."""
    value, error = ratio_error(paired.sums_U, paired.counts_U)
    reach = error * float(stats.t.isf(level, len(paired.sums_U) - 1))
    low, high = np.quantile(drawn_R, [level, 1 - level])
    return min(value - reach, float(low)), max(value + reach, float(high))


def _verdict(paired: Paired, drawn_R: Floats, p_value: float, level: float, settings: GateSettings) -> Verdict:
    difference, _ = ratio_error(paired.sums_U, paired.counts_U)
    low, high = _bounds(paired, drawn_R, level)
    admitted = p_value <= settings.alpha and low > 0
    kept = admitted or low > -settings.margin * paired.range
    if admitted:
        reason = f"better than the best predefined model: lower bound {low:+.4f} is above 0"
    elif kept:
        reason = f"not shown to be better (lower bound {low:+.4f}), but not worse than the margin"
    else:
        reason = f"not shown to be better: lower bound {low:+.4f}, difference {difference:+.4f}"
    users, events = int((paired.counts_U > 0).sum()), int(paired.counts_U.sum())
    return Verdict(admitted, kept, difference, low, high, p_value, users, events, paired.model_based, reason)


def _unsupported(paired: Paired, reason: str, settings: GateSettings) -> Verdict:
    difference = ratio_error(paired.sums_U, paired.counts_U)[0] if len(paired.sums_U) else 0.0
    same = reason.startswith("no difference")
    bound = 0.0 if same else paired.range
    users, events = int((paired.counts_U > 0).sum()), int(paired.counts_U.sum())
    return Verdict(False, same, difference, -bound, bound, 1.0, users, events, paired.model_based, reason)
