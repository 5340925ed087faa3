"""What the commands share: their common options, where progress goes, one way to print a result."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

stderr = Console(stderr=True)

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON line on stdout.")]


def show(values: dict[str, Any], machine: bool, text: str) -> None:
    """One JSON line for machines, a text for people."""
    print(json.dumps(values) if machine else text)
