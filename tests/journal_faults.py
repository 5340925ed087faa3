"""A writer and a learner that are killed by -9 at random moments, and a client that remembers what was acknowledged.

Plain processes, no Ray. The writer is a `Journal` that makes durable what the client sends it through a pipe, joins
rewards and closes windows; the learner saves many times a second. Both are forked from a
server that has everything imported, so that a new one is there in milliseconds. The client sends decisions and rewards
(early, in time, late and twice), and after a kill sends some of what was not acknowledged again. In the end:

- every acknowledged event is in the journal, as it was, and none is there twice;
- every slot of every decision has one outcome, in order, made of exactly the rewards that were accepted;
- a last learner, begun where the killed ones left off, has the bits of an oracle that applies each outcome once, in
  order, in a process of its own.
"""

import contextlib
import itertools
import multiprocessing
import random
import time
from collections import deque
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from actors.bandits import learn
from actors.bandits.version import Version
from cluster import config
from cluster.config import RewardKind, Settings
from cluster.journal.journal import DecisionRecord, Journal, Reader, RewardRecord, RewardStatus, journal_url
from cluster.registry import DEFAULT_NAME, Registry
from cluster.sql import Sql
from serve.decide import Engine
from serve.decisions import evidence
from serve.decisions.current import load
from serve.learner import Learner
from serve.learning import checkpoint
from serve.learning.ledger import Ledger
from serve.learning.service import ledger_url
from serve.messages import DecisionRequest
from tests import serving

KINDS = {"reward": RewardKind(window_s=0.05, reducer="sum", high=10.0)}
FLIGHT = 24
"""Events on their way at a time."""
LIFE_S = (0.005, 0.15)
"""How long a process lives, at random, once it has shown that it works."""


def settings_of(home: Path, database_url: str | None = None) -> Settings:
    return config.load(home=home, database_url=database_url)


def write(settings: Settings, client: Pipe) -> None:
    """The writer's process: (number, "decide" | "reward", record) in, (number, result) out once it is durable."""
    with Journal(journal_url(settings), KINDS, close_every_s=0.01) as journal:
        client.send("ready")
        answers: deque[tuple[int, Any]] = deque()
        while True:
            if client.poll(0.0005 if answers else None):
                number, verb, record = client.recv()
                answers.append((number, getattr(journal, verb)([record])))
            while answers and answers[0][1].done():
                number, future = answers.popleft()
                client.send((number, future.result()))


def study(settings: Settings, parent: Pipe) -> None:
    """The learner's process: learns, publishes and saves in turn, until it is asked to end."""
    registry = Registry(settings.registry_uri)
    ledger = Ledger(ledger_url(settings, 0))
    reader = Reader(journal_url(settings))
    learner = Learner(lambda n: Version.load(registry.fetch(DEFAULT_NAME, n)), reader, ledger, "reward")
    parent.send("ready")
    while not parent.poll(0.002):
        learner.advance(50)
        learner.publish()
        learner.save()
    parent.send(learner.seq)


def oracle(settings: Settings, parent: Pipe) -> None:
    """Each outcome once, in order: the bytes of what a learner must know."""
    ensemble = Version.load(Registry(settings.registry_uri).fetch(DEFAULT_NAME, 1)).ensemble.of("shop")
    state = learn.start(ensemble)
    query = (
        "SELECT d.user_key, d.evidence, o.slot, o.reward FROM journal_outcomes o "
        "JOIN journal_decisions d ON d.seq = o.decision ORDER BY o.seq"
    )
    for user, packed, slot, reward in rows(journal_url(settings), query):
        known = evidence.unpack(packed)
        learn.step(state, known.outcome(slot, user, reward, asked=True))
    ((_, epoch),) = states(settings, ensemble)
    state.epoch = epoch  # how often it published is a matter of time
    parent.send(checkpoint.dump(state))


def states(settings: Settings, ensemble: Any) -> list[tuple[bytes, int]]:
    """The checkpoints in the ledger: bytes, and the epoch that is in them."""
    found = rows(ledger_url(settings, 0), "SELECT state FROM learner_checkpoints")
    return [(state, checkpoint.load(ensemble, state).epoch) for (state,) in found]


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    sql = Sql(url)
    try:
        return sql.rows(query)
    finally:
        sql.close()


@dataclass
class Client:
    """Sends events and remembers: `decided` by request_id, `rewarded` by reward_id, both as acknowledged."""

    samples: list[DecisionRecord]
    chance: random.Random
    decided: dict[str, DecisionRecord] = field(default_factory=dict)
    rewarded: dict[str, tuple[RewardRecord, RewardStatus]] = field(default_factory=dict)
    flying: dict[int, tuple[str, Any]] = field(default_factory=dict)
    again: list[tuple[str, Any]] = field(default_factory=list)
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    def run(self, writer: Pipe, seconds: float) -> None:
        """Load a writer for a while. What it has not acknowledged then stays in `flying`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            while len(self.flying) < FLIGHT:
                number = next(self.numbers)
                self.flying[number] = verb, record = self.again.pop() if self.again else self._event(number)
                writer.send((number, verb, record))
            if writer.poll(0.001):
                self._take(*writer.recv())

    def drain(self, writer: Pipe) -> None:
        """Wait for everything that was sent."""
        while self.flying:
            assert writer.poll(20.0), "the writer does not answer"
            self._take(*writer.recv())

    def lost(self, writer: Pipe) -> None:
        """The writer was killed: take what it had said, and send some of the rest again to the next one."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while writer.poll(0):
                self._take(*writer.recv())
        self.again += [event for event in self.flying.values() if self.chance.random() < 0.7]
        self.flying.clear()

    def _event(self, number: int) -> tuple[str, Any]:
        if not self.decided or self.chance.random() < 0.5:
            name = f"D{number:07d}"
            return "decide", replace(self.chance.choice(self.samples), decision_id=name, request_id=f"q/{name}")
        if self.rewarded and self.chance.random() < 0.1:
            return "reward", self.chance.choice(list(itertools.islice(self.rewarded.values(), 50)))[0]  # once more
        ahead = self.chance.random() < 0.1
        waiting = [record for verb, record in self.flying.values() if verb == "decide"]
        decision = waiting[-1] if ahead and waiting else self._recent()
        value = self.chance.randrange(1, 100) / 64
        slot = self.chance.randrange(decision.slots)
        return "reward", RewardRecord("shop", decision.decision_id, slot, "reward", value, f"r/{number}")

    def _recent(self) -> DecisionRecord:
        """One of the last hundred decisions: their windows are about to close."""
        names = list(itertools.islice(reversed(self.decided), 100))
        return self.decided[self.chance.choice(names)]

    def _take(self, number: int, result: Any) -> None:
        verb, record = self.flying.pop(number)
        if verb == "decide":
            self.decided[record.request_id] = record
        elif result[0] != "duplicate" or record.reward_id not in self.rewarded:
            self.rewarded[record.reward_id] = record, result[0]


@dataclass(frozen=True)
class Killed:
    """What a run of the harness came to."""

    writers: int
    learners: int
    client: Client


class Harness:
    """A home with a published version, and processes that begin at once."""

    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.chance = random.Random(seed)
        version = serving.version()
        Registry(settings.registry_uri).publish(DEFAULT_NAME, version.save)
        Journal(journal_url(settings), KINDS).close()
        self.client = Client(_samples(version), self.chance)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload([__name__])

    def start(self, work: Any) -> tuple[BaseProcess, Pipe]:
        mine, its = multiprocessing.Pipe()
        process = self._processes.Process(target=work, args=(self.settings, its), daemon=True)
        process.start()
        its.close()
        return process, mine

    def run(self, kills: int, console: Console | None = None) -> Killed:
        """Kill the writer, the learner or both, so many times in all; then let everything come to its end."""
        writers = learners = 0
        writer, sent = self._started(write)
        learner, told = self._started(study)
        for _ in track(range(kills), "kills", console=console or Console(stderr=True), transient=True):
            self.client.run(sent, self.chance.uniform(*LIFE_S))
            victim = self.chance.choice(("writer", "learner", "both"))
            if victim != "learner":
                _kill(writer)
                self.client.lost(sent)
                writer, sent = self._started(write)
                writers += 1
            if victim != "writer":
                _kill(learner)
                learner, told = self._started(study)
                learners += 1
        self.client.drain(sent)
        self._settle(learner, told)
        _kill(writer)
        return Killed(writers, learners, self.client)

    def _started(self, work: Any) -> tuple[BaseProcess, Pipe]:
        process, mine = self.start(work)
        assert mine.poll(30.0), f"{work.__name__} does not start"
        assert mine.recv() == "ready"
        return process, mine

    def _settle(self, learner: BaseProcess, told: Pipe) -> None:
        """Until every window is closed and learned; then the learner saves and ends."""
        slots, closed = "SELECT sum(slots) FROM journal_decisions", "SELECT count(*) FROM journal_outcomes"
        journal, deadline = journal_url(self.settings), time.monotonic() + 30
        while rows(journal, slots) != rows(journal, closed):
            assert time.monotonic() < deadline, "windows do not close"
            time.sleep(0.05)
        last = rows(journal, closed)[0][0]
        while rows(ledger_url(self.settings, 0), "SELECT max(seq) FROM learner_checkpoints") != [(last,)]:
            assert time.monotonic() < deadline + 60, "the learner does not save"
            time.sleep(0.05)
        told.send("end")
        assert told.poll(30.0)
        assert told.recv() == last
        learner.join()

    def check(self, killed: Killed) -> None:
        """Everything that the module promises."""
        journal = journal_url(self.settings)
        decisions = rows(journal, "SELECT decision_id, request_id, slots, answer FROM journal_decisions ORDER BY seq")
        kept = {name: (decision, answer) for decision, name, _, answer in decisions}
        assert len(kept) == len({decision for decision, _, _, _ in decisions}) == len(decisions)
        for name, decided in killed.client.decided.items():
            assert kept.get(name) == (decided.decision_id, decided.answer)
        rewards = rows(journal, "SELECT reward_id, decision_id, slot, value, late FROM journal_rewards ORDER BY seq")
        stored = {name: rest for name, *rest in rewards}
        assert len(stored) == len(rewards)
        for name, (given, status) in killed.client.rewarded.items():
            assert stored.get(name, [])[:3] == [given.decision_id, given.slot, given.value]
            assert status in ("duplicate", "parked") or stored[name][3] == (status == "late")
        counted = rows(journal, "SELECT name, value FROM journal_counters")
        assert dict(counted)["decisions"] == len(decisions)
        self._check_outcomes([(decision, slots) for decision, _, slots, _ in decisions], rewards)
        ensemble = Version.load(Registry(self.settings.registry_uri).fetch(DEFAULT_NAME, 1)).ensemble.of("shop")
        _, expected = self.start(oracle)
        assert expected.poll(60.0)
        assert [expected.recv()] == [state for state, _ in states(self.settings, ensemble)]

    def _check_outcomes(self, decisions: list[tuple[str, int]], rewards: list[tuple[Any, ...]]) -> None:
        """One outcome a slot, in the decisions' order, the sum of the rewards in time as they came."""
        values: dict[tuple[str, int], list[float]] = {}
        for _, decision, slot, value, late in rewards:
            if not late:
                values.setdefault((decision, slot), []).append(value)
        expected = [
            (decision, slot, min(sum(values.get((decision, slot), [0.0])), 10.0), len(values.get((decision, slot), [])))
            for decision, slots in decisions
            for slot in range(slots)
        ]
        query = (
            "SELECT o.seq, d.decision_id, o.slot, o.reward, o.events FROM journal_outcomes o "
            "JOIN journal_decisions d ON d.seq = o.decision ORDER BY o.seq"
        )
        assert rows(journal_url(self.settings), query) == [(seq, *row) for seq, row in enumerate(expected, 1)]


def _samples(version: Version) -> list[DecisionRecord]:
    """Decisions of five users, in one slot and in two."""
    engine = Engine(seed=1)
    engine.install(load(1, version))
    bodies = [
        {
            "user_id": f"u{n % 5}",
            "context": {"device": ("mobile", "desktop")[n % 2], "hour": n % 24},
            "slots": 1 + n % 2,
        }
        for n in range(200)
    ]
    return [engine.decide("shop", DecisionRequest.model_validate(body), f"S{n}") for n, body in enumerate(bodies)]


def _kill(process: BaseProcess) -> None:
    process.kill()
    process.join()
