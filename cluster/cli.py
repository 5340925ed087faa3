"""`medley`: parses, calls, prints. Heavy imports come after parsing."""

import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from cluster import config
from cluster.cli_keys import clients, keys
from cluster.cli_providers import providers
from cluster.cli_schedule import schedules
from cluster.errors import MedleyError
from cluster.options import Config, Json, show, stderr

app = typer.Typer(
    help="Personalisation that composes its own models, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(clients, name="client")
app.add_typer(keys, name="key")
app.add_typer(providers, name="providers")
app.add_typer(schedules, name="schedule")

Format = Annotated[str, typer.Option("--format", help="native, open-bandit, table, transactions or marketplace.")]
Data = Annotated[list[Path] | None, typer.Option("--data", help="File or folder to import; may repeat.")]
Map = Annotated[list[str] | None, typer.Option("--map", help="ours=theirs, such as reward=Y; may repeat.")]
Exclude = Annotated[list[str] | None, typer.Option("--exclude", help="Column to leave out; may repeat.")]
ClientColumn = Annotated[str | None, typer.Option("--client", help="Column that names the tenant.")]


@app.command()
def run(
    format: Format = "marketplace",
    data: Data = None,
    map: Map = None,
    exclude: Exclude = None,
    client: ClientColumn = None,
    once: Annotated[bool, typer.Option("--once", help="Exit at the end instead of serving on.")] = False,
    reuse_version: Annotated[
        bool, typer.Option("--reuse-version", help="Serve what an earlier run composed from the same data.")
    ] = False,
    report: Annotated[Path, typer.Option("--report", help="Where the report goes.")] = Path("report.html"),
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Import, compose, serve, drive traffic, report: the whole idea in one command."""
    from cluster.output import show_run
    from cluster.run import Plan, Run

    request = _request(format, data, map, exclude, client, None)
    plan = Plan(request, once, reuse_version, report.absolute())
    Run(plan, config.load(configuration), stderr).execute(lambda *facts: show_run(*facts, machine=json_line))


@app.command(name="import")
def import_(
    format: Format = "marketplace",
    data: Data = None,
    map: Map = None,
    exclude: Exclude = None,
    client: ClientColumn = None,
    name: Annotated[str | None, typer.Option("--name", help="Folder under home/data.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only say what would be read and refused.")] = False,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Read a log into MEDLEY_HOME/data; bad rows go to quarantine.parquet with their reasons."""
    from cluster import imports, place
    from cluster.output import show_import
    from cluster.progress import bar

    settings = config.load(configuration)
    request = _request(format, data, map, exclude, client, name)
    request.check()
    with bar(stderr, f"import {format}") as progress:
        imported = imports.read(request, settings, progress)
    folder = None
    if not check:
        place.check_home(settings.home)
        folder = imports.save(request, settings, imported)
    show_import(imports.summary(imported), folder, machine=json_line)


@app.command()
def compose(
    data: Annotated[Path, typer.Option("--data", help="An import's folder, or its name under home/data.")],
    run_folder: Annotated[Path | None, typer.Option("--run", help="Folder for what the job writes.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Generate, simulate, select, blend and publish a version, on a Ray started here or joined."""
    from cluster.parts import compose as compose_version

    settings = config.load(configuration)
    result = compose_version(settings, data, run_folder, stderr)
    show(result, json_line, f"published version {result.get('version')}")


@app.command()
def tune(
    data: Annotated[Path, typer.Option("--data", help="An import's folder, or its name under home/data.")],
    space: Annotated[Path | None, typer.Option("--space", help="YAML of settings and their values or ranges.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="path=values, such as law.delta=0.05,0.1 or law.delta=uniform(0, 0.3); may repeat."),
    ] = None,
    search: Annotated[
        Literal["grid", "random", "optuna"], typer.Option("--search", help="How it is searched.")
    ] = "random",
    asha: Annotated[bool, typer.Option("--asha", help="Stop trials early that fall behind.")] = False,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Number of trials; of a grid the most.")] = None,
    by: Annotated[
        Literal["world", "replay"] | None,
        typer.Option("--by", help="What scores a trial; default what suits the data."),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Folder under home/sweeps; the same one goes on.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Search settings that would have served this data better; the same command again resumes what was cut short."""
    from cluster.parts import tune as tune_settings

    given = {"space": space and space.absolute(), "search": search, "trials": trials, "by": by, "name": name}
    words = [f"--{key}={value}" for key, value in given.items() if value is not None]
    words += [f"--set={assignment}" for assignment in set_ or ()] + ["--asha"] * asha
    result = tune_settings(config.load(configuration), data, words, stderr)
    show(result, json_line, f"compose with what was found: medley compose --config {result.get('config')}")


@app.command(name="what-if")
def what_if(
    policy: Annotated[
        list[str],
        typer.Option("--policy", help="uniform, popularity, item:ID, version:N, greedy:N, module:Class; may repeat."),
    ],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="An import's folder, or its name, or files; may repeat.")
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", help="How to read files, as `medley import`; default native.")
    ] = None,
    map: Map = None,
    exclude: Exclude = None,
    client: ClientColumn = None,
    part: Annotated[str, typer.Option("--part", help="Rows that are judged: all, confirm or world.")] = "all",
    estimator: Annotated[
        list[str] | None,
        typer.Option(
            "--estimator",
            help="ips, clipped_ips, snips, dm, dr, switch_dr, dros or cressie_read; default dr and snips, or dm.",
        ),
    ] = None,
    interval: Annotated[
        str, typer.Option("--interval", help="bootstrap, bernstein or sequence (may be looked at any time).")
    ] = "bootstrap",
    alpha: Annotated[float, typer.Option("--alpha", help="Error rate of an interval.")] = 0.05,
    learn: Annotated[bool, typer.Option("--learn", help="Policies that can learn do so along the log.")] = False,
    group_by: Annotated[
        str | None, typer.Option("--group-by", help="A column of events, or a key of the context.")
    ] = None,
    plot: Annotated[Path, typer.Option("--plot", help="Where the plot goes: .png, .svg or .pdf.")] = Path(
        "what_if.png"
    ),
    table: Annotated[Path | None, typer.Option("--table", help="Parquet file of the table.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """What policies would have earned on a log: values with intervals, and what they rest on."""
    from cluster.parts import program

    repeated = {"policy": policy, "data": data, "map": map, "exclude": exclude, "estimator": estimator}
    once = {"format": format, "client": client, "part": part, "interval": interval, "alpha": alpha, "plot": plot}
    once |= {"group-by": group_by, "table": table, "config": configuration}
    words = [f"--{name}={value}" for name, values in repeated.items() for value in values or ()]
    words += [f"--{name}={value}" for name, value in once.items() if value is not None]
    words += ["--learn"] * learn + ["--json"] * json_line
    raise typer.Exit(program("tune.what_if", words, config.load(configuration)))


@app.command()
def export(
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder of Parquet files; a later run adds what is new.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="Data set under home/data, for `medley compose`.")] = None,
    client: Annotated[str | None, typer.Option("--client", help="Only this client's decisions.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", help="Only decisions from this day or moment on, UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Only decisions before this day or moment, UTC.")] = None,
    configuration: Config = None,
) -> None:
    """Final rewards with their decisions, from the journal to Parquet; ends with one JSON line."""
    from cluster.parts import program

    given = {"to": to and to.absolute(), "name": name, "client": client, "since": since, "until": until}
    given["config"] = configuration and configuration.absolute()
    words = [f"--{key}={value}" for key, value in given.items() if value is not None]
    raise typer.Exit(program("cluster.export", words, config.load(configuration)))


@app.command()
def serve(configuration: Config = None) -> None:
    """Serve the latest version until Ctrl-C, picking up new ones as they are published."""
    from cluster.parts import serve as serve_versions

    serve_versions(config.load(configuration), stderr)


@app.command(
    context_settings={
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
def submit(
    context: typer.Context,
    job: Annotated[
        str, typer.Argument(help="compose, refine, sweep, export, ... (cluster.jobs); what follows goes to it.")
    ],
    address: Annotated[str | None, typer.Option("--address", help="Job server, http://host:8265.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the log to the end.")] = True,
    configuration: Config = None,
) -> None:
    """Start a job on a Ray cluster, follow its log, exit with its code."""
    from cluster.jobs import Jobs

    jobs = Jobs(config.load(configuration), address)
    job_id = jobs.submit(job, context.args)
    stderr.print(f"job {job_id}", highlight=False)
    if not wait:
        print(job_id)
        return
    try:
        raise typer.Exit(jobs.follow(job_id, lambda text: print(text, end="", flush=True)))
    except KeyboardInterrupt:
        stderr.print(f"the job goes on; end it with `medley stop --job {job_id}`", highlight=False)
        raise typer.Exit(130) from None


@app.command()
def replay(decision_id: str, json_line: Json = False, configuration: Config = None) -> None:
    """Make a decision again from what was logged of it, and compare; exit code 1 where they differ."""
    from cluster.parts import program

    words = [decision_id, *(["--json"] if json_line else [])]
    words += ["--config", str(configuration.absolute())] if configuration else []
    raise typer.Exit(program("serve.replay", words, config.load(configuration)))


@app.command()
def explain(
    candidate: Annotated[str | None, typer.Argument(help="Such as p3z1; without one, a list of them.")] = None,
    version: Annotated[int | None, typer.Option("--version", help="Number of the version; default the newest.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Features and items to show.")] = 10,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """What the generator changed for whom: weights and items that moved most against the pooled model."""
    from cluster.parts import program

    given = {"version": version, "top": top, "config": configuration and configuration.absolute()}
    words = [] if candidate is None else [candidate]
    words += [f"--{key}={value}" for key, value in given.items() if value is not None] + ["--json"] * json_line
    raise typer.Exit(program("tune.explain", words, config.load(configuration)))


@app.command()
def status(json_line: Json = False, configuration: Config = None) -> None:
    """What runs, which versions are published, which clients there are."""
    from cluster.output import show_status
    from cluster.status import gather

    show_status(gather(config.load(configuration)), machine=json_line)


@app.command()
def stop(
    job: Annotated[str | None, typer.Option("--job", help="End this Ray job instead.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Job server of --job.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """End exactly what Medley started on this home, and nothing else."""
    settings = config.load(configuration)
    if job is not None:
        from cluster.jobs import Jobs

        ended = [f"job {job}: {Jobs(settings, address).stop(job)}"]
    else:
        from cluster import running

        with stderr.status("stopping"):
            ended = running.stop(settings.home)
    show({"ended": ended}, json_line, "ended " + ", ".join(ended) if ended else "nothing was running")


@app.command(name="config")
def config_(json_line: Json = False, configuration: Config = None) -> None:
    """Print every setting with its value, unit and description, as YAML."""
    from cluster.config_text import as_values, as_yaml

    settings = config.load(configuration)
    print(json.dumps(as_values(settings)) if json_line else as_yaml(settings), end="\n" if json_line else "")


def main(arguments: Sequence[str] | None = None) -> None:
    """The console command: one line on stderr and exit code 1 for every error that Medley raises on purpose."""
    try:
        app(args=arguments)
    except MedleyError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror}; free some room, or set MEDLEY_HOME to a folder that can be written")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> None:
    line = " ".join(message.split("\n"))
    stderr.print(Text.assemble(("error: ", "red"), line), soft_wrap=True)
    sys.exit(1)


def _request(
    format: str,
    data: list[Path] | None,
    maps: list[str] | None,
    exclude: list[str] | None,
    client: str | None,
    name: str | None,
) -> Any:
    from cluster.importers.imported import Options
    from cluster.imports import Request

    paths = tuple(path.absolute() for path in data or ())
    return Request(format, paths, Options.parse(maps or (), exclude or (), client), name)


if __name__ == "__main__":
    main()
