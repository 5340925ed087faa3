"""What a serving process counts, in plain Python: a dictionary entry a count, so that a decision may afford it.

`serve.observed.prometheus` hands the numbers to Ray, whose agent on each node shows them to Prometheus; names get the
prefix `ray_` there. docs/serving.md lists them with what they mean, from `CATALOGUE`.
"""

import time
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

_SECONDS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


@dataclass(frozen=True)
class Family:
    """One metric: its kind, what it counts, its labels; `bounds` are upper bounds of a histogram's buckets."""

    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()


def _seconds(text: str, *labels: str) -> Family:
    return Family("histogram", text, labels, _SECONDS)


CATALOGUE: dict[str, Family] = {
    "medley_http_requests_total": Family("counter", "Calls answered", ("method", "route", "status")),
    "medley_http_request_seconds": _seconds("From a call's arrival to its answer", "route"),
    "medley_http_requests_in_flight": Family("gauge", "Calls being answered"),
    "medley_contexts_in_work": Family("gauge", "Requests for decisions inside the calls being answered"),
    "medley_rate_limited_total": Family("counter", "Calls refused because a key's rate was spent", ("client",)),
    "medley_decisions_total": Family("counter", "Decisions made durable, by what answered", ("client", "mode")),
    "medley_decision_seconds": _seconds("Engine time of a decision, the mean of its call"),
    "medley_fallbacks_total": Family("counter", "Decisions that no model made, by why", ("reason",)),
    "medley_contexts_read_total": Family(
        "counter", "Contexts of unknown users for the language model, by how their codes came", ("outcome",)
    ),
    "medley_predictions_total": Family(
        "counter", "Predictions, by where the item's neighbours were sought", ("client", "level")
    ),
    "medley_contents_embedded_total": Family(
        "counter", "Inline contents to be read, by what became of them", ("outcome",)
    ),
    "medley_rewards_total": Family("counter", "Rewards by what became of them", ("status",)),
    "medley_apprentice_decisions_total": Family("counter", "Decisions compared with the baseline", ("client",)),
    "medley_apprentice_agreed_total": Family("counter", "Of these, those with the baseline's first item", ("client",)),
    "medley_apprentice_agreement": Family("gauge", "Their share since this process started", ("client",)),
    "medley_journal_commit_seconds": _seconds("From handing over to the journal to durable"),
    "medley_journal_failed": Family("gauge", "1 while nothing can be made durable"),
    "medley_journal_events": Family("gauge", "Rows ever journalled, by the journal's own counters", ("event",)),
    "medley_version": Family("gauge", "Number of the version that decides; 0 before any"),
    "medley_histories_missed_total": Family("counter", "Users asked for whose history was not in memory"),
    "medley_histories_recalled_total": Family("counter", "Of these, those whose history the learner gave in time"),
    "medley_learner_following": Family("gauge", "1 while this process gets the learner's publications"),
    "medley_learner_lag_outcomes": Family("gauge", "Outcomes that the learner has not learned yet"),
    "medley_learner_lag_seconds": Family("gauge", "Age of the oldest of them"),
    "medley_learner_outcomes_total": Family("counter", "Outcomes learned"),
    "medley_learner_skipped_total": Family("counter", "Outcomes that fit no version and were left out"),
    "medley_publications_total": Family("counter", "Publications of the learner"),
    "medley_items_told_total": Family(
        "counter", "Items whose state was told to the vector store, by whether it was taken", ("outcome",)
    ),
}

Labels: TypeAlias = tuple[str, ...]
Key: TypeAlias = tuple[str, Labels]


class Metrics:
    """Counts, sizes and levels of one process. Only the thread that answers calls adds; any thread may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.counts: defaultdict[Key, float] = defaultdict(float)
        self.buckets: dict[Key, list[int]] = {}
        self.levels: dict[Key, Callable[[], float]] = {}
        self._clock = clock
        self._recent: deque[tuple[float, float]] = deque(maxlen=2_000)

    def count(self, name: str, *labels: str, by: float = 1.0) -> None:
        self.counts[name, labels] += by

    def observe(self, name: str, value: float, *labels: str) -> None:
        bounds = CATALOGUE[name].bounds
        found = self.buckets.get((name, labels))
        if found is None:
            found = self.buckets[name, labels] = [0] * (len(bounds) + 1)
        found[bisect_left(bounds, value)] += 1

    def level(self, name: str, read: Callable[[], float], *labels: str) -> None:
        """A gauge: `read` is called whenever it is looked at, from any thread."""
        self.levels[name, labels] = read

    def decided(self, seconds: float) -> None:
        """Note how long a call for a few decisions took, for `p95_ms`: in large ones nobody waits for the first."""
        self._recent.append((self._clock(), seconds))

    def p95_ms(self, window_s: float = 10.0) -> float:
        """95th percentile of such calls in the last seconds, 0 where there were none."""
        since = self._clock() - window_s
        times = sorted(seconds for at, seconds in self._recent.copy() if at >= since)
        return 1e3 * times[(95 * len(times) - 1) // 100] if times else 0.0
