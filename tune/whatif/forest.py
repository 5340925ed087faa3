"""A forest plot: estimates with their intervals, policy by policy, beside what the logging policy earned."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cluster.errors import StateError
from tune.plots import STYLE
from tune.whatif.answers import Answer
from tune.whatif.counterfactual import Answers

COLOURS = ("#0072b2", "#c2185b", "#e69f00", "#009e73", "#56b4e9", "#7a4988", "#7a8b99")
"""Of estimators, in the order in which they are asked for."""
LOGGED = "#5a606a"
MOST = 60
"""Rows drawn; the table holds them all."""


def draw(path: Path, answers: Answers, title: str) -> None:
    """Write the plot; the ending of `path` says the format.

    Raises StateError where the file cannot be written or has no ending that matplotlib knows.
    """
    rows = [row for row in answers.rows if np.isfinite(row.value)][:MOST]
    labels = list(dict.fromkeys(row.label for row in rows))
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "forest"}):
        figure = Figure(figsize=(9.0, 1.5 + 0.24 * (len(rows) + len(labels))), layout="constrained")
        axes = figure.subplots()
        _rows(axes, rows, labels)
        _marks(axes, answers.logged, rows)
        axes.set_title(title, loc="left", fontsize=11, color="#1d2129")
        try:
            figure.savefig(path, dpi=150)
        except (OSError, ValueError) as error:
            raise StateError(f"{path}: cannot be written ({error}); give --plot FILE.png, .svg or .pdf") from error


def _rows(axes: Axes, rows: list[Answer], labels: list[str]) -> None:
    """Policies from top to bottom, each with its estimators."""
    estimators = list(dict.fromkeys(row.estimator for row in rows))
    ticks, y = [], 0.0
    for label in labels:
        own = [row for row in rows if row.label == label]
        ticks.append(y + (len(own) - 1) / 2)
        for row in own:
            colour = COLOURS[estimators.index(row.estimator)]
            width, face = (2.0, colour) if row.supported else (1.0, "white")
            axes.plot([row.low, row.high], [y, y], color=colour, lw=width, solid_capstyle="round")
            axes.plot(row.value, y, "o", color=colour, mfc=face, ms=5)
            y += 1
        y += 0.6
    axes.set_yticks(ticks, labels)
    axes.set_ylim(y - 0.6, -1.0)
    for estimator, colour in zip(estimators, COLOURS, strict=False):
        axes.plot([], [], "o-", color=colour, lw=2, ms=5, label=estimator)


def _marks(axes: Axes, logged: list[Answer], rows: list[Answer]) -> None:
    """What the log earned (one group alone), the legend, and the part of the axis that is worth seeing."""
    if len(logged) == 1:
        axes.axvspan(logged[0].low, logged[0].high, color=LOGGED, alpha=0.13, lw=0, zorder=0)
        axes.axvline(logged[0].value, color=LOGGED, lw=1.4, zorder=1, label="the log itself")
    if not all(row.supported for row in rows):
        axes.plot([], [], "o-", color=LOGGED, lw=1, ms=5, mfc="white", label="see its note")
    axes.set_xlim(*_reach(logged, rows))
    axes.set_xlabel("mean reward per decision")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1), handlelength=1.4)


def _reach(logged: list[Answer], rows: list[Answer]) -> tuple[float, float]:
    """Every value, and the intervals of what has support: one without would flatten the rest."""
    trusted = [*logged, *(row for row in rows if row.supported)]
    low = min([row.low for row in trusted] + [row.value for row in rows])
    high = max([row.high for row in trusted] + [row.value for row in rows])
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin
