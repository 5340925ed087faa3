"""Clients that decide and reward without pause, keep what was acknowledged, and ask again once where it was not."""

import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

RETRY_S = 1.0


@dataclass(frozen=True)
class Failure:
    """An answer other than 200, or none (status 0), at `at` (seconds of the monotone clock)."""

    at: float
    path: str
    status: int
    text: str


@dataclass
class Load:
    """What the clients saw. `decided` is by request_id, `rewarded` by reward_id: (decision_id, value, on time)."""

    decided: dict[str, dict[str, Any]] = field(default_factory=dict)
    rewarded: dict[str, tuple[str, float, bool]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    lost: list[Failure] = field(default_factory=list)
    """Calls that failed a second time, `RETRY_S` after the first."""
    longest_ms: float = 0.0
    stopping: threading.Event = field(default_factory=threading.Event)
    broken: list[BaseException] = field(default_factory=list)

    def wait(self, more: int, timeout_s: float = 60.0) -> None:
        """Until so many more decisions were acknowledged."""
        wanted, deadline = len(self.decided) + more, time.monotonic() + timeout_s
        while len(self.decided) < wanted and not self.broken:
            assert time.monotonic() < deadline, f"{len(self.decided)} decisions of {wanted}: {self.failures[-3:]}"
            time.sleep(0.02)


@contextmanager
def load(
    url: str, key: str, name: str = "load", clients: int = 6, pause_s: float = 0.01, together: int = 1
) -> Iterator[Load]:
    """`clients` threads, each with a connection of its own, until the block ends; what breaks there is raised here.

    `name` begins their request and reward ids; a call asks for `together` decisions.
    """
    seen = Load()
    names = [f"{name}-{n}" for n in range(clients)]
    threads = [threading.Thread(target=_client, args=(seen, url, key, each, pause_s, together)) for each in names]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        seen.stopping.set()
        for thread in threads:
            thread.join()
    if seen.broken:
        raise seen.broken[0]


def _client(seen: Load, url: str, key: str, name: str, pause_s: float, together: int) -> None:
    caller, chance = _Caller(seen, url, key), random.Random(name)
    try:
        for n in itertools.count():
            if seen.stopping.is_set():
                return
            _visit(seen, caller, chance, [f"{name}-{n}-{part}" for part in range(together)])
            time.sleep(pause_s)
    except BaseException as error:
        seen.broken.append(error)


def _visit(seen: Load, caller: "_Caller", chance: random.Random, names: list[str]) -> None:
    """Decisions of two slots in one call, and for half of them a reward for the first slot."""
    answer = caller.call("/v1/decisions", {"requests": [_request(chance, name) for name in names]})
    if answer is None:
        return
    for name, decision in zip(names, answer["decisions"], strict=True):
        seen.decided[name] = decision
        if chance.random() < 0.5:
            _reward(seen, caller, name, decision["decision_id"])


def _request(chance: random.Random, name: str) -> dict[str, Any]:
    user, device = f"u{chance.randrange(5)}", chance.choice(["mobile", "desktop"])
    return {"user_id": user, "context": {"device": device, "hour": 3}, "slots": 2, "request_id": name}


def _reward(seen: Load, caller: "_Caller", name: str, decision_id: str) -> None:
    reward = {"decision_id": decision_id, "slot": 0, "value": 1.0, "reward_id": name}
    answer = caller.call("/v1/rewards", {"rewards": [reward]})
    if answer is not None:
        assert answer["accepted"] + answer["duplicates"] + len(answer["rejected"]) == 1
        seen.rewarded[name] = (decision_id, 1.0, not answer["rejected"])


class _Caller:
    """One kept connection."""

    def __init__(self, seen: Load, url: str, key: str) -> None:
        self._seen = seen
        self._place = urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._connection = http.client.HTTPConnection(self._place, timeout=30)

    def call(self, path: str, body: dict[str, Any]) -> Any:
        """The answer, None where it was not 200 twice."""
        first = self._try(path, body)
        if not isinstance(first, Failure):
            return first
        self._seen.failures.append(first)
        time.sleep(RETRY_S)
        second = self._try(path, body)
        if not isinstance(second, Failure):
            return second
        self._seen.lost.append(second)
        return None

    def _try(self, path: str, body: dict[str, Any]) -> Any:
        at = time.monotonic()
        try:
            self._connection.request("POST", path, json.dumps(body), self._headers)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return Failure(at, path, 0, repr(error))
        self._seen.longest_ms = max(self._seen.longest_ms, 1_000 * (time.monotonic() - at))
        return json.loads(text) if answer.status == 200 else Failure(at, path, answer.status, text)
