"""`medley schedule`: the recurring jobs, as the section `schedule` of the settings has them."""

from pathlib import Path
from typing import Annotated

import typer

from cluster import config
from cluster.options import Config, Json, show, stderr

schedules = typer.Typer(help="Recurring jobs.", no_args_is_help=True)


@schedules.command(name="list")
def schedule_list(json_line: Json = False, configuration: Config = None) -> None:
    """The recurring jobs: when each ran, how it ended, when it is due."""
    from cluster.output import show_schedules
    from cluster.scheduling import listed

    show_schedules(listed(config.load(configuration)), machine=json_line)


@schedules.command(name="run")
def schedule_run(
    name: Annotated[str | None, typer.Argument(help="Run this one now; without a name, keep running all.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Start a job now, or (without a name) run the scheduler here, for a cluster that `medley serve` does not hold."""
    from cluster import scheduling

    settings = config.load(configuration)
    if name is None:
        scheduling.keep_running(settings, stderr)
        return
    scheduling.steer(settings, name, wanted=True)
    show({"name": name, "wanted": True}, json_line, f"{name} starts as soon as a scheduler sees it")


@schedules.command(name="pause")
def schedule_pause(name: str, json_line: Json = False, configuration: Config = None) -> None:
    """Start it no more until `resume`; a run that has begun goes on."""
    _steer(name, True, json_line, configuration)


@schedules.command(name="resume")
def schedule_resume(name: str, json_line: Json = False, configuration: Config = None) -> None:
    """Undo `pause`."""
    _steer(name, False, json_line, configuration)


def _steer(name: str, paused: bool, json_line: bool, configuration: Path | None) -> None:
    from cluster import scheduling

    scheduling.steer(config.load(configuration), name, paused=paused)
    show({"name": name, "paused": paused}, json_line, f"{name} is {'paused' if paused else 'on again'}")
