"""Coverage and relative error of estimators as one picture."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter

from tune.plots import STYLE

COLOURS = ("#7a8b99", "#e69f00", "#56b4e9", "#b8bec6", "#c2185b", "#8e24aa", "#0072b2", "#009e73")
"""Mostly Okabe and Ito's palette, one for each estimator."""
MARKS = {"bootstrap": "o", "likelihood": "D", "sequence": "s", "bernstein": "^"}


def save(measures: list[dict[str, object]], path: Path) -> None:
    """Left: relative error by users. Right: share of 95 % intervals that hold the truth, by kind."""
    errors = [m for m in measures if str(m["name"]).startswith("error_")]
    covers = [m for m in measures if str(m["name"]).startswith("coverage_")]
    methods = list(dict.fromkeys(str(m["name"])[6:].rpartition("_")[0] for m in errors))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
        for colour, method in zip(COLOURS, methods, strict=True):
            mine = [m for m in errors if str(m["name"])[6:].rpartition("_")[0] == method]
            users = [int(str(m["name"]).rpartition("_")[2]) for m in mine]
            left.loglog(users, [m["ours"] for m in mine], color=colour, marker="o", ms=4, lw=1.6, label=method)
        left.set(xlabel="users", ylabel="relative error (root mean square)", title="How far off")
        left.set_xticks(users, [f"{size:,}" for size in users])
        left.xaxis.set_minor_formatter(NullFormatter())
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left.yaxis.set_minor_formatter(PercentFormatter(1, decimals=0))
        left.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        right.axvspan(0.94, 0.99, color="#e3f1e8", zorder=0)
        right.axvline(0.95, color="#8a8f98", lw=0.8, ls=(0, (4, 3)))
        for kind, mark in MARKS.items():
            mine = [m for m in covers if str(m["name"]).endswith(f"_{kind}")]
            rows = [methods.index(str(m["name"])[9 : -len(kind) - 1]) for m in mine]
            shift = 0.18 * (list(MARKS).index(kind) - 1.5)
            places = np.array(rows, float) + shift
            right.scatter([m["ours"] for m in mine], places, marker=mark, s=26, label=kind, color="#0072b2", alpha=0.85)
            least = [m["least"] for m in mine]
            right.scatter(least, places, marker=mark, s=26, facecolors="none", edgecolors="#0072b2", alpha=0.6)
        right.set_yticks(range(len(methods)), methods)
        right.invert_yaxis()
        right.set(xlabel="share of 95 % intervals that hold the truth (hollow: worst size)", title="How often right")
        right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        right.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        figure.savefig(path, dpi=130)
