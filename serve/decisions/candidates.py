"""What may be shown in answer to a request: its candidates or the catalogue, less what is excluded, breaks its
conditions, has expired, or was shown to the user lately."""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.errors import RequestError
from cluster.journal.records import moment_us
from cluster.records import item_table
from serve.decisions import catalogue as catalogues
from serve.decisions.asked import Asked
from serve.decisions.baseline import check_items
from serve.decisions.catalogue import Catalogue
from serve.decisions.columns import Columns, Mask, Part
from serve.decisions.eligible import eligible, open_at
from serve.decisions.shelf import shelved


def candidates(catalogue: Catalogue | None, own: Mapping[str, str | None], asked: Asked, most: int) -> Sequence[str]:
    """The eligible items of a request, in their order.

    Args:
        catalogue: the client's, None before any version.
        own: bodies (JSON) of the items that the client put, which are all that is known before any version.
        most: candidates of one request at most.

    Raises:
        RequestError: unknown items, a condition that does not fit, fewer items than slots, or a `baseline_item` that
            is not eligible.
    """
    request = asked.request
    if request.items is not None:
        check_items(request.items, asked.index, most)
    items = _of_request(asked, own) if catalogue is None else _of_catalogue(catalogue, asked)
    if len(items) < request.slots:
        left, rules = f"{request.slots} slots, but {len(items)} eligible items are left", _rules(asked)
        raise RequestError((*asked.where, "slots"), f"{left} after {rules}" if rules else left)
    if request.baseline_item is not None and request.baseline_item not in items:
        message = f"{request.baseline_item!r} is not among the eligible items"
        raise RequestError((*asked.where, "baseline_item"), message)
    return items


def _of_catalogue(catalogue: Catalogue, asked: Asked) -> Sequence[str]:
    named = asked.request.items
    unknown = None if named is None else catalogues.missing(catalogue.known, named)
    if named is not None and unknown is not None:
        message = f"unknown item {named[unknown]!r}; PUT it to /v1/items/{{item_id}} first"
        raise RequestError((*asked.where, "items", unknown), message)
    passed_I = _passed(catalogue.columns, asked)
    if named is None:
        return shelved(catalogue, {*asked.request.exclude, *asked.seen}, passed_I, asked.scored is not None)
    return _kept(named, asked, passed_I, catalogue.feature_map.row)


def _of_request(asked: Asked, own: Mapping[str, str | None]) -> Sequence[str]:
    """Before any version: of items that the client did not put, nothing is known that a condition could read."""
    if asked.request.items is None:
        raise RequestError((*asked.where, "items"), "no version is published yet, so candidates must be given")
    put = {item: body for item, body in own.items() if body is not None}
    columns = Columns(Part(item_table({**put, "": "{}"})))
    row = {item: i for i, item in enumerate(put)}
    return _kept(asked.request.items, asked, _passed(columns, asked), row)


def _passed(columns: Columns, asked: Asked) -> Mask | None:
    """Rows that meet the conditions and have not expired; None for all."""
    passed_I = eligible(columns, asked.request.where, asked.index) if asked.request.where else None
    open_I = open_at(columns, moment_us(asked.decision_id)) if len(columns.ends_E) else None
    if passed_I is None or open_I is None:
        return open_I if passed_I is None else passed_I
    return np.logical_and(passed_I, open_I)


def _kept(items: list[str], asked: Asked, passed_I: Mask | None, row: Mapping[str, int]) -> list[str]:
    if asked.request.exclude or asked.seen:
        closed = {*asked.request.exclude, *asked.seen}
        items = [item for item in items if item not in closed]
    if passed_I is not None:
        items = [item for item in items if passed_I[row.get(item, -1)]]
    return items


def _rules(asked: Asked) -> str:
    """What may have left items out."""
    request = asked.request
    rules = {"exclude": request.exclude, "where": request.where, "unseen_s": request.unseen_s}
    return ", ".join(name for name, value in rules.items() if value)
