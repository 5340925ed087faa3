"""What a decision earns, made from the rewards that the log holds (docs/metric.md): clicks, conversions, the length
of sessions, or a weighted mix of them, each in [0, 1].

Rows of one client that share an event_id and the item are one decision, and what came of it one after the other; the
first of them says who, when and among which items. Worlds, estimators and sweeps all read what `apply` returns.

Shapes: N rows of the log, E decisions, kept in time order.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actors.features.features import Floats, Ints
from cluster.config import MetricSettings, Settings
from cluster.errors import EvidenceError
from cluster.records import Dataset
from tune.log import Bools, renumber

MINUTE_US = 60_000_000


def apply(dataset: Dataset, settings: Settings) -> Dataset:
    """The data set with one row per decision, whose reward is the metric's; itself where the metric is `reward` or
    was applied before.

    Decisions of which the metric cannot be known are left out and counted in `facts["metric_left_out"]`. Where
    sessions count, a truth that says what is clicked or bought no longer answers: the format is feedback then.

    Raises EvidenceError where the log lacks a reward kind that the metric names, or has no sessions.
    """
    own = settings.metric
    about = own.model_dump(mode="json")
    if own.kind == "reward" or dataset.facts.get("metric") == about:
        return dataset
    outcomes = Outcomes.of(dataset.events)
    weights = own.weights if own.kind == "mix" else {own.kind: 1.0}
    value_E = np.sum([weight * _values(name, outcomes, own) for name, weight in weights.items()], axis=0)
    value_E /= sum(weights.values())
    known = np.flatnonzero(np.isfinite(value_E))
    left_out = len(value_E) - len(known)
    if not len(known):
        raise EvidenceError(_NO_SESSIONS.format(count=left_out, minutes=own.gap_minutes))
    events = _rewarded(outcomes.decisions.take(pa.array(known)), value_E[known], own.kind)
    facts = dataset.facts | {"metric": about, "metric_left_out": left_out}
    if "session_length" in weights:
        return replace(dataset, format="feedback", events=events, truth=None, facts=facts)
    return replace(dataset, events=events, facts=facts)


_NO_SESSIONS = (
    "none of {count} decisions has a known session: they need a session_id, or a user_id and {minutes:g} minutes of "
    "log after them; map those columns in the import, or take another metric.kind"
)


@dataclass(frozen=True)
class Outcomes:
    """rows: the log's. code_N: the decision of each row. decisions: the first row of each, E."""

    rows: pa.Table
    code_N: Ints
    decisions: pa.Table

    @classmethod
    def of(cls, events: pa.Table) -> "Outcomes":
        code_N = _codes(events, "client_id", "event_id", "item_id")
        return cls(events, code_N, events.take(pa.array(np.unique(code_N, return_index=True)[1])))


def _values(name: str, outcomes: Outcomes, settings: MetricSettings) -> Floats:
    """The metric of each decision, NaN where it cannot be known, (E,)."""
    match name:
        case "click_through":
            return _earned(outcomes, settings.clicks, "clicks")
        case "conversion":
            return _earned(outcomes, settings.conversions, "conversions")
        case _:
            return going_on(outcomes.decisions, round(settings.gap_minutes * MINUTE_US))


def _earned(outcomes: Outcomes, kinds: tuple[str, ...], setting: str) -> Floats:
    """1 where a row of these kinds has a reward above 0."""
    kind = outcomes.rows["reward_kind"]
    there = set(kind.unique().drop_null().to_pylist())
    absent = sorted(set(kinds) - there)
    if absent:
        raise EvidenceError(
            f"the log has no rewards of kind {absent[0]!r}; it has {', '.join(sorted(there)) or 'none'}: name those "
            f"that count in metric.{setting}, or map reward_kind in the import"
        )
    hit = pc.and_(pc.is_in(kind, pa.array(kinds)), pc.greater(pc.fill_null(outcomes.rows["reward"], 0.0), 0.0))
    hit_N = np.asarray(pc.fill_null(hit, False), dtype=bool)
    return (np.bincount(outcomes.code_N, hit_N, len(outcomes.decisions)) > 0).astype(np.float64)


def going_on(decisions: pa.Table, gap_us: int) -> Floats:
    """1 where the session goes on after a decision, 0 where it ends there, NaN where that cannot be known, (E,).

    Summed over a session of L moments this is L − 1, hence its mean v over decisions says how long sessions are on
    average, 1/(1 − v). Decisions of one moment (the places of a page) go on together. A session is a user's rows of
    one session_id; where there is none, rows with no pause longer than the gap, and then a decision within the gap
    of the log's end is not known: whether it goes on is not in the log yet. (Thirty minutes: Catledge & Pitkow 1995.)
    """
    time_E = decisions["timestamp"].cast(pa.int64()).to_numpy()
    named_E, session_E = _sessions(decisions)
    order = np.lexsort((time_E, session_E))
    session, time = session_E[order], time_E[order]
    new = (np.diff(session, prepend=-2) != 0) | (np.diff(time, prepend=0) != 0)
    first = np.flatnonzero(new)
    same = np.append(session[first][1:] == session[first][:-1], False)
    pause = np.append(np.diff(time[first]), 0)
    on = same & (named_E[order][first] | (pause <= gap_us))
    value_E = np.empty(len(order))
    value_E[order] = on[np.cumsum(new) - 1]
    late_E = time_E > time_E.max(initial=0) - gap_us
    value_E[(session_E < 0) | (late_E & ~named_E)] = np.nan
    return value_E


def _sessions(decisions: pa.Table) -> tuple[Bools, Ints]:
    """Whether a session_id is given, and whose rows belong together (−1: nobody's), (E,) each."""
    named_E = np.asarray(pc.is_valid(decisions["session_id"]), dtype=bool)
    nobody_E = np.asarray(pc.is_null(pc.coalesce(decisions["session_id"], decisions["user_id"])), dtype=bool)
    return named_E, np.where(nobody_E, -1, _codes(decisions, "client_id", "user_id", "session_id"))


def _codes(table: pa.Table, *columns: str) -> Ints:
    """Rows alike in these columns by whole numbers 0, 1, ... in order of appearance."""
    code_N = np.zeros(len(table), dtype=np.int64)
    for column in columns:
        values = table[column].combine_chunks().dictionary_encode(null_encoding="encode")
        code_N = renumber(code_N * (len(values.dictionary) + 1) + np.asarray(values.indices, dtype=np.int64))
    return code_N


def _rewarded(events: pa.Table, value_E: Floats, kind: str) -> pa.Table:
    for name, column in (("reward", pa.array(value_E)), ("reward_kind", pa.repeat(pa.scalar(kind), len(events)))):
        events = events.set_column(events.schema.get_field_index(name), events.schema.field(name), column)
    return events
