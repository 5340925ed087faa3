"""The API keys of a run: made for the clients in its data, kept in its folder, revoked when it ends."""

import contextlib
import json
from pathlib import Path

import pyarrow.compute as pc
from rich.console import Console

from cluster.config import Settings
from cluster.errors import DatabaseError
from cluster.keys import opened
from cluster.place import write_private
from cluster.records import Dataset

FILE = "keys.json"


def create(folder: Path, data: Path, settings: Settings) -> dict[str, str]:
    """A client for each tenant in the data and a new key for each: {client_id: key}, also in the run's folder."""
    clients = sorted(pc.unique(Dataset.load(data).events["client_id"]).to_pylist())
    with opened(settings) as keys:
        for client in clients:
            keys.create_client(client)
        made = {client: keys.create_key(client) for client in clients}
    write_private(folder / FILE, json.dumps(made))
    return made


def revoke(folder: Path, settings: Settings) -> None:
    """Revoke the keys of a run, if it came to have any."""
    path = folder / FILE
    if not path.exists():
        return
    with opened(settings) as keys:
        for plain in json.loads(path.read_text()).values():
            keys.revoke(plain.split("_")[1])
    path.unlink()


def revoke_abandoned(settings: Settings, console: Console) -> None:
    """The keys of runs that were killed still open the API: end them."""
    for path in sorted((settings.home / "runs").glob(f"*/{FILE}")):
        with contextlib.suppress(DatabaseError, ValueError):  # another database, or a file cut short
            revoke(path.parent, settings)
        path.unlink(missing_ok=True)
        console.print(f"run {path.parent.name} was cut short; starting clean", highlight=False)
