"""What became of a version in service: the parts of the report on refinement and on the rehearsal of a drift."""

from collections.abc import Iterator
from datetime import UTC, datetime
from html import escape
from typing import Any

from tune import page, plots

Facts = dict[str, Any]
ACTIONS = {
    "nothing": "There was nothing to do.",
    "wait": "A replacement has to wait: {waits}.",
    "keep": "A replacement was composed and not shown to be safe: version {running} stays.",
    "replace": "Version {version} took over from version {running}.",
    "restart": "Version {version} began again from the change on, in place of version {running}.",
    "retire": "Version {version} is version {running} without the members that lost.",
}


def sections(refined: Facts, tried: Facts) -> Iterator[str]:
    """The sections that there is something to say in."""
    if "action" in refined:
        yield page.section("Refinement", *_refinement(refined))
    if rehearsal := tried.get("rehearsal"):
        yield page.section("Recovery from a drift", *_recovery(rehearsal))


def _refinement(refined: Facts) -> Iterator[str]:
    yield page.say(ACTIONS[refined["action"]].format(**refined))
    drift = refined["drift"]
    if drift is None:
        yield page.say(f"No drift in {refined['looks']:,} looks at rewards and contexts.")
    else:
        turned = " What was the better choice is no longer." if drift["turned"] else ""
        yield page.say(
            f"Drift ({drift['signal']}) since {_at(drift['since_s'])}, between {_at(drift['first_s'])} and "
            f"{_at(drift['last_s'])} by 95 % of the evidence; alarm at {_at(drift['alarm_s'])}.{turned}"
        )
    if refined["seconds"]:
        yield plots.evidence(refined, refined["alarm"])
    if proof := refined.get("proof"):
        yield page.say(
            f"New version less the running one on confirm users: {_signed(proof['difference'])} per decision, at least "
            f"{_signed(proof['low'])} ({proof['users']:,} users)."
        )
    if refined["standing"]:
        yield page.say(
            "Each member's own choices less the ensemble's, by user; bounds that hold at all looks together."
        )
        yield page.table(("member", "difference", "95 % bounds", "users"), _standings(refined["standing"]), numbers=3)


def _standings(rows: list[Facts]) -> Iterator[tuple[str, str, str, str]]:
    for row in rows:
        name = f"{row['member']} (retired)" if row["retired"] else str(row["member"])
        low, high = ("–" if bound is None else _signed(bound) for bound in (row["low"], row["high"]))
        yield name, _signed(row["difference"]), f"{low} to {high}", f"{row['users']:,}"


def _recovery(rehearsal: Facts) -> Iterator[str]:
    seeds = rehearsal["seeds"]
    many = f"mean over {seeds} seeds, with 95 % intervals" if seeds > 1 else "one seed, hence no intervals"
    yield page.say(
        "The same traffic twice: one service may replace its version, the other learns and is otherwise left alone. "
        f"Reward expected of what was chosen, {many}; the black line is the change, dotted ones are new versions "
        "(first seed)."
    )
    yield plots.recovery(rehearsal)
    yield page.table(("per 1,000 decisions, or decisions", "mean", "95 % interval", "seeds"), _figures(rehearsal), 3)
    yield "<h2>Weights over time</h2>"
    yield plots.recovery_weights(rehearsal)


def _figures(rehearsal: Facts) -> Iterator[tuple[str, str, str, str]]:
    for name, found in rehearsal["figures"].items():
        mean, (low, high) = found["mean"], found["interval"]
        shown = "never" if mean is None else f"{mean:,.0f}"
        bounds = "" if low is None else f"{low:,.0f} to {high:,.0f}"
        yield name, shown, bounds, f"{found['of']} of {rehearsal['seeds']}"


def _at(second: float) -> str:
    return escape(f"{datetime.fromtimestamp(second, UTC):%Y-%m-%d %H:%M}")


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
