"""What `medley what-if` prints and writes: a table, a plot, Parquet, one JSON line."""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.errors import StateError
from tune.whatif import forest
from tune.whatif.answers import Answer
from tune.whatif.counterfactual import Answers, Question

WIDE = 120
"""Columns of a screen on which values and bounds stand in one line."""


def write(answers: Answers, question: Question, options: argparse.Namespace, console: Console) -> None:
    """Print the table and the notes on `console`; write what `options` name.

    Raises StateError where a file cannot be written.
    """
    title = heading(answers, question, options.part)
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    console.print(table(answers, narrow=console.width < WIDE))
    for note in notes(answers.rows, answers.remarks):
        console.print(f"[yellow]![/] {escape(note)}", highlight=False, soft_wrap=True)
    if options.plot:
        forest.draw(options.plot, answers, title)
        console.print(f"plot: {options.plot}", highlight=False, soft_wrap=True)
    if options.table:
        rows = [asdict(row) for row in [*answers.logged, *answers.rows]]
        try:
            pq.write_table(pa.Table.from_pylist(rows), options.table)
        except OSError as error:
            raise StateError(f"{options.table}: cannot be written ({error}); give another --table") from error
    if options.json:
        print(json.dumps(facts(answers, question, options.part)))


def heading(answers: Answers, question: Question, part: str) -> str:
    """In words, what was asked, on what."""
    kind = {"bootstrap": "bootstrap", "bernstein": "Bernstein", "sequence": "any-time"}[question.bounds.interval]
    of = f" of {answers.logged[0].users:,} users" if len(answers.logged) == 1 else ""
    rows = "all rows" if part == "all" else f"the {part} part"
    without = f", {answers.missing:,} without propensity" if answers.missing else ""
    level = 100 * (1 - question.bounds.alpha)
    logged = " (the log's own: bootstrap)" if question.bounds.interval == "bernstein" else ""
    return f"What if: {answers.events:,} events{of} ({rows}{without}), {level:.4g} % {kind} intervals by user{logged}"


def table(answers: Answers, narrow: bool = False) -> Table:
    """For all events or every group of them, what the log itself earned and a block for every policy; on a narrow
    screen bounds have a line of their own."""
    found = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("policy", "estimator"):
        found.add_column(name, overflow="fold", min_width=9)
    for name in ("value", "less the log's", "eff. n", "tail", "lacks"):
        found.add_column(name, justify="right", no_wrap=True)
    places = decimals([*answers.rows, *answers.logged])
    for logged in answers.logged:
        if logged.group:
            found.add_row(escape(logged.group), style="bold")
        before = None
        for row in [logged, *(row for row in answers.rows if row.group == logged.group)]:
            texts = cells(row, places, "\n" if narrow else " ", again=row.policy == before)
            found.add_row(*texts, style=None if row.supported else "yellow")
            before = row.policy
        found.add_section()
    return found


def cells(row: Answer, places: int, between: str = " ", again: bool = False) -> list[str]:
    """The texts of one row; a policy is named once, `again` not."""
    estimator = row.estimator if row.parameter is None else f"{row.estimator} λ={row.parameter:g}"
    if row.estimator == "on-policy":
        value = _bounded((row.value, row.low, row.high), places, "", between)
        return [row.policy, estimator, value, "", f"{row.events:,}", "", ""]
    return [
        "" if again else escape(row.policy) + " (learning)" * row.learns,
        estimator + " !" * (not row.supported),
        _bounded((row.value, row.low, row.high), places, "", between),
        _bounded((row.difference, row.difference_low, row.difference_high), places, "+", between),
        f"{row.effective_events:,.0f}",
        f"{row.tail:.0%}",
        f"{row.unsupported_share:.1%}",
    ]


def _bounded(bounds: tuple[float, float, float], places: int, sign: str, between: str) -> str:
    value, low, high = (f"{round(number, places) + 0.0:{sign}.{places}f}" for number in bounds)
    if not math.isfinite(bounds[0]):
        return "–"
    return f"{value}{between}[{low}, {high}]" if math.isfinite(bounds[1]) else value


def notes(rows: Sequence[Answer], remarks: Mapping[str, str] | None = None) -> list[str]:
    """What a reader must know, said once for all estimators and groups of a policy that share it; so is a policy's
    remark, which begins every note of its own."""
    found: dict[tuple[str, str], list[Answer]] = {}
    for row in rows:
        remark = (remarks or {}).get(row.policy, "")
        for text in filter(None, (remark, row.note.removeprefix(remark).removeprefix("; "))):
            found.setdefault((row.policy, text), []).append(row)
    every = {row.group for row in rows}
    texts = []
    for (policy, note), own in found.items():
        estimators = ", ".join(dict.fromkeys(row.estimator for row in own))
        groups = dict.fromkeys(row.group for row in own)
        where = f" where {' or '.join(groups)}" if len(groups) < len(every) else ""
        texts.append(f"{policy} ({estimators}){where}: {note}")
    return texts


def decimals(rows: Sequence[Answer]) -> int:
    """Digits after the point with which the narrowest interval of a value shows its width."""
    widths = [row.high - row.low for row in rows if row.high > row.low]
    return min(8, max(0, 1 - math.floor(math.log10(min(widths))))) if widths else 4


def facts(answers: Answers, question: Question, part: str) -> dict[str, Any]:
    """The same for machines; NaN becomes null."""
    bounds = question.bounds
    return {
        "events": answers.events,
        "events_without_propensity": answers.missing,
        "part": part,
        "interval": bounds.interval,
        "alpha": bounds.alpha,
        "logged": [_plain(row) for row in answers.logged],
        "rows": [_plain(row) for row in answers.rows],
    }


def _plain(row: Answer) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in asdict(row).items()
    }
