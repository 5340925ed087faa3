"""Processes that `benchmarks.journal` starts and kills: `python -m benchmarks._journal_process WORD HOME [NUMBER]`.

fill    writes NUMBER events, a decision and its reward in turn, says so, and goes on until it is killed
first   opens the journal, makes one decision durable and says so
learn   learns until it has learned outcome NUMBER, says so, and goes on
"""

import json
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmarks._one_thread  # noqa: F401  before NumPy is imported

# isort: split
from benchmarks._servers import settings_of
from cluster.config import RewardKind, Settings
from cluster.journal.journal import DecisionRecord, Journal, RewardRecord, journal_url

KINDS = {"reward": RewardKind(window_s=1.0)}
GROUP = 64


def say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


def fill(settings: Settings, events: int) -> None:
    """As fast as it goes, then at the pace of a busy service, with which a learner keeps up."""
    made = samples(settings)
    number, waiting = 0, deque[Future[Any]]()
    with Journal(journal_url(settings), KINDS) as journal:
        while True:
            names = [f"01J{number + i:023d}" for i in range(GROUP)]
            pairs = [(made[(number + i) % len(made)], name) for i, name in enumerate(names)]
            waiting.append(journal.decide([replace(record, decision_id=name) for record, name in pairs]))
            waiting.append(journal.reward([RewardRecord("bench", n, 0, "reward", 1.0, f"r/{n}") for n in names]))
            while len(waiting) > 4:
                waiting.popleft().result()
            number += GROUP
            if number - GROUP < events // 2 <= number:
                say(filled=2 * number)
            if number >= events // 2:
                time.sleep(0.05)


def samples(settings: Settings) -> list[DecisionRecord]:
    """Real decisions of the published version, to be written again and again under other names."""
    from actors.bandits.version import Version
    from cluster.registry import DEFAULT_NAME, Registry
    from serve.decide import Engine
    from serve.decisions.current import load
    from serve.messages import DecisionRequest

    engine = Engine(seed=0)
    engine.install(load(1, Version.load(Registry(settings.registry_uri).fetch(DEFAULT_NAME, 1))))
    bodies = json.loads((settings.home / "bodies.json").read_text())
    return [engine.decide("bench", DecisionRequest.model_validate(body), f"D{n}") for n, body in enumerate(bodies)]


def first(settings: Settings) -> None:
    with Journal(journal_url(settings), KINDS) as journal:
        record = DecisionRecord(f"first-{time.time()}", "bench", None, None, None, 0, 0, "{}", "{}", None, "baseline")
        journal.decide([record]).result()
        say(acknowledged=True)


def learn(settings: Settings, through: int) -> None:
    from cluster.registry import DEFAULT_NAME
    from serve.learning.service import LearnerService

    service = LearnerService(settings.model_dump(mode="json"), DEFAULT_NAME)
    while service._learner.seq < through:
        time.sleep(0.005)
    say(learned=through)
    threading.Event().wait()


def main() -> None:
    word, home = sys.argv[1], Path(sys.argv[2])
    settings = settings_of(home, 8000, "default")
    number = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if word == "first":
        first(settings)
    else:
        {"fill": fill, "learn": learn}[word](settings, number)


if __name__ == "__main__":
    main()
