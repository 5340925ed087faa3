"""`medley client` and `medley key`: tenants and their API keys."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cluster import config
from cluster.config import ClientMode, Settings
from cluster.options import Config, Json, show

clients = typer.Typer(help="Tenants.", no_args_is_help=True)
keys = typer.Typer(help="API keys: a client's, or an operator's.", no_args_is_help=True)


@clients.command(name="add")
def client_add(client_id: str, json_line: Json = False, configuration: Config = None) -> None:
    """Add a client; adding it again changes nothing."""
    with _keys(config.load(configuration)) as found:
        new = found.create_client(client_id)
    show({"client_id": client_id, "new": new}, json_line, "added" if new else "was there already")


@clients.command(name="list")
def client_list(json_line: Json = False, configuration: Config = None) -> None:
    """The clients: who answers them, their version, and how far an apprentice agrees."""
    from cluster.journal.journal import journal_url
    from cluster.tenants import tenants

    settings = config.load(configuration)
    with _keys(settings) as found:
        rows = tenants(found, journal_url(settings))
    lines = [
        f"{row['client_id']}  {row['mode']}  {row['version'] or 'newest version'}{_agreement(row)}" for row in rows
    ]
    show({"clients": rows}, json_line, "\n".join(lines) or "no client; `medley client add NAME`")


@clients.command(name="mode")
def client_mode(client_id: str, mode: ClientMode, json_line: Json = False, configuration: Config = None) -> None:
    """Say who answers a client's calls: the models, or the caller's own choice with the models beside it or not."""
    with _keys(config.load(configuration)) as found:
        found.set_mode(client_id, mode)
    show({"client_id": client_id, "mode": mode}, json_line, f"{mode}, once serving has reloaded its keys")


@clients.command(name="version")
def client_version(
    client_id: str,
    version: Annotated[str, typer.Argument(help="A version's number, or latest.")],
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Hold a client at a version, or let it follow the newest. Where it cannot be loaded the newest decides."""
    if version != "latest" and not (version.isdecimal() and int(version) > 0):
        raise typer.BadParameter(f"{version!r} is neither a version's number nor latest")
    number = None if version == "latest" else int(version)
    with _keys(config.load(configuration)) as found:
        found.set_version(client_id, number)
    text = "newest version" if number is None else f"version {number}"
    show({"client_id": client_id, "version": number}, json_line, f"{text}, once serving has looked for versions")


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
    show({"client_id": client_id, "key": plain}, json_line, plain)


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
                "limits": asdict(key.limits),
            }
            for key in found.all()
        ]
    lines = [f"{row['key_id']}  {row['client_id'] or '(operator)'}  {row['ends_at'] or ''}{_own(row)}" for row in rows]
    show({"keys": rows}, json_line, "\n".join(lines) or "no key; `medley key create CLIENT`")


@keys.command(name="limit")
def key_limit(
    key_id: str,
    rate: Annotated[float | None, typer.Option("--rate", help="Requests inside calls, per second and replica.")] = None,
    burst: Annotated[int | None, typer.Option("--burst", help="Requests at once; default a second of --rate.")] = None,
    body: Annotated[int | None, typer.Option("--body", help="Bytes of one call's body at most.")] = None,
    json_line: Json = False,
    configuration: Config = None,
) -> None:
    """Give a key limits of its own; one that is not named here is what the settings say."""
    from cluster.keys import Limits

    limits = Limits(rate, burst, body)
    with _keys(config.load(configuration)) as found:
        found.limit(_key_id(key_id), limits)
    facts = {"key_id": _key_id(key_id), "limits": asdict(limits)}
    show(facts, json_line, f"limited{_own(facts) or ' as the settings say'}, once serving has reloaded its keys")


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
    show({"key": plain}, json_line, plain)


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
    show({"revoked": _key_id(key_id)}, json_line, "revoked")


def _agreement(row: dict[str, Any]) -> str:
    found = row["agreement"]
    return f"  agrees in {found['agreed']:.1%} of {found['compared']:,} decisions" if found else ""


def _keys(settings: Settings) -> Any:
    from cluster.keys import opened
    from cluster.place import check_home

    check_home(settings.home)
    return opened(settings)


def _own(row: dict[str, Any]) -> str:
    """The limits that a key has of its own, to stand behind its line."""
    return "".join(f"  {name}={value:g}" for name, value in row["limits"].items() if value is not None)


def _key_id(text: str) -> str:
    """The id, also where the whole key was pasted."""
    return text.split("_")[1] if text.startswith("medley_") and text.count("_") >= 2 else text
