"""Answers without a model: the caller's own choice; and what every answer is kept as."""

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from cluster.errors import RequestError
from cluster.journal.journal import DecisionRecord
from serve.messages import DecisionRequest, Mode


def own_choice(request: DecisionRequest, items: Sequence[str]) -> list[str]:
    """The items of a request's slots: the caller's own choice, then the eligible ones in their order."""
    first = [] if request.baseline_item is None else [request.baseline_item]
    others = (item for item in items if item != request.baseline_item)
    return first + [item for item, _ in zip(others, range(request.slots - len(first)), strict=False)]


def answer(decision_id: str, mode: Mode, own: Sequence[str]) -> dict[str, Any]:
    """The caller's own choice, with certainty."""
    nothing: dict[str, Any] = {"models": {}, "contributions": {}, "reasons": []}
    slots = [{"item_id": item, "score": None, "propensity": 1.0, "explored": False, **nothing} for item in own]
    return {"decision_id": decision_id, "version": None, "mode": mode, "slots": slots}


def check_items(items: list[str], index: int, most: int) -> None:
    """Raises RequestError for more than `most` candidates, or one that is there twice."""
    where = ("body", "requests", index, "items")
    if len(items) > most:
        raise RequestError(where, f"{len(items)} items; at most {most} (serve.max_items), or null for the catalogue")
    before: set[str] = set()
    for place, item in enumerate(items):
        if item in before:
            raise RequestError((*where, place), f"{item!r} is there twice")
        before.add(item)


def request_json(request: DecisionRequest) -> str:
    """A request as the journal keeps it."""
    return request.model_dump_json(exclude_defaults=True)


def record(
    client: str,
    request: DecisionRequest,
    answer: dict[str, Any],
    version: int | None,
    epoch: int,
    packed: bytes | None = None,
    beside: dict[str, Any] | None = None,
    reason: str | None = None,
) -> DecisionRecord:
    """A decision as the journal keeps it.

    version, epoch: what was in force, also where a baseline answered. packed: its evidence, None where there is
    nothing to learn. beside: what a baseline's answer does not say, for replay. reason: why no model answered.
    """
    return DecisionRecord(
        decision_id=answer["decision_id"],
        client=client,
        user=request.user_id or request.session_id,
        request_id=request.request_id,
        version=version,
        epoch=epoch,
        slots=len(answer["slots"]),
        request=request_json(request),
        answer=_json(answer),
        evidence=packed,
        mode=answer["mode"],
        shadow=None if beside is None else _json(beside),
        reason=reason,
    )


def _json(values: dict[str, Any]) -> str:
    return to_json(values, inf_nan_mode="null").decode()
