"""Journals with decisions of real versions, and the learners that read them."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from actors.bandits.version import Version
from cluster.config import RewardKind
from cluster.journal.journal import Journal, Reader, RewardRecord
from cluster.registry import VersionGone
from serve.decide import Engine
from serve.decisions.current import load
from serve.learner import Learner
from serve.learning.ledger import Ledger
from serve.messages import DecisionRequest
from tests import serving

WAIT_S = 20.0


class World:
    """A journal with decisions of real versions, written as a gateway would."""

    def __init__(self, folder: Path, version: Version | None = None) -> None:
        self.folder = folder
        self.versions: dict[int, Version] = {1: version or serving.version()}
        self.now = 1_000.0
        self.url = str(folder / "journal.db")
        self.journal = Journal(self.url, {"reward": RewardKind(window_s=10)}, lambda: self.now, close_every_s=0.01)
        self.asked = 0
        self.rng = np.random.default_rng(0)

    def traffic(self, decisions: int, number: int = 1, clients: tuple[str, ...] = ("shop", "other")) -> None:
        """Decide, reward some, close the windows."""
        engine = Engine(seed=1)
        engine.install(load(number, self.versions[number]))
        before = len(self.outcomes())
        for _ in range(decisions):
            self.asked += 1
            client = clients[self.asked % len(clients)]
            device = ("mobile", "desktop")[int(self.rng.integers(2))]
            request = DecisionRequest(
                user_id=f"u{int(self.rng.integers(5))}", context={"device": device, "hour": 3}, slots=2
            )
            record = engine.decide(client, request, f"D{self.asked}")
            self.journal.decide([record]).result(WAIT_S)
            if self.rng.random() < 0.4:
                event = RewardRecord(client, record.decision_id, 0, "reward", 1.0, f"R{self.asked}")
                self.journal.reward([event]).result(WAIT_S)
        self.close_windows(before + 2 * decisions)

    def close_windows(self, outcomes: int) -> None:
        """Let every window close, and wait until the journal has this many outcomes."""
        self.now += 11
        deadline = time.monotonic() + WAIT_S
        while len(self.outcomes()) < outcomes and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(self.outcomes()) == outcomes

    def outcomes(self) -> list[Any]:
        reader = Reader(self.url)
        rows = reader.outcomes(0, 100_000, "reward")
        reader.close()
        return rows

    def learner(self, ledger: str = "learner.db") -> Learner:
        return Learner(self.load, Reader(self.url), Ledger(str(self.folder / ledger)), "reward", lambda: self.now)

    def load(self, number: int) -> Version:
        if number not in self.versions:
            raise VersionGone(f"no version {number}")
        return self.versions[number]


@contextlib.contextmanager
def world_at(folder: Path) -> Iterator[World]:
    made = World(folder)
    yield made
    made.journal.close()


def all_of(learner: Learner, limit: int = 1_000) -> None:
    while learner.advance(limit):
        continue


def bits(learner: Learner, client: str, version: int) -> dict[str, bytes]:
    """Everything that a learner of a version knows."""
    state = learner.state(client, version)
    out = {"performance": state.performance.sums_5M.tobytes(), "count": state.count.to_bytes(8)}
    for name, statistics in state.statistics.items():
        out[f"precision/{name}"] = statistics.data_precision_ADD.tobytes()
        out[f"shift/{name}"] = statistics.data_shift_AD.tobytes()
    for user, past in state.histories.items():
        out[f"user/{user}"] = past.phi_ND.tobytes() + past.arm_N.tobytes() + past.reward_N.tobytes()
    return out
