"""Figures of a run as inline SVG: text stays text, nothing is fetched, equal input gives equal bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

COLOURS = {
    "uniform": "#9aa0a6",
    "popularity": "#e69f00",
    "pooled_linear": "#56b4e9",
    "best_predefined": "#0072b2",
    "ensemble": "#c2185b",
}
"""Policies; all but grey and pink from Okabe and Ito's palette, told apart by colour-blind readers."""
PREDEFINED = ("#b8bec6", "#e69f00", "#56b4e9", "#0072b2", "#009e73", "#7a8b99")
GENERATED = ("#c2185b", "#e57ba4", "#8e24aa", "#f3b3cc")
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": "#3c4149",
    "xtick.color": "#5a606a",
    "ytick.color": "#5a606a",
    "axes.grid": True,
    "grid.color": "#e8eaee",
    "axes.axisbelow": True,
}
UNCHOSEN = "#b3a4ab"
SERVICES = {"replaced": "#c2185b", "alone": "#0072b2"}
TITLES = {"with replacement": "replaced", "without replacement": "alone"}
BESIDE: Any = {"frameon": False, "loc": "upper left", "bbox_to_anchor": (1.01, 1), "handlelength": 1.4}
MOST = 40
"""Candidates drawn; the rest are counted in words."""


def learning(curves: Mapping[str, Mapping[str, Sequence[Any]]], labels: Mapping[str, str]) -> str:
    """Cumulative mean reward per 1,000 decisions of each policy, with its 95 % band."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "learning"}):
        figure, axes = _figure(8.4, 3.9)
        for name, curve in curves.items():
            colour = COLOURS.get(name, "#444")
            width = 2.4 if name == "ensemble" else 1.6
            dashes = (0, (4, 3)) if name == "best_predefined" else "-"  # it may lie on another's line
            axes.plot(
                curve["decisions"], curve["mean"], color=colour, lw=width, ls=dashes, label=labels.get(name, name)
            )
            known = [i for i, low in enumerate(curve["low"]) if low is not None]
            axes.fill_between(
                [curve["decisions"][i] for i in known],
                [curve["low"][i] for i in known],
                [curve["high"][i] for i in known],
                color=colour,
                alpha=0.12,
                lw=0,
            )
        _limits(axes, curves)
        axes.set(xlabel="decisions", ylabel="expected reward per 1,000")
        axes.margins(x=0)
        axes.legend(**BESIDE)
        return _svg(figure)


def _limits(axes: Axes, curves: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Show where the curves end up, not the noise of the first decisions."""
    settled = [value for curve in curves.values() for value in curve["mean"][len(curve["mean"]) // 10 :]]
    last = [curve[bound][-1] for curve in curves.values() for bound in ("low", "high") if curve[bound]]
    shown = settled + [value for value in last if value is not None]
    if shown:
        margin = 0.08 * (max(shown) - min(shown)) or 1.0
        axes.set_ylim(min(shown) - margin, max(shown) + margin)


def weights(over_time: Mapping[str, Any], generated: Sequence[str]) -> str:
    """The members' mean weights in what was answered, stacked over time."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "weights"}):
        figure, axes = _figure(8.4, 3.2)
        names = sorted(over_time["names"], key=lambda name: name in generated)
        columns = [over_time["names"].index(name) for name in names]
        series = [[row[column] for row in over_time["weights"]] for column in columns]
        axes.stackplot(over_time["seconds"], series, labels=names, colors=_colours(names, generated), lw=0)
        axes.set(xlabel="seconds", ylabel="share of weight", ylim=(0, 1))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.margins(x=0)
        handles, texts = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], texts[::-1], **BESIDE)
        return _svg(figure)


def recovery(rehearsal: Mapping[str, Any]) -> str:
    """Reward per 1,000 decisions before and after a drift, with replacement and without, and what could be told."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "recovery"}):
        figure, axes = _figure(8.4, 3.9)
        at = rehearsal["drift_at"]
        for name, label in (("alone", "without replacement"), ("replaced", "with replacement")):
            curve, colour = rehearsal["curves"][name], SERVICES[name]
            axes.plot(curve["share"], curve["mean"], color=colour, lw=2.2, label=label)
            axes.fill_between(curve["share"], curve["low"], curve["high"], color=colour, alpha=0.14, lw=0)
        for name, label, dashes in (
            ("told", "best that features can tell", (0, (5, 2))),
            ("uniform", "uniform", (0, (1, 2))),
        ):
            before, after = rehearsal[name]
            axes.plot([0, at, at, 1], [before, before, after, after], color="#7a8b99", lw=1.3, ls=dashes, label=label)
        _moments(axes, at, rehearsal["published"])
        axes.set(xlabel="share of the traffic", ylabel="expected reward per 1,000", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.legend(**BESIDE)
        return _svg(figure)


def recovery_weights(rehearsal: Mapping[str, Any]) -> str:
    """The members' weights over time with replacement and without, of the first seed."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "recovery weights"}):
        figure = Figure(figsize=(8.4, 4.6), layout="constrained")
        names = sorted({name for found in rehearsal["weights"].values() for name in found["names"]}, key=_trusted_first)
        colours = _colours(names, [name for name in names if name == "generated"])
        for axes, (title, kind) in zip(figure.subplots(2, 1, sharex=True), TITLES.items(), strict=True):
            found = rehearsal["weights"][kind]
            rows = np.array(found["weights"])
            series = [
                rows[:, found["names"].index(name)] if name in found["names"] else np.zeros(len(rows)) for name in names
            ]
            axes.stackplot(found["share"], series, labels=names, colors=colours, lw=0)
            _moments(axes, rehearsal["drift_at"], rehearsal["published"] if kind == "replaced" else [])
            axes.set(ylabel="share of weight", ylim=(0, 1), xlim=(found["share"][0], found["share"][-1]))
            axes.set_title(title, fontsize=10, color="#3c4149", loc="left")
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            if kind == "replaced":
                handles, texts = axes.get_legend_handles_labels()
                axes.legend(handles[::-1], texts[::-1], **BESIDE)
        axes.set_xlabel("share of the traffic")
        return _svg(figure)


def _trusted_first(name: str) -> tuple[bool, str]:
    return name == "generated", name


def _moments(axes: Axes, drift_at: float, published: Sequence[Mapping[str, Any]]) -> None:
    """When tastes changed, and when the first seed's service took up a new version."""
    axes.axvline(drift_at, color="#1d2129", lw=1.2)
    for each in published:
        axes.axvline(each["share"], color=SERVICES["replaced"], lw=1.2, ls=(0, (2, 2)))


def evidence(found: Mapping[str, Any], alarm: float) -> str:
    """Evidence for a drift after each look, as a power of ten, with the level of the alarm."""
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "evidence"}):
        figure, axes = _figure(8.4, 2.6)
        at = np.array(found["seconds"]).astype("datetime64[s]")
        axes.plot(at, np.array(found["log_evidence"]) / np.log(10), color=COLOURS["best_predefined"], lw=1.8)
        axes.axhline(np.log10(alarm), color=COLOURS["ensemble"], lw=1.4)
        axes.annotate("alarm", (at[0], np.log10(alarm)), (2, 4), textcoords="offset points", color=COLOURS["ensemble"])
        axes.set(ylabel="evidence, log10")
        axes.margins(x=0.01, y=0.15)
        figure.autofmt_xdate(rotation=0, ha="center")
        return _svg(figure)


def _colours(names: Sequence[str], generated: Sequence[str]) -> list[str]:
    trusted = [name for name in names if name not in generated]
    ours = [name for name in names if name in generated]
    found = {name: PREDEFINED[i % len(PREDEFINED)] for i, name in enumerate(trusted)}
    found |= {name: GENERATED[i % len(GENERATED)] for i, name in enumerate(ours)}
    return [found[name] for name in names]


def candidates(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each candidate's value on its domain less that of the best predefined model there, with its 95 % interval."""
    shown = sorted(rows, key=lambda row: row["difference"])[-MOST:]
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "candidates"}):
        figure, axes = _figure(8.4, 1.1 + 0.2 * len(shown))
        axes.axvline(0, color=COLOURS["best_predefined"], lw=1.6)
        for y, row in enumerate(shown):
            colour = COLOURS["ensemble"] if row["chosen"] else UNCHOSEN
            axes.plot([row["low"], row["high"]], [y, y], color=colour, lw=2, solid_capstyle="round")
            axes.plot(row["difference"], y, "o", color=colour, ms=5)
        axes.set_yticks(range(len(shown)), [f"{row['candidate']} · {row['users']:,} users" for row in shown])
        axes.set(xlabel="scaled reward per decision, candidate − best predefined", ylim=(-0.8, len(shown) - 0.2))
        axes.set_xlim(*_reach(shown))
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.plot([], [], "o-", color=COLOURS["ensemble"], lw=2, ms=5, label="chosen for the member")
        axes.plot([], [], "o-", color=UNCHOSEN, lw=2, ms=5, label="not chosen")
        axes.plot([], [], color=COLOURS["best_predefined"], lw=1.6, label="best predefined there")
        axes.legend(**BESIDE)
        return _svg(figure)


def _reach(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """All values and most of the intervals: one over a handful of users would flatten the rest."""
    widths = sorted(row["high"] - row["low"] for row in rows)
    usual = widths[(3 * len(widths)) // 4]
    low = min(max(row["low"], row["difference"] - usual) for row in rows)
    high = max(min(row["high"], row["difference"] + usual) for row in rows)
    margin = 0.04 * (high - low) or 0.01
    return min(low, 0.0) - margin, max(high, 0.0) + margin


def fidelity(world: Mapping[str, Any]) -> str:
    """What came against what a fitted world said, by tenths of the events and by item, with 95 % intervals."""
    items = [group for family in world["families"] if family["name"] == "item" for group in family["groups"]]
    panels = [("events by what the world said", world["calibration"]), *([("items", items)] if items else [])]
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": "fidelity"}):
        figure = Figure(figsize=(8.4, 3.7), layout="constrained")
        for axes, (title, groups) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            _agreement(axes, groups)
            axes.set_title(title, fontsize=10, color="#3c4149")
        return _svg(figure)


def _agreement(axes: Axes, groups: Sequence[Mapping[str, Any]]) -> None:
    said, came = [group["world"] for group in groups], [group["real"] for group in groups]
    reach = [(group["difference"][2] - group["difference"][1]) / 2 for group in groups]
    ends = [min(*said, *came), max(*said, *came)]
    axes.plot(ends, ends, color=COLOURS["best_predefined"], lw=1.6)
    axes.errorbar(said, came, reach, fmt="o", color=COLOURS["ensemble"], ms=4.5, lw=1.2, alpha=0.9)
    axes.set(xlabel="the world said, reward", ylabel="came, reward")


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that scales with the page."""
    written = io.StringIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :].strip()
