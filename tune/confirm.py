"""The confirm step: the gate's verdict on a generated member, by users whom nobody looked at before.

Shapes: U confirm users.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from actors.bandits.ensemble import Admission
from cluster.statistics import ratio_error
from tune.codes import told
from tune.gate import Paired, Texts, Verdicts, by_client
from tune.groundwork import Groundwork
from tune.proposal import Proposal
from tune.spending import Spending, key_of
from tune.stages import Stages
from tune.walk import Trail, Walk, walk


@dataclass(frozen=True)
class Confirmed:
    """facts: the verdict as a version keeps it. value: of the member where it is admitted, on the scale of select.

    error: that of how far it lies from the best predefined one. spending: with this test, where one was made.
    """

    facts: dict[str, Any]
    admission: Admission
    value: float
    error: float
    spending: Spending


def untested(reason: str, spending: Spending) -> Confirmed:
    """No test was made, so nothing is admitted and nothing spent."""
    return Confirmed({"admitted": False, "tested": None, "reason": reason}, Admission(False), 0.0, 0.0, spending)


def confirm(
    work: Groundwork, proposal: Proposal, best: str, base: Walk, stages: Stages, spending: Spending
) -> Confirmed:
    """Walk the confirm part with the member beside the predefined ones, and judge it against the best of these."""
    member, settings = proposal.member, work.settings
    if member is None:
        return untested("no candidate could be used", spending)
    with stages.stage("confirm", settings.budgets.confirm_s) as stage:
        trail = Trail.of(work.feature_map, work.events(work.split.confirm), settings.reward, settings.seed)
        trail = told(trail, work, work.split.confirm, proposal.generator)
        tested = work.ensemble(*work.predefined.members(), member)
        walked = walk(tested, trail, settings.seed, lambda: stage.left_s, stage.progress)
        stage.left_out = walked.left_in_words(trail)
        data, key = work.dataset.facts.get("fingerprint"), key_of(work.ensemble(member), best, settings.metric)
        alpha = settings.gate.alpha * spending.share(data, key)
        paired, gate = walked.paired(member.name, best), settings.gate.model_copy(update={"alpha": alpha})
        verdicts = by_client(paired, walked.client_U, gate, settings.seed)
    number = spending.number(data, key)
    stages.say(f"gate: {member.name} {verdicts.words()} (test {number} on this data, at α = {alpha:.2g})")
    about = {"tested": member.name, "against": best, "test": number, "alpha": alpha, **verdicts.facts()}
    gain, error = _gain(paired, walked.client_U, verdicts)
    return Confirmed(about, verdicts.admission, base.mean()[best] + gain, error, spending.spent(data, key))


def _gain(paired: Paired, client_U: Texts, verdicts: Verdicts) -> tuple[float, float]:
    """Mean difference where the member is admitted, and its standard error; of all users where it is nowhere."""
    inside_U = np.array([verdicts.admission.admits(client) for client in client_U], np.bool_)
    where = paired.take(inside_U) if inside_U.any() else paired
    return ratio_error(where.sums_U, where.counts_U)
