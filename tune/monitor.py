"""How each member does beside the ensemble that it is part of, and which one has to go.

A member's value is that of its own law along the traffic that the running version decided (tune.walk): doubly robust,
importance-weighted by the logged propensities, paired by event with the ensemble's and summed by user. The bounds are a
confidence sequence over users, so that they hold at all looks together. Users come again, and what they add is counted
where they were counted before: totals between two looks then have more in common than independent ones, whose
greatest excursion is larger (Slepian 1962), and the bounds are wider than they had to be.

Shapes: U users, M members.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from actors.bandits.ensemble import Ensemble
from cluster.config import GateSettings
from cluster.statistics import ratio_error, sequence_half_width, tuned_rho
from tune.gate import Paired
from tune.walk import Walk

TUNED_USERS = 500
"""Users at which the bounds are narrowest."""


@dataclass(frozen=True)
class Standing:
    """A member's mean difference from the ensemble per event, in scaled reward, with bounds that always hold.

    value: of its own law. retired: a generated member whose upper bound is below 0; predefined ones never are.
    """

    member: str
    predefined: bool
    value: float
    difference: float
    low: float
    high: float
    users: int
    retired: bool

    def facts(self) -> dict[str, Any]:
        """As JSON, which knows no infinity."""
        return {name: None if value in (-np.inf, np.inf) else value for name, value in asdict(self).items()}


def standings(walked: Walk, ensemble: Ensemble, settings: GateSettings) -> list[Standing]:
    """The standing of each member that the version has.

    Args:
        settings: alpha is the chance that any generated member is ever retired without cause, least_users the first
            look.
    """
    predefined = {member.name: member.predefined for member in ensemble.members}
    tested = max(1, sum(not trusted for trusted in predefined.values()))
    values = walked.mean()
    found = []
    for name, trusted in predefined.items():
        paired = walked.paired(name, "ensemble")
        admission = ensemble.admissions.get(name)
        if admission is not None:
            paired = paired.take(np.array([admission.admits(client) for client in walked.client_U], np.bool_))
        value, reach = bounds(paired, settings.alpha / tested, settings.least_users)
        retired = not trusted and value + reach < 0
        users = int((paired.counts_U > 0).sum())
        found.append(Standing(name, trusted, values[name], value, value - reach, value + reach, users, retired))
    return found


def bounds(paired: Paired, alpha: float, least_users: int) -> tuple[float, float]:
    """The mean difference per event, and the half width of its confidence sequence; infinite below `least_users`."""
    users = int((paired.counts_U > 0).sum())
    value, error = ratio_error(paired.sums_U, paired.counts_U)
    if users < least_users:
        return value, float("inf")
    rho = tuned_rho(TUNED_USERS, alpha)
    return value, float(sequence_half_width(users, error * np.sqrt(users), alpha, rho))
