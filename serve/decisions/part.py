"""A decision over a large catalogue: a part of it is retrieved and scored (docs/serving.md, "Large catalogues")."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from actors.bandits import law
from actors.bandits.history import History
from actors.bandits.retrieval import Retrieval
from actors.features.features import Floats
from serve.decisions import evidence
from serve.decisions.current import Current
from serve.decisions.shelf import Shelf
from serve.messages import DecisionRequest


def question(
    current: Current,
    request: DecisionRequest,
    shelf: Shelf,
    own: Sequence[str],
    history: History | None,
    seed: int,
    known: str | None = None,
    code_H: Floats | None = None,
) -> tuple[law.Question, list[str], str]:
    """What is scored of the shelf: for the law, by name, and as `evidence.pack_part` writes it.

    Args:
        own: the caller's own items, which are scored too.
        known: the part that was scored, when a decision is made again.
        code_H: of the context, as in `Features`.
    """
    published, feature_map, rank_of = current.published, current.catalogue.feature_map, current.catalogue.rows
    if known is None:
        retrieval = current.catalogue.retrieval
        assert isinstance(retrieval, Retrieval)
        rows = retrieval.rows(
            feature_map, published, request.context, request.user_id, history, seed, request.slots, shelf.open_I, code_H
        )
        known = evidence.pack_part(np.searchsorted(rank_of, rows))
    else:
        rows = rank_of[evidence.unpack_part(known)]
    part = law.Part(len(shelf), len(rows))
    taken = shelf.beyond(rows, law.outside(published, seed, part, request.slots))
    names = shelf.names(np.concatenate([rows, taken]))
    names += [name for name in own if name not in names]
    features = replace(feature_map.features(request.context, names, request.user_id), code_H=code_H)
    return law.Question(features, history, seed, request.slots, part), names, known
