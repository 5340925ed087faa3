"""Requests and a client's current state -> predictions: a decision of the law with one item.

Shapes: K = 1 item, J neighbours.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from actors.bandits import law
from actors.bandits.history import History
from actors.features.feature_map import FeatureMap
from actors.features.features import Features
from actors.features.kin import LEVELS
from cluster.records import item_table
from serve.decisions.asked import Code
from serve.decisions.current import Current
from serve.messages import Neighbour, Prediction, PredictionRequest
from serve.predicting.encoding import Read

_AT_ONCE = 16
"""Requests whose features are in memory together."""
_INLINE = "\x7f{}"
"""Names of inline content while it is predicted: no id has control characters."""


@dataclass(frozen=True)
class Posed:
    """A request, what was read of its content where it came without an embedding, and the code of its context where a
    language model has read it."""

    request: PredictionRequest
    read: Read
    code: Code | None = None


def predictions(current: Current, posed: Sequence[Posed], history: Callable[[str], History | None]) -> list[Prediction]:
    """One for each, of items that are all known or inline.

    Args:
        history: of a user (or session), as decisions know it now.
    """
    feature_map = _with_inline(current, posed)
    found: list[Prediction] = []
    for first in range(0, len(posed), _AT_ONCE):
        part = posed[first : first + _AT_ONCE]
        questions = [
            law.Question(_features(current, feature_map, one, first + n), _history(one.request, history), seed=0)
            for n, one in enumerate(part)
        ]
        decisions = law.decide_many(current.published, questions)
        found += [
            _made(current, one, question.features, decision.slots[0])
            for one, question, decision in zip(part, questions, decisions, strict=True)
        ]
    return found


def _with_inline(current: Current, posed: Sequence[Posed]) -> FeatureMap:
    """The client's feature map, with the inline contents after its items."""
    bodies = {_INLINE.format(n): _body(one) for n, one in enumerate(posed) if one.request.content is not None}
    feature_map = current.catalogue.feature_map
    return feature_map.with_changes(item_table(bodies), ()) if bodies else feature_map


def _body(posed: Posed) -> str:
    """As an item that was put."""
    content = posed.request.content
    assert content is not None
    body = content.model_dump(mode="json", exclude={"image"}) | {"provider_id": posed.request.provider_id}
    if posed.read.vector_E is not None:
        body["embedding"] = posed.read.vector_E.tolist()
    return json.dumps(body)


def _features(current: Current, feature_map: FeatureMap, posed: Posed, place: int) -> Features:
    request, code = posed.request, posed.code
    item = _INLINE.format(place) if request.item_id is None else request.item_id
    features = feature_map.features(request.context, [item], request.user_id)
    if code is not None and code.generator == current.loaded.reader:
        return replace(features, code_H=code.code_H)
    return features


def _history(request: PredictionRequest, history: Callable[[str], History | None]) -> History | None:
    user = request.user_id or request.session_id
    return None if user is None else history(user)


def _made(current: Current, posed: Posed, features: Features, slot: law.Slot) -> Prediction:
    published, kin = current.published, features.kin
    level = "none" if kin is None else LEVELS[int(kin.level_K[0])]
    reason = posed.read.reason
    if level == "none" and reason is None:
        reason = _why(current, posed.request)
    found = {
        "probability": min(max(slot.score, published.low), published.high),
        "neighbours": _neighbours(current, features),
        "models": slot.models,
        "level": level,
        "reason": reason,
        "version": current.loaded.number,
    }
    return Prediction.model_validate(found)


def width(current: Current) -> int:
    """Size of the embeddings that a version knows, 0 for none."""
    relations = current.loaded.version.feature_map.relations
    return 0 if relations is None else relations.width


def _why(current: Current, request: PredictionRequest) -> str:
    if not width(current):
        return "this version knows no embeddings: `python -m tune.embed`, then compose"
    what = "the content" if request.item_id is None else f"item {request.item_id!r}"
    return f"{what} has no embedding that the version's items can be compared with"


def _neighbours(current: Current, features: Features) -> list[Neighbour]:
    kin, feature_map = features.kin, current.loaded.version.feature_map
    relations = feature_map.relations
    if kin is None or relations is None:
        return []
    found = []
    for row, similarity in zip(kin.near_KJ[0].tolist(), kin.similarity_KJ[0].tolist(), strict=True):
        if row >= 0:
            provider = int(relations.provider_F[row])
            name = relations.providers[provider] if provider >= 0 else None
            item_id = feature_map.fitted_ids[row]
            found.append(Neighbour(item_id=item_id, provider_id=name, similarity=similarity))
    return found
