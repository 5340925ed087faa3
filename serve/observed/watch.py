"""What operators see of decisions and refusals: counts, and lines of the log (`serve.observed.logs`)."""

import logging
from collections.abc import Container, Sequence

from starlette.requests import Request

from cluster.config import ServeSettings
from cluster.journal.journal import DecisionRecord
from serve.observed.logs import Seldom
from serve.observed.metrics import Metrics

logger = logging.getLogger(__name__)

_MOST_REFUSALS = 10
_MOST_SLOW = 100
_EVERY_S = 60.0
_COMPARED, _AGREED = "medley_apprentice_decisions_total", "medley_apprentice_agreed_total"


class Watch:
    """Counts always, and logs what is worth a line.

    A refusal is a line, at most ten a minute for each client and status (of those without a valid key one); the next
    line says how many were left out. A decision that no model made is a line, one a minute for each version and reason.
    A call slower than `serve.slow_ms` is a line per decision, at most a hundred a minute. With `serve.log_decisions`
    every decision is a line.
    """

    def __init__(self, metrics: Metrics, settings: ServeSettings) -> None:
        self._metrics = metrics
        self._slow_ms = settings.slow_ms
        self._all = settings.log_decisions
        self._few = settings.small_call
        self._refusals = Seldom(_MOST_REFUSALS, _EVERY_S)
        self._unknown = Seldom(1, _EVERY_S)
        self._slow = Seldom(_MOST_SLOW, _EVERY_S)
        self._fallbacks = Seldom(1, _EVERY_S)

    def decided(self, records: Sequence[DecisionRecord], known: Container[int], seconds: float) -> None:
        """Decisions of one call that took so long; `known` are the places of repeats, which count only once."""
        if len(records) <= self._few:
            self._metrics.decided(seconds)
        slow = 1e3 * seconds > self._slow_ms
        for i, record in enumerate(records):
            if i not in known:
                self._metrics.count("medley_decisions_total", record.client, record.mode)
                self._agreement(record)
                self._fallback(record, 1e3 * seconds)
            if slow or self._all:
                self._line(record, "slow" if slow else "decision", 1e3 * seconds)

    def refused(self, request: Request, status: int, faults: Sequence[tuple[Sequence[str | int], str, str]]) -> None:
        """An answer from 400 up."""
        principal = request.scope.get("principal")
        client = principal.client_id if principal else None
        if status == 429:
            self._metrics.count("medley_rate_limited_total", client or "(operator)")
        left_out = self._unknown(401) if status == 401 else self._refusals((client, status))
        if left_out is None:
            return
        loc, _, message = faults[0]
        fields = {
            "status": status,
            "client": client,
            "call": f"{request.method} {request.url.path}",
            "reason": f"{'.'.join(str(part) for part in loc)}: {message}",
            "faults": len(faults),
            "left_out": left_out,
        }
        logger.log(logging.ERROR if status >= 500 else logging.WARNING, "refused", extra={"fields": fields})

    def _fallback(self, record: DecisionRecord, ms: float) -> None:
        if record.reason is None:
            return
        self._metrics.count("medley_fallbacks_total", record.reason)
        if self._fallbacks((record.version, record.reason)) is not None:
            self._line(record, "fallback", ms)

    def _agreement(self, record: DecisionRecord) -> None:
        if record.agreement is None:
            return
        client, metrics = record.client, self._metrics
        metrics.count(_COMPARED, client, by=record.agreement.compared)
        metrics.count(_AGREED, client, by=record.agreement.agreed)
        share = metrics.counts[_AGREED, (client,)] / metrics.counts[_COMPARED, (client,)]
        metrics.level("medley_apprentice_agreement", lambda: share, client)

    def _line(self, record: DecisionRecord, event: str, ms: float) -> None:
        if event == "slow" and self._slow(record.client) is None:
            return
        fields = {
            "decision_id": record.decision_id,
            "client": record.client,
            "version": record.version,
            "mode": record.mode,
            "ms": round(ms, 3),
            **({} if record.reason is None else {"reason": record.reason}),
        }
        logger.log(logging.INFO if event == "decision" else logging.WARNING, event, extra={"fields": fields})
