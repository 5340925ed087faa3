"""`medley providers`: which cluster each provider is in, and moves by hand."""

from pathlib import Path
from typing import Annotated

import typer

from cluster import config
from cluster.options import Config, Json, show

providers = typer.Typer(help="Providers and the clusters whose models they share.", no_args_is_help=True)
Name = Annotated[str, typer.Option("--name", help="Of the versions in the registry.")]


@providers.command(name="list")
def providers_list(json_line: Json = False, configuration: Config = None) -> None:
    """The cluster of each provider, as `tune.regroup` last left it."""
    from dataclasses import asdict

    from cluster.place import check_home
    from cluster.providers import opened

    settings = config.load(configuration)
    check_home(settings.home)
    with opened(settings) as found:
        rows = [asdict(row) for row in found.placed()]
    lines = [f"{row['name']}  {row['cluster']}  {row['provider']}" for row in rows]
    show({"providers": rows}, json_line, "\n".join(lines) or "no provider is grouped; `medley submit regroup`")


@providers.command(name="move")
def providers_move(provider: str, cluster: str, name: Name = "medley", configuration: Config = None) -> None:
    """Move a provider to another cluster; the next version that is composed has it there.

    Where a name begins with a dash, the names come last and after two: `medley providers move -- -x c2`.
    """
    _regroup([f"--move={provider}", f"--to={cluster}"], name, configuration)


@providers.command(name="undo")
def providers_undo(
    move: Annotated[int, typer.Argument(help="Number of the move: a provider's last.")],
    name: Name = "medley",
    configuration: Config = None,
) -> None:
    """Take a move back."""
    _regroup([f"--undo={move}"], name, configuration)


def _regroup(words: list[str], name: str, configuration: Path | None) -> None:
    from cluster.parts import program

    words += [f"--name={name}"] + ([f"--config={configuration.absolute()}"] if configuration else [])
    raise typer.Exit(program("tune.regroup", words, config.load(configuration)))
