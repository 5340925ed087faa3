"""A curl line that works when pasted: a real situation of the data, asked here first."""

import json
import shlex
from pathlib import Path

import httpx

from cluster.errors import ClusterError
from cluster.records import Dataset, decode

CONTEXT_KEYS = 8
ITEMS = 10


def curl_line(data: Path, keys: dict[str, str], url: str) -> str:
    """The line for the first event's client.

    Raises:
        ClusterError: the server does not answer it.
    """
    event = Dataset.load(data).events.slice(0, 1).to_pylist()[0]
    request = {
        "user_id": event["user_id"],
        "context": dict(list(decode(event["context"]).items())[:CONTEXT_KEYS]),
        "items": event["candidates"][:ITEMS] if event["candidates"] else None,
    }
    body = json.dumps({"requests": [request]}, ensure_ascii=False)
    headers = {"Authorization": f"Bearer {keys[event['client_id']]}", "Content-Type": "application/json"}
    try:
        answer = httpx.post(f"{url}/v1/decisions", content=body.encode(), headers=headers, timeout=10, trust_env=False)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise ClusterError(f"{url}/v1/decisions does not answer: {error}") from error
    flags = " ".join(f"-H {shlex.quote(f'{name}: {value}')}" for name, value in headers.items())
    return f"curl -s {url}/v1/decisions {flags} -d {shlex.quote(body)}"
