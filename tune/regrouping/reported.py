"""The part of the report on provider clusters: the table of before and after, the moves, and the tree."""

from collections.abc import Iterator
from typing import Any

from tune import page

Facts = dict[str, Any]
HEAD = ("provider", "before", "after", "outcomes", "one model", "cluster before", "cluster of the day")


def sections(grouped: Facts, tree: bytes | None) -> Iterator[str]:
    """Of what `tune.regroup` left; nothing where it left nothing.

    Args:
        grouped: regroup.json. tree: regroup.png.
    """
    if grouped:
        yield page.section("Provider clusters", *_parts(grouped, tree))


def _parts(grouped: Facts, tree: bytes | None) -> Iterator[str]:
    clusters = ", ".join(f"{name} ({count})" for name, count in grouped["clusters"].items())
    yield page.say(
        f"Providers by whose models foretell their outcomes: {clusters}. Grouped on outcomes before "
        f"{grouped['days']['grouped_before']}, watched until {grouped['days']['watched_before']}."
    )
    if gain := grouped["gain_over_one_model"]:
        yield page.say(
            f"The cluster of the day foretells better than one model for all by {gain['value']:+.4f} nats per user, "
            f"95 %: {gain['low']:+.4f} to {gain['high']:+.4f}."
        )
    yield page.say("Nats per outcome under each model, by outcomes that it had not learned.")
    yield page.table(HEAD, (_row(row) for row in grouped["providers"]), numbers=4)
    for move in grouped["moves"]:
        yield page.say(f"Move {move['move']}: {move['provider']} to {move['after']}: {move['why']}.")
    if tree is None:
        yield page.missing("One provider alone is no tree.")
    else:
        yield page.picture(tree, "tree of providers, in brackets their clusters")


def _row(row: Facts) -> tuple[str, ...]:
    nats = (row[name] for name in ("one_model", "cluster_before", "cluster_of_the_day"))
    figures = ("–" if value is None else f"{value:.4f}".replace("-", "−") for value in nats)
    return str(row["provider"]), row["before"] or "new", row["after"], f"{row['outcomes']:,}", *figures
