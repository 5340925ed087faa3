"""A user's context as text for a language model.

One line of `column=value`, then the items met last, by title. Columns that stay the same through a user's
task come first and items are told latest first, so that a token budget, which cuts on the right, cuts what
says least. Numbers with many values become quantile ranges. Everything is fitted on fit rows and nothing but
the context and the user's attributes is read: what happens in the event itself never enters `text`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cluster.records import Value

RECENT = "recent"
LONGEST_VALUE = 64
TITLE_WORDS = 8


@dataclass(frozen=True)
class Serialiser:
    """columns: order of telling; edges: inner quantiles of numeric columns; titles: item_id -> short title."""

    columns: tuple[str, ...]
    edges: dict[str, tuple[float, ...]]
    titles: dict[str, str]

    @classmethod
    def fit(
        cls,
        contexts: Sequence[Mapping[str, Value]],
        tasks: Sequence[str],
        items: pa.Table,
        bins: int = 8,
    ) -> "Serialiser":
        """Learn column order, quantile ranges and titles.

        Args:
            contexts: contexts of fit rows, in time order.
            tasks: key of the task (user) of each of them.
            items: the catalogue (`records.ITEMS`).
            bins: ranges of a numeric column with more values than this.
        """
        rates = _change_rates(contexts, tasks)
        columns = tuple(sorted((c for c in rates if c != RECENT), key=lambda c: (round(rates[c], 1), c)))
        edges = {c: e for c in columns if (e := _edges((x.get(c) for x in contexts), bins))}
        names = zip(items["item_id"].to_pylist(), items["title"].to_pylist(), strict=True)
        return cls(columns, edges, {i: _shorten(title or i) for i, title in names})

    def text(self, context: Mapping[str, Value], attributes: Mapping[str, Value] | None = None) -> str:
        """The text of a situation; columns never met in fitting come last, in alphabetical order."""
        known = {**(attributes or {}), **context}
        extra = sorted(known.keys() - set(self.columns) - {RECENT})
        pairs = [(c, known.get(c)) for c in (*self.columns, *extra)]
        told = [f"{c}={self._value(c, v)}" for c, v in pairs if v is not None and v != []]
        recent = known.get(RECENT)
        if isinstance(recent, list) and recent:
            told.append("recent: " + "; ".join(self.title(str(i)) for i in reversed(recent)))
        return " ".join(told)

    def history(
        self,
        context: Mapping[str, Value],
        attributes: Mapping[str, Value] | None,
        outcomes: Iterable[tuple[str, float]],
    ) -> str:
        """`text` followed by what the user then met and the reward of each: the language model's reading."""
        told = [f"{self.title(item)} -> {reward:.3g}" for item, reward in outcomes]
        return self.text(context, attributes) + "\n" + "\n".join(told)

    def title(self, item_id: str) -> str:
        return self.titles.get(item_id, item_id)

    def facts(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, facts: Mapping[str, Any]) -> "Serialiser":
        edges = {c: tuple(e) for c, e in facts["edges"].items()}
        return cls(tuple(facts["columns"]), edges, dict(facts["titles"]))

    def _value(self, column: str, value: Value) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, list):
            return ",".join(self.title(str(v)) for v in value)[:LONGEST_VALUE]
        if isinstance(value, int | float):
            return _range(self.edges[column], value) if column in self.edges else f"{value:.4g}"
        return " ".join(str(value).split())[:LONGEST_VALUE]


def attributes_of(pairs: Sequence[tuple[str, str]] | None, description: str | None) -> dict[str, Value]:
    """A user's attributes as a context; text that is JSON is read as such (numbers stay numbers)."""
    values: dict[str, Value] = {} if description is None else {"about": description}
    for key, text in pairs or []:
        try:
            values[key] = json.loads(text)
        except (TypeError, ValueError):
            values[key] = text
    return values


def _change_rates(contexts: Sequence[Mapping[str, Value]], tasks: Sequence[str]) -> dict[str, float]:
    """Share of a task's steps at which a column changes, per column."""
    last: dict[str, Mapping[str, Value]] = {}
    changes: dict[str, int] = {}
    steps = 0
    for context, task in zip(contexts, tasks, strict=True):
        before = last.get(task)
        for column, value in context.items():
            changed = before is not None and before.get(column) != value
            changes[column] = changes.get(column, 0) + changed
        steps += before is not None
        last[task] = context
    return {column: count / max(steps, 1) for column, count in changes.items()}


def _edges(values: Iterable[Value], bins: int) -> tuple[float, ...]:
    numbers = [float(v) for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    finite = np.asarray([v for v in numbers if np.isfinite(v)])
    if len(np.unique(finite)) <= bins:
        return ()
    return tuple(float(q) for q in np.unique(np.quantile(finite, np.arange(1, bins) / bins)))


def _range(edges: tuple[float, ...], value: float) -> str:
    k = int(np.searchsorted(edges, value, side="right"))
    if k == 0:
        return f"below {edges[0]:.4g}"
    return f"{edges[k - 1]:.4g}..{edges[k]:.4g}" if k < len(edges) else f"from {edges[-1]:.4g}"


def _shorten(title: str) -> str:
    return " ".join(title.split()[:TITLE_WORDS])[:LONGEST_VALUE]
