"""An application on the real Ray Serve of the test run: its address, a client's key, its processes."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from cluster.config import Settings
from cluster.database import Database, url_of
from cluster.keys import Keys
from serve import deploy

WAIT_S = 60.0


@dataclass
class Served:
    settings: Settings
    about: dict[str, Any]
    key: str

    @classmethod
    def start(cls, settings: Settings) -> "Served":
        """Deploy what the registry has, with one client."""
        about = deploy.deploy(settings)
        keys = Keys(Database(url_of(settings)))
        keys.create_client("shop")
        return cls(settings, about, keys.create_key("shop"))

    @property
    def url(self) -> str:
        return str(self.about["url"])

    def call(self, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key or self.key}"}
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def decide(self, *requests: dict[str, Any]) -> tuple[int, Any]:
        return self.call("/v1/decisions", {"requests": requests})


def gateways() -> list[psutil.Process]:
    """The processes that answer HTTP."""
    return _named("ServeReplica:medley:gateway")


def learners() -> list[psutil.Process]:
    return _named("ray::LearnerProcess")


def _named(name: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if name in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue  # it ended between the look and the question
    return found


def until(check: Callable[[], Any], what: str, timeout_s: float = WAIT_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {timeout_s} s for {what}")
