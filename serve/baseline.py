"""Answers without a model: the caller's own choice; and what every answer is kept as."""

from typing import Any

from pydantic_core import to_json

from cluster.errors import RequestError
from cluster.journal import DecisionRecord
from serve.messages import DecisionRequest


def baseline(client: str, request: DecisionRequest, decision_id: str, index: int, most: int) -> DecisionRecord:
    """Before any version: the caller's own choice, then its candidates in their order, with certainty."""
    where = ("body", "requests", index)
    if request.items is None:
        raise RequestError((*where, "items"), "no version is published yet, so candidates must be given")
    check_items(request.items, index, most)
    excluded = set(request.exclude)
    items = [item for item in request.items if item not in excluded]
    if len(items) < request.slots:
        raise RequestError((*where, "slots"), f"{request.slots} slots, but {len(items)} eligible items are left")
    if request.baseline_item is not None:
        if request.baseline_item not in items:
            raise RequestError((*where, "baseline_item"), f"{request.baseline_item!r} is not among the eligible items")
        items.remove(request.baseline_item)
        items.insert(0, request.baseline_item)
    slots: list[dict[str, Any]] = [
        {"item_id": item, "score": None, "propensity": 1.0, "explored": False, "models": {}, "reasons": []}
        for item in items[: request.slots]
    ]
    answer = {"decision_id": decision_id, "version": None, "mode": "baseline", "slots": slots}
    return record(client, request, answer, None, 0, None)


def check_items(items: list[str], index: int, most: int) -> None:
    """Raises RequestError for more than `most` candidates, or one that is there twice."""
    where = ("body", "requests", index, "items")
    if len(items) > most:
        raise RequestError(where, f"{len(items)} items; at most {most} (serve.max_items), or null for the catalogue")
    if len(set(items)) < len(items):
        place = next(p for p, item in enumerate(items) if item in items[:p])
        raise RequestError((*where, place), f"{items[place]!r} is there twice")


def record(
    client: str, request: DecisionRequest, answer: dict[str, Any], version: int | None, epoch: int, packed: bytes | None
) -> DecisionRecord:
    """A decision as the journal keeps it; `packed` is its evidence, None where there is nothing to learn."""
    return DecisionRecord(
        decision_id=answer["decision_id"],
        client=client,
        user=request.user_id or request.session_id,
        request_id=request.request_id,
        version=version,
        epoch=epoch,
        slots=len(answer["slots"]),
        request=request.model_dump_json(exclude_defaults=True),
        answer=to_json(answer, inf_nan_mode="null").decode(),
        evidence=packed,
    )
