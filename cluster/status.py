"""What is there: the run, the server, versions, clients. Reads only, and says of each part why it is not there."""

from typing import Any

import httpx

from cluster import running
from cluster.config import Settings
from cluster.database import url_of
from cluster.errors import MedleyError
from cluster.journal.journal import journal_url
from cluster.keys import opened
from cluster.registry import DEFAULT_NAME, Registry
from cluster.tenants import tenants


def gather(settings: Settings) -> dict[str, Any]:
    """The facts of `medley status`; a part that cannot be read is {"error": why}."""
    record = running.alive(settings.home)
    url = (record or {}).get("url") or f"http://{settings.serve.host}:{settings.serve.port}"
    return {
        "home": str(settings.home),
        "run": _run(record),
        "server": _server(url),
        "versions": _versions(settings),
        "clients": _clients(settings),
    }


def _run(record: dict[str, Any] | None) -> dict[str, Any] | None:
    if record is None:
        return None
    about = {key: record.get(key) for key in ("command", "stage", "address", "url", "run")}
    return {**about, "pid": record["process"]["pid"]}


def _server(url: str) -> dict[str, Any]:
    try:
        answer = httpx.get(f"{url}/v1/health", timeout=3, trust_env=False)
        return {"url": url, "status": answer.status_code, "health": answer.json()}
    except (httpx.HTTPError, ValueError) as error:
        return {"url": url, "error": f"does not answer: {error}"}


def _versions(settings: Settings) -> Any:
    try:
        return Registry(settings.registry_uri).versions(DEFAULT_NAME)
    except MedleyError as error:
        return {"error": str(error)}


def _clients(settings: Settings) -> Any:
    if settings.database_url is None and not (settings.home / "metadata.db").exists():
        return []
    try:
        with opened(settings) as keys:
            return tenants(keys, journal_url(settings))
    except MedleyError as error:
        return {"error": f"{error} ({url_of(settings).partition(':')[0]})"}
