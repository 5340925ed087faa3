"""The generated member of a sweep: one for each choice of features, trained before the trials, which take of its best
candidates as many as they are told.

The generator trains by steps, not by time, so that a sweep that goes on after a kill has the same member, bit for bit.
Its candidates are ranked on half of the users of *select*; trials are scored on the others.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from rich.console import Console

from actors.bandits.mixture import Mixture
from actors.features.features import Ints
from cluster.config import Settings, changed
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.groundwork import Groundwork
from tune.progressive import take
from tune.split import parts, tasks, unit
from tune.stages import Stages
from tune.walk import Trail, walk

BACKBONE_STEPS, HEAD_STEPS = 200, 300
"""Steps of training where the settings leave it to time."""
UNHURRIED_S = 1e9


def halves(dataset: Dataset, settings: Settings) -> tuple[Ints, Ints]:
    """The rows of the select part that candidates are ranked on, and those that trials are scored on."""
    rows = parts(dataset, settings.seed).select
    ranked = unit(tasks(dataset.events.take(pa.array(rows))), settings.seed, "ranked") < 0.5
    return rows[ranked], rows[~ranked]


def member(dataset: Dataset, settings: Settings, most: int) -> Mixture:
    """The best candidates under these settings, at most `most`, best first.

    Raises EvidenceError where the generator has no candidate.
    """
    from tune.proposal import propose  # imports torch, which trials do without

    own = settings.generator
    budgets = dict.fromkeys((f"budgets.{name}_s" for name in ("backbone", "head", "sweep")), UNHURRIED_S)
    steps = {
        "generator.backbone_steps": own.backbone_steps or BACKBONE_STEPS,
        "generator.head_steps": own.head_steps or HEAD_STEPS,
    }
    settings = changed(settings, budgets | steps | {"sweep.top_k": most})
    work = Groundwork.of(dataset, settings)
    work = replace(work, split=replace(work.split, select=halves(dataset, settings)[0]))
    trail = Trail.of(work.feature_map, work.events(work.split.select), settings.reward, settings.seed)
    base = walk(work.ensemble(*work.predefined.members()), trail, settings.seed)
    proposal = propose(work, trail, base, Stages(None, Console(quiet=True)), None)  # its budgets are no budgets
    if proposal.member is None:
        raise EvidenceError("no candidate of the generator could be used; leave sweep.top_k out of the space")
    return proposal.member


def best(member: Mixture, settings: Settings) -> Mixture:
    """The member with its first `sweep.top_k` candidates, exploring as these settings say."""
    kept = np.arange(min(settings.sweep.top_k, len(member.names_C)))
    return replace(take(member, kept), exploration=settings.generator.exploration)
