"""Parallel coordinates of a sweep: one line a trial, from its settings to what it earned, the best in colour."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tune.plots import COLOURS, STYLE
from tune.sweeps.space import Dimension, Range
from tune.sweeps.swept import Row, Swept

BEST, CONFIGURED, AXIS = COLOURS["ensemble"], "#3c4149", "#8a8f98"
DECADE = 10.0
"""Listed numbers that span more are placed by their logarithm."""


@dataclass(frozen=True)
class Scale:
    """Where values of one setting stand on its axis, [0, 1], and which are written beside it."""

    low: float
    high: float
    log: bool
    places: dict[str, float]

    @classmethod
    def of(cls, dimension: Dimension) -> "Scale":
        if isinstance(dimension, Range):
            return cls(dimension.low, dimension.high, dimension.kind == "log", {})
        numbers = [v for v in dimension.values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(dimension.values) > 2:
            low, high = min(numbers), max(numbers)
            return cls(low, high, low > 0 and high > DECADE * low, {})
        last = max(len(dimension.values) - 1, 1)
        return cls(0.0, 1.0, False, {str(value): place / last for place, value in enumerate(dimension.values)})

    def at(self, value: Any) -> float:
        """NaN for what is not on the axis."""
        if self.places:
            return self.places.get(str(value), math.nan)
        if value is None or not self.low <= value <= self.high:
            return math.nan
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def ticks(self) -> dict[str, float]:
        if self.places:
            return self.places
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return {_text(value): self.at(value) for value in (self.low, middle, self.high)}


def save(swept: Swept, path: Path, title: str) -> None:
    """Draw every trial that saw all events as PNG, written aside and then renamed."""
    shown = [row for row in swept.rows if row.state == "done"]
    aside = path.with_suffix(".partial")
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        figure = drawn(swept, shown, title)
        figure.savefig(aside, format="png", dpi=150)
    aside.replace(path)


def drawn(swept: Swept, rows: Sequence[Row], title: str) -> Figure:
    """The axes of the settings that vary, and last that of the reward per 1,000 decisions."""
    varied = {path: Scale.of(one) for path, one in swept.space.dimensions.items() if len(set(map(str, one.probes))) > 1}
    rewards = [1_000 * (row.value or 0.0) for row in [*rows, swept.configured]]
    margin = 0.5 if min(rewards) == max(rewards) else 0.0
    scales = [*varied.values(), Scale(min(rewards) - margin, max(rewards) + margin, False, {})]
    figure = Figure(figsize=(1.2 + 1.35 * len(scales), 4.6), layout="constrained")
    axes = figure.subplots()
    _frame(axes, scales, [*varied, "reward\nper 1,000"])
    for row in reversed(rows):
        heights = _heights(row, varied, scales[-1])
        axes.plot(heights, color=_colour(heights[-1]), lw=1.0, alpha=0.6, zorder=2)
    configured = _heights(swept.configured, varied, scales[-1])
    axes.plot(configured, color=CONFIGURED, lw=1.6, ls=(0, (2, 2)), zorder=3, label="as configured")
    if swept.best.trial is not None:
        best = _heights(swept.best, varied, scales[-1])
        axes.plot(best, "o-", color=BEST, lw=2.6, ms=6, zorder=4, label=f"best, trial {swept.best.trial}")
    axes.plot([], [], color=_colour(1.0), lw=1, label="earned much")
    axes.plot([], [], color=_colour(0.0), lw=1, label="earned little")
    figure.suptitle(title, fontsize=11)
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=4)
    return figure


def _heights(row: Row, varied: dict[str, Scale], earned: Scale) -> list[float]:
    """Where a trial stands on each axis; NaN, a gap, where its value has no place there."""
    return [*(scale.at(row.point[path]) for path, scale in varied.items()), earned.at(1_000 * (row.value or 0.0))]


def _colour(share: float) -> Any:
    return matplotlib.colormaps["viridis"](0.92 - 0.92 * share)


def _text(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def _frame(axes: Axes, scales: Sequence[Scale], names: Sequence[str]) -> None:
    """An upright line for each scale with its ticks, and its name above."""
    axes.set(xlim=(-0.45, len(scales) - 0.65), ylim=(-0.06, 1.0), xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    for x, (scale, name) in enumerate(zip(scales, names, strict=True)):
        axes.plot([x, x], [0, 1], color=AXIS, lw=1, zorder=1, clip_on=False)
        axes.text(x, 1.04, name.replace(".", ".\n").replace("_", "_\n", 1), ha="center", va="bottom", fontsize=8)
        for text, place in scale.ticks().items():
            axes.plot([x - 0.03, x + 0.03], [place, place], color=AXIS, lw=1, clip_on=False)
            box = {"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.8}
            axes.text(x - 0.06, place, text, ha="right", va="center", fontsize=8, color=CONFIGURED, bbox=box, zorder=5)
