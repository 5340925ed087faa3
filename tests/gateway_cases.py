"""A client's calls to a replica in this process."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cluster import config
from cluster.config import Settings
from tests import serving
from tests.serving import Running

REQUEST = {"user_id": "u1", "context": {"device": "mobile", "hour": 3}, "items": ["i1", "i2", "i3"], "slots": 2}


def shop() -> Settings:
    """Of this home, with a version and small limits."""
    settings = config.load(
        rewards={"reward": {"window_s": 60}, "stars": {"window_s": 60, "low": 1, "high": 5, "default": 1}},
        serve={"max_body_bytes": 20_000, "max_batch": 20, "max_items": 50},
    )
    serving.publish(settings, serving.version())
    return settings


def run(settings: Settings, body: Callable[[Running], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with serving.running(settings) as replica:
            return await body(replica)

    return asyncio.run(main())


def locs(answer: Any) -> list[list[Any]]:
    return [fault["loc"] for fault in answer.json()["detail"]]
