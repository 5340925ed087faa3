"""Records for a journal, and what it makes of them."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.config import RewardKind
from cluster.journal.journal import (
    DecisionRecord,
    Journal,
    OutcomeRow,
    Reader,
    RewardRecord,
)

WAIT_S = 20.0


class Clock:
    """Server time that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def decision(
    name: str, client: str = "c", slots: int = 1, request_id: str | None = None, request: str = "{}"
) -> DecisionRecord:
    return DecisionRecord(name, client, "u", request_id, 1, 1, slots, request, f'{{"id":"{name}"}}', b"evidence")


def reward(
    name: str, value: float = 1.0, reward_id: str = "r", slot: int = 0, kind: str = "reward", client: str = "c"
) -> RewardRecord:
    return RewardRecord(client, name, slot, kind, value, reward_id)


def opened(where: Path | str, clock: Callable[[], float], **kinds: RewardKind) -> Journal:
    return Journal(str(where), kinds or {"reward": RewardKind(window_s=10)}, clock, close_every_s=0.01)


def outcomes(url: str, number: int, kind: str = "reward") -> list[OutcomeRow]:
    """Wait until there are `number` outcomes, then a little more for those that must not come."""
    reader, deadline = Reader(url), time.monotonic() + WAIT_S
    while len(reader.outcomes(0, 10_000, kind)) < number and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    found = reader.outcomes(0, 10_000, kind)
    reader.close()
    return found


def place(request: pytest.FixtureRequest, folder: Path) -> str:
    """Of a fixture for "sqlite" and "postgres": a file in the folder, or a server."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return str(folder / "journal.db")
