"""What commands print on stdout: a table for people, or one JSON line for machines."""

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_SHOWN = {
    "uniform": "uniform",
    "popularity": "popularity",
    "pooled_linear": "pooled linear",
    "best_predefined": "best predefined",
    "ensemble": "ensemble",
}


def show_run(figures: dict[str, Any], report: Path, example: str | None, *, machine: bool) -> None:
    """Figures of `tune.drive`, where the report lies, and a curl line; as JSON the figures alone, last."""
    console = Console(stderr=machine)
    unit = "decisions" if figures.get("slots", 1) == 1 else "slots"
    table = Table("policy", f"reward per 1,000 {unit}", "95 % interval", title="What each policy earned")
    for name, figure in figures["policies"].items():
        low, high = figure["interval"]
        interval = "" if low is None else f"{low:.1f} to {high:.1f}"
        shown = _SHOWN.get(name, name)
        table.add_row(shown, f"{figure['reward_per_1000']:.1f}", interval, style=_style(name))
    console.print(table)
    console.print(
        f"{figures['decisions']:,} decisions; {figures['generated_weight']:.0%} of the weight on generated "
        f"models; {figures['seconds']:.0f} s in all; report: {report}",
        highlight=False,
        soft_wrap=True,
    )
    if "world" in figures:
        console.print(f"The world that answered is fitted on the log: {figures['world']}", highlight=False)
    if example is not None:
        console.print("Ask it yourself:", style="bold")
        console.print(example, markup=False, highlight=False, soft_wrap=True)
    if machine:
        print(json.dumps(figures), flush=True)


def show_schedules(rows: list[dict[str, Any]], *, machine: bool) -> None:
    """The recurring jobs."""
    if machine:
        print(json.dumps({"schedules": rows}))
        return
    table = Table("name", "job", "when", "state", "last started", "exit code", "next", title="Recurring jobs")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table if rows else "no recurring job; add one to the section `schedule` of the settings")


def show_import(facts: dict[str, Any], folder: Path | None, *, machine: bool) -> None:
    """How columns were read, what came of it, and what was refused."""
    if machine:
        print(json.dumps({**facts, "folder": str(folder) if folder else None}))
        return
    console = Console()
    table = Table("role", "taken from", title="Columns")
    for role, column in facts["roles"].items():
        table.add_row(str(role), str(column))
    console.print(table)
    console.print(f"{facts['events']:,} events, {facts['items']:,} items, {facts['users']:,} users")
    for reason, count in facts["rejects"].items():
        console.print(f"refused {count:,}: {reason}", markup=False, highlight=False)
    for remark in facts["remarks"]:
        console.print(remark, markup=False, highlight=False)
    console.print(f"written to {folder}" if folder else "nothing was written (--check)", highlight=False)


def show_status(facts: dict[str, Any], *, machine: bool) -> None:
    if machine:
        print(json.dumps(facts))
        return
    console, run, server = Console(), facts["run"], facts["server"]
    lines = {
        "home": facts["home"],
        "running": f"`medley {run['command']}` (pid {run['pid']}), {run['stage']}" if run else "nothing",
        "Ray": run["address"] if run else "",
        "server": f"{server['url']}: {server.get('error') or server['health']}",
        "versions": _listed(facts["versions"]),
        "clients": _listed(facts["clients"]),
    }
    for name, text in lines.items():
        console.print(f"{name:>9}  {text}", markup=False, highlight=False, soft_wrap=True)


def _listed(found: Any) -> str:
    if isinstance(found, dict):
        return str(found["error"])
    return (
        ", ".join(f"{one['client_id']} ({one['mode']})" if isinstance(one, dict) else str(one) for one in found)
        or "none"
    )


def _style(name: str) -> str:
    return "bold" if name == "ensemble" else ""
