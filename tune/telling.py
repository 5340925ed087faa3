"""What a version says of its candidates beside their parameters: for whom each was made, and what they do there.

Shapes: N events, D features.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from actors.features.actions import actions
from actors.generator.candidates import Candidates
from actors.generator.tasks import group, user_keys
from cluster.records import decode
from tune.groundwork import Groundwork
from tune.proposal import Proposal

DIGITS = 4


def told(work: Groundwork, proposal: Proposal) -> dict[str, Any]:
    """Facts of the chosen candidates, by name, and the standard deviation of each feature of what *select* showed."""
    spread_D = actions(work.feature_map, work.events(work.split.select)).phi_ND.std(0)
    valued = {row.candidate: row for row in proposal.rows}
    names, users = list(proposal.candidates.names), sum(map(len, set(proposal.candidates.domains)))
    found = {}
    for name in proposal.chosen:
        c, row = names.index(name), valued[name]
        found[name] = {
            "text": proposal.candidates.texts[c],
            "users": len(proposal.candidates.domains[c]),
            "value": row.value,
            "against": row.baseline,
            "difference": row.difference,
            "interval": [row.low, row.high],
        }
    for name, example in _examples(work, proposal.candidates, proposal.chosen).items():
        found[name] |= example
    return {"users": users, "spread": [float(f"{value:.{DIGITS}g}") for value in spread_D], "candidates": found}


def _examples(work: Groundwork, candidates: Candidates, chosen: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The context, and the user if any, of the request nearest to each candidate's prototype."""
    events = work.dataset.events.take(pa.array(work.split.select))
    first = group(user_keys(events), max(work.settings.bandits.history, 1))
    found = {}
    for name in chosen:
        event = events.slice(int(first[candidates.examples[candidates.names.index(name)]][0]), 1)
        context, user = decode(event["context"][0].as_py()), event["user_id"][0].as_py()
        found[name] = {"context": context, "user": user}
    return found
