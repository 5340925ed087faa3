"""The tree of providers as a picture, and the table of before and after."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from scipy.cluster import hierarchy

from tune.plots import STYLE
from tune.regrouping.first import First
from tune.regrouping.watch import Watch

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#c2185b", "#56b4e9", "#8e24aa", "#7a8b99", "#d55e00")
TALLEST_IN = 40.0


def dendrogram(grouped: First, cluster_of: Mapping[str, str], path: Path) -> None:
    """Providers by whose models predict them alike; a colour for each cluster of the tree, in brackets the cluster
    that a provider is in. Nothing is drawn of one provider."""
    if len(grouped.rows) < 2:
        return
    labels_P = grouped.tree.labels_P
    colour_P = [COLOURS[label % len(COLOURS)] for label in labels_P.tolist()]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.4, min(1.2 + 0.24 * len(labels_P), TALLEST_IN)), layout="constrained")
        axes = figure.subplots()
        names = [f"{name}  ({cluster_of.get(name, 'new')})" for name in grouped.rows]
        colours = _links(grouped)
        drawn = hierarchy.dendrogram(
            grouped.tree.linkage, orientation="left", labels=names, ax=axes, link_color_func=lambda link: colours[link]
        )
        for text, leaf in zip(axes.get_yticklabels(), drawn["leaves"], strict=True):
            text.set(color=colour_P[leaf], fontsize=9)
        axes.set(xlabel="distance between performances (Ward), nats per outcome; in brackets the cluster now")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        figure.savefig(path, dpi=130)


def _links(grouped: First) -> dict[int, str]:
    """The colour of each join: its cluster's, grey above the clusters."""
    labels = {leaf: {int(label)} for leaf, label in enumerate(grouped.tree.labels_P)}
    for number, (left, right) in enumerate(grouped.tree.linkage[:, :2].astype(int).tolist(), len(labels)):
        labels[number] = labels[left] | labels[right]
    return {n: COLOURS[min(own) % len(COLOURS)] if len(own) == 1 else "#9aa0a6" for n, own in labels.items()}


def table(watch: Watch, before: dict[str, str]) -> list[dict[str, Any]]:
    """Per provider: cluster before and after, watched outcomes, and nats per outcome under one model for all, under
    the cluster's before, and under the cluster's of each day."""
    found = []
    for p, name in enumerate(watch.traffic.providers):
        if name not in watch.state.groups.cluster_of:
            continue
        *sums, count = watch.totals.providers_P4[p].tolist()
        nats = [round(value / count, 4) if count else None for value in sums]
        found.append(
            {
                "provider": name,
                "before": before.get(name),
                "after": watch.state.groups.cluster_of[name],
                "outcomes": int(count),
                **dict(zip(("one_model", "cluster_before", "cluster_of_the_day"), nats, strict=True)),
            }
        )
    return found
