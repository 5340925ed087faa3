"""`medley`: parses, calls, prints. Heavy imports come after parsing."""

import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from cluster import config
from cluster.config import Settings
from cluster.errors import MedleyError

app = typer.Typer(
    help="Personalisation that composes its own models, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
clients = typer.Typer(help="Tenants.", no_args_is_help=True)
keys = typer.Typer(help="API keys: a client's, or an operator's.", no_args_is_help=True)
app.add_typer(clients, name="client")
app.add_typer(keys, name="key")

stderr = Console(stderr=True)

Config = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Json = Annotated[bool, typer.Option("--json", help="End with one JSON line on stdout.")]
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
    _print(result, json_line, f"published version {result.get('version')}")


@app.command()
def tune(
    data: Annotated[Path, typer.Option("--data", help="An import's folder, or its name under home/data.")],
    space: Annotated[Path | None, typer.Option("--space", help="YAML of settings and their values or ranges.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="path=values, such as law.delta=0.05,0.1 or law.delta=uniform(0, 0.3); may repeat."),
    ] = None,
    search: Annotated[str, typer.Option("--search", help="grid, random or optuna.")] = "random",
    asha: Annotated[bool, typer.Option("--asha", help="Stop trials early that fall behind.")] = False,
    trials: Annotated[int | None, typer.Option("--trials", help="Number of trials; of a grid the most.")] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="What scores a trial: world or replay; default what suits the data.")
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
    _print(result, json_line, f"compose with what was found: medley compose --config {result.get('config')}")


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
    job: Annotated[str, typer.Argument(help="compose, sweep, drive or report; all that follows goes to the job.")],
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
    _print({"ended": ended}, json_line, "ended " + ", ".join(ended) if ended else "nothing was running")


@app.command(name="config")
def config_(json_line: Json = False, configuration: Config = None) -> None:
    """Print every setting with its value, unit and description, as YAML."""
    from cluster.config_text import as_values, as_yaml

    settings = config.load(configuration)
    print(json.dumps(as_values(settings)) if json_line else as_yaml(settings), end="\n" if json_line else "")


@clients.command(name="add")
def client_add(client_id: str, json_line: Json = False, configuration: Config = None) -> None:
    """Add a client; adding it again changes nothing."""
    with _keys(config.load(configuration)) as found:
        new = found.create_client(client_id)
    _print({"client_id": client_id, "new": new}, json_line, "added" if new else "was there already")


@clients.command(name="list")
def client_list(json_line: Json = False, configuration: Config = None) -> None:
    """The clients."""
    with _keys(config.load(configuration)) as found:
        names = found.clients()
    _print({"clients": names}, json_line, "\n".join(names) or "no client; `medley client add NAME`")


@keys.command(name="create")
def key_create(
    client_id: Annotated[str | None, typer.Argument(help="Whose key.")] = None,
    operator: Annotated[bool, typer.Option("--operator", help="An operator's key.")] = False,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Create a key and print it, once."""
    if (client_id is None) != operator:
        raise typer.BadParameter("name a client, or say --operator")
    with _keys(config.load(configuration)) as found:
        plain = found.create_key(client_id)
    _print({"client_id": client_id, "key": plain}, json_line, plain)


@keys.command(name="list")
def key_list(json_line: Json = False, configuration: Config = None) -> None:
    """The keys, without their secrets."""
    with _keys(config.load(configuration)) as found:
        rows = [
            {
                "key_id": key.key_id,
                "client_id": key.client_id,
                "created_at": key.created_at.isoformat(timespec="seconds"),
                "ends_at": key.ends_at.isoformat(timespec="seconds") if key.ends_at else None,
            }
            for key in found.all()
        ]
    lines = [f"{row['key_id']}  {row['client_id'] or '(operator)'}  {row['ends_at'] or ''}" for row in rows]
    _print({"keys": rows}, json_line, "\n".join(lines) or "no key; `medley key create CLIENT`")


@keys.command(name="rotate")
def key_rotate(
    key_id: str,
    grace: Annotated[float, typer.Option("--grace", help="Seconds that the old key still works.")] = 0.0,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Replace a key by a new one of the same holder and print it, once."""
    with _keys(config.load(configuration)) as found:
        plain = found.rotate(_key_id(key_id), grace)
    _print({"key": plain}, json_line, plain)


@keys.command(name="revoke")
def key_revoke(
    key_id: str,
    grace: Annotated[float, typer.Option("--grace", help="Seconds that it still works.")] = 0.0,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """End a key."""
    with _keys(config.load(configuration)) as found:
        found.revoke(_key_id(key_id), grace)
    _print({"revoked": _key_id(key_id)}, json_line, "revoked")


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


def _keys(settings: Settings) -> Any:
    from cluster.keys import opened
    from cluster.place import check_home

    check_home(settings.home)
    return opened(settings)


def _key_id(text: str) -> str:
    """The id, also where the whole key was pasted."""
    return text.split("_")[1] if text.startswith("medley_") and text.count("_") >= 2 else text


def _print(values: dict[str, Any], machine: bool, text: str) -> None:
    print(json.dumps(values) if machine else text)


if __name__ == "__main__":
    main()
