"""A sweep's best trials as a table for people, on stderr."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH = 160
"""Columns where no terminal says how many it has, as in a job's log."""


def show(figures: dict[str, Any]) -> None:
    """The settings as configured, the best trials beneath, and where the rest is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        console = Console(stderr=True, width=WIDTH)
    rows = figures["rows"]
    paths = list(rows[0]["settings"]) if rows else []
    scored = "in a world" if figures["by"] == "world" else "by replay"
    table = Table(title=f"Sweep {escape(figures['name'])}: reward per 1,000 decisions, {scored}")
    for name in ("trial", "reward", "95 % interval", "less configured", "interval over all trials"):
        table.add_column(name, justify="right")
    for path in paths:
        section, _, name = path.rpartition(".")
        table.add_column(
            f"{section}.\n{name.replace('_', chr(10) + '_', 1) if len(name) > 12 else name}", justify="right"
        )
    table.add_row(*_cells(figures["configured"], paths), end_section=True)
    for row in rows:
        table.add_row(*_cells(row, paths), style="bold" if row["trial"] == figures["best"]["trial"] else "")
    console.print(table)
    console.print(_verdict(figures), highlight=False, soft_wrap=True)
    console.print(f"table, plot and settings: {escape(figures['folder'])}", highlight=False, soft_wrap=True)


def _cells(row: dict[str, Any], paths: list[str]) -> list[str]:
    number = row["state"] if row["trial"] is None else str(row["trial"])
    settings = [escape(_value(row["settings"].get(path))) for path in paths]
    if row["state"] == "failed":
        return [number, "failed", escape(row["error"]), "", "", *settings]
    reward = f"{1_000 * row['value']:.1f}" + " (stopped)" * (row["state"] == "stopped")
    interval = f"{1_000 * row['low']:.1f} to {1_000 * row['high']:.1f}"
    if row["trial"] is None:
        return [number, reward, interval, "", "", *settings]
    bounds = f"{1_000 * row['difference_low']:+.1f} to {1_000 * row['difference_high']:+.1f}"
    return [number, reward, interval, f"{1_000 * row['difference']:+.1f}", bounds, *settings]


def _value(value: Any) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _verdict(figures: dict[str, Any]) -> str:
    best = figures["best"]
    if best["trial"] is None:
        return "no trial earned more than the settings as configured"
    proof = (
        "more than luck can be among so many"
        if figures["better"]
        else "not more than the luck of the best of so many can be"
    )
    return f"trial {best['trial']} is the best, {1_000 * best['difference']:+.1f} per 1,000: {proof}"
