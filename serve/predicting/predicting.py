"""Predictions: the expected reward of an item for a user, by the blend that decides (actors.bandits.law).

An item of the catalogue is predicted from what this process holds. Inline content with an embedding too; without one
it is read first (`encoding`), and where that gives none it is predicted as an item that resembles nothing.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from actors.content.contents import Content, text_of
from cluster.errors import RequestError, StateError
from serve.decide import Engine
from serve.decisions.current import Current
from serve.decisions.reading import Codes, Reading
from serve.messages import DecisionRequest, Prediction, PredictionRequest
from serve.observed.logs import Seldom
from serve.observed.metrics import Metrics
from serve.predicting.encoding import NO_ENCODER, Encoding, Read
from serve.predicting.prediction import Posed, predictions, width

logger = logging.getLogger(__name__)

_THREADS = 2
"""Calls computed at a time: decisions, which people wait for, share the interpreter with them."""


class Predicting:
    """For one event loop.

    Args:
        engine: knows what decides for each client.
        budget_ms: for the models to answer, for each request of a call.
        encoding: reads content; None where nobody does.
        reading: reads contexts of unknown users, as for decisions; None where nobody does.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: Metrics,
        budget_ms: float,
        encoding: Encoding | None = None,
        reading: Reading | None = None,
    ) -> None:
        self._engine, self._metrics, self._budget_ms = engine, metrics, budget_ms
        self._encoding, self._reading = encoding, reading
        self._seldom = Seldom(1, 60.0)
        self._closed = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="predict")

    async def __call__(self, client: str, requests: Sequence[PredictionRequest]) -> list[Prediction]:
        """Predict each request of a call.

        Raises:
            RequestError: an item that is not in the client's catalogue, or an embedding that does not fit.
            StateError: no version is published yet, its models break or are too slow, or after `close`.
        """
        if self._closed:
            raise StateError("this replica has ended; ask another one")
        current = self._engine.current(client)
        if current is None:
            raise StateError("no version is published yet; `medley compose` makes one")
        for index, request in enumerate(requests):
            _check(current, request, index)
        read, codes = await asyncio.gather(self._contents(current, requests), self._codes(client, requests))
        posed = [Posed(request, read.get(i, Read()), codes.get(i)) for i, request in enumerate(requests)]
        made = await self._made(client, current, posed)
        for one in made:
            self._metrics.count("medley_predictions_total", client, one.level)
        return made

    def close(self) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _made(self, client: str, current: Current, posed: Sequence[Posed]) -> list[Prediction]:
        """In a thread: a member may be the user's own code."""

        def work() -> list[Prediction]:
            return predictions(current, posed, lambda user: self._engine.known(current, client, user)[0])

        loop, version = asyncio.get_running_loop(), f"version {current.loaded.number}"
        try:
            return await asyncio.wait_for(
                loop.run_in_executor(self._threads, work), 1e-3 * self._budget_ms * len(posed)
            )
        except TimeoutError as error:
            took = f"{self._budget_ms * len(posed):g} ms (serve.budget_ms)"
            raise StateError(f"{version} did not predict within {took}; try again") from error
        except Exception as error:  # whatever a member does, its caller is told and the others are answered
            if self._seldom((version, type(error))) is not None:
                logger.error("%s cannot predict: %s", version, error, exc_info=error)
            raise StateError(f"{version} cannot predict ({type(error).__name__}); see the replica's log") from error

    async def _codes(self, client: str, requests: Sequence[PredictionRequest]) -> Codes:
        """Of unknown users' contexts, as a decision in that moment would have them."""
        if self._reading is None:
            return {}
        asking = [DecisionRequest(user_id=r.user_id, session_id=r.session_id, context=r.context) for r in requests]
        found = self._engine.strangers(client, asking)
        return {} if found is None else await self._reading.codes(*found, left_ms=math.inf)

    async def _contents(self, current: Current, requests: Sequence[PredictionRequest]) -> dict[int, Read]:
        """What was read of the contents that come without an embedding, by place."""
        told = {i: _content(one) for i, one in enumerate(requests) if one.content and one.content.embedding is None}
        if not told or not width(current):
            return {}
        return dict(zip(told, await self._read(current, list(told.values())), strict=True))

    async def _read(self, current: Current, contents: Sequence[Content]) -> list[Read]:
        relations = current.loaded.version.feature_map.relations
        if self._encoding is None:
            off = "nobody reads content here (serve.content_ms is 0); send its embedding"
            return [Read(reason=off)] * len(contents)
        if relations is None or not relations.source:
            return [Read(reason=NO_ENCODER)] * len(contents)
        return await self._encoding(current.loaded.number, contents)


def _check(current: Current, request: PredictionRequest, index: int) -> None:
    where = ("body", "requests", index)
    if request.item_id is not None and request.item_id not in current.catalogue:
        raise RequestError((*where, "item_id"), f"no item {request.item_id!r} in this client's catalogue", 404)
    given = request.content.embedding if request.content else None
    if given is None:
        return
    if (size := width(current)) and len(given) != size:
        message = f"an embedding of size {len(given)}; this version's have {size}: it comes from another encoder"
        raise RequestError((*where, "content", "embedding"), message)
    with np.errstate(over="ignore"):
        given_E = np.array(given, np.float32)  # as items have it
    if not np.isfinite(given_E).all():
        raise RequestError((*where, "content", "embedding"), "a number above 3.4e38: items' have single precision")
    if not given_E.any():
        raise RequestError((*where, "content", "embedding"), "all zero: it has no direction; leave it out")


def _content(request: PredictionRequest) -> Content:
    assert request.content is not None
    return Content(text_of(request.content.title, request.content.description), request.content.image or b"")
