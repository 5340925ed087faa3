"""The table of a sweep: every trial beside the settings as they were, best first.

The interval of a difference is simultaneous over all trials (Bonferroni, Student over users), because the best of
many is picked by what is partly luck: one that lies above zero is more than that.

Shapes: U users.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

from actors.features.features import Floats
from cluster.statistics import ratio_error
from tune.sweeps.search import Found
from tune.sweeps.space import Point, Space
from tune.sweeps.trials import Score

ALPHA = 0.05
State = Literal["configured", "done", "stopped", "failed"]
_ORDER: tuple[State, ...] = ("done", "stopped", "failed", "configured")


@dataclass(frozen=True)
class Row:
    """value, low, high: mean reward per event with its 95 % interval; difference: less that of the settings as
    configured on the same events. None where a trial failed, for the reason in `error`."""

    trial: int | None
    point: Point
    state: State
    value: float | None = None
    low: float | None = None
    high: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    events: int = 0
    users: int = 0
    error: str = ""

    @property
    def figures(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "point"}


@dataclass(frozen=True)
class Swept:
    """configured: the settings as they were. rows: the trials, best first, failed ones last."""

    space: Space
    configured: Row
    rows: tuple[Row, ...]

    @classmethod
    def of(cls, space: Space, point: Point, base: Sequence[Score], found: Sequence[Found]) -> "Swept":
        """point, base: the settings as configured, and their scores after each part of the events that trials have."""
        compared = sum(one.score is not None for one in found)
        by_events = {score.events: score for score in base}
        rows = [_row(one, by_events, ALPHA / max(compared, 1)) for one in found]
        rows.sort(key=lambda row: (_ORDER.index(row.state), -(row.value or 0.0), row.trial))
        value, low, high = _interval(base[-1].sums_U, base[-1].counts_U, ALPHA)
        users = int((base[-1].counts_U > 0).sum())
        configured = Row(None, point, "configured", value, low, high, 0.0, 0.0, 0.0, base[-1].events, users)
        return cls(space, configured, tuple(rows))

    @property
    def best(self) -> Row:
        """The trial of greatest value that saw all events; the settings as configured where none did better."""
        whole = [row for row in self.rows if row.state == "done" and (row.difference or 0.0) > 0]
        return whole[0] if whole else self.configured

    def count(self, state: State) -> int:
        return sum(row.state == state for row in self.rows)

    def table(self) -> pa.Table:
        """One row a trial, a column for each path, then the figures; last the settings as configured."""
        rows = [*self.rows, self.configured]
        columns = {path: _column([row.point.get(path) for row in rows]) for path in self.space.dimensions}
        names = self.configured.figures
        figures = {name: pa.array([row.figures[name] for row in rows]) for name in names}
        return pa.table({"trial": figures.pop("trial"), **columns, **figures})

    def save(self, path: Path) -> None:
        """Write the table as Parquet, aside and then renamed."""
        aside = path.with_suffix(".partial")
        pq.write_table(self.table(), aside, compression="zstd")
        aside.replace(path)


def _row(found: Found, base: dict[int, Score], alpha: float) -> Row:
    if found.score is None:
        return Row(found.number, found.point, "failed", error=found.error)
    score = found.score
    beside = base[score.events]
    return Row(
        found.number,
        found.point,
        "stopped" if found.stopped else "done",
        *_interval(score.sums_U, score.counts_U, ALPHA),
        *_interval(score.sums_U - beside.sums_U, score.counts_U, alpha),
        events=score.events,
        users=int((score.counts_U > 0).sum()),
    )


def _interval(sums_U: Floats, counts_U: Floats, alpha: float) -> tuple[float, float, float]:
    """Mean per event with Student's interval over users."""
    seen_U = counts_U > 0
    value, error = ratio_error(sums_U[seen_U], counts_U[seen_U])
    reach = float(stats.t.isf(alpha / 2, int(seen_U.sum()) - 1)) * error
    return value, value - reach, value + reach


def _column(values: Sequence[Any]) -> pa.Array:
    """Values of one type as they are, others as JSON."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else json.dumps(value) for value in values])
