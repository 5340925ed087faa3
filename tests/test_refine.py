"""The job on a journal: what was decided and rewarded is read, looked at, and acted on; and told in one line."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from actors.bandits.version import Version
from cluster.config import RewardKind, Settings
from cluster.journal.journal import DecisionRecord, Journal, Reader, RewardRecord, journal_url
from cluster.registry import Registry
from tests.compose_cases import LAMPS, PLAIN, quick, two_kinds
from tests.programs import answered
from tune.groundwork import Groundwork
from tune.journal import after, evidence

DAY_S, DAYS, EACH = 86_400.0, 30, 120
START = 1_772_323_200.0
WAIT_S = 30.0


def publish(settings: Settings) -> None:
    work = Groundwork.of(two_kinds(120), settings)
    ensemble = work.ensemble(*work.predefined.members())
    registry = Registry(settings.registry_uri)
    registry.ensure("medley")
    registry.publish("medley", Version(work.feature_map, ensemble, two_kinds(120).items, {"watermark": None}).save)


def write(settings: Settings, days: int, turned_on: int) -> None:
    """Days of decisions, reds mostly, whose users like red until the day `turned_on` and blue from it on."""
    rng, now = np.random.default_rng(0), [START]
    journal = Journal(journal_url(settings), {"reward": RewardKind()}, lambda: now[0], close_every_s=0.01)
    reader = Reader(journal_url(settings))
    for day in range(days):
        decisions, rewards = [], []
        for n in range(EACH):
            red = bool(rng.random() < 0.7)
            item = LAMPS[int(rng.integers(3)) + 3 * (not red)]
            name = f"d{day}-{n}"
            user = f"u{rng.integers(300)}"
            request = {"items": LAMPS, "user_id": user, "context": {"hour": n % 24}}
            answer = {"version": 1, "slots": [{"item_id": item, "propensity": 0.7 / 3 if red else 0.1}]}
            record = DecisionRecord(name, "shop", user, None, 1, 1, 1, json.dumps(request), json.dumps(answer), None)
            decisions.append(record)
            if rng.random() < (0.6 if red != (day >= turned_on) else 0.2):
                rewards.append(RewardRecord("shop", name, 0, "reward", 1.0, f"r/{name}"))
        journal.decide(decisions).result(WAIT_S)
        journal.reward(rewards).result(WAIT_S)
        now[0] += DAY_S
    deadline = time.monotonic() + WAIT_S
    while reader.last_outcome() < days * EACH and time.monotonic() < deadline:
        time.sleep(0.02)
    journal.close()
    reader.close()


def refine(settings: Settings, *words: str) -> dict[str, Any]:
    return answered("tune.refine", settings, *words)


def test_a_journal_in_which_choices_turned_makes_a_new_version(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, drift={"block_users": 60}, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, DAYS, turned_on=18)
    found = refine(settings, "--run", str(tmp_path / "run"))
    assert (found["action"], found["reason"], found["running"], found["version"]) == ("restart", "drift", 1, 2)
    assert abs(found["drift"]["since_s"] - (START + 18 * DAY_S)) < 2 * DAY_S
    version = Version.load(Registry(settings.registry_uri).fetch("medley", 2))
    assert version.facts["watermark"] == DAYS * EACH
    assert version.facts["parents"] == [1]
    written = json.loads((tmp_path / "run" / "refine.json").read_text())
    assert written["action"] == "restart"
    assert {row["stage"] for row in written["timings"]} >= {"journal", "drift", "restart", "publish"}
    again = refine(settings)
    assert (again["action"], again["running"], again["drift"]) == ("nothing", 2, None)


def test_an_empty_journal_is_nothing_to_do(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    Journal(journal_url(settings), {"reward": RewardKind()}).close()
    found = refine(settings)
    assert found["action"] == "nothing"
    assert "no final outcome" in found["waits"]


def test_a_version_of_predefined_members_has_no_generator_to_tune(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, 2, turned_on=2)
    found = refine(settings, "--generator", "--run", str(tmp_path / "run"))
    assert (found["action"], found["waits"]) == ("wait", "version 1 has no generated member")
    assert json.loads((tmp_path / "run" / "generator.json").read_text())["new"] == 2 * EACH


def test_an_import_comes_before_the_journal(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, 2, turned_on=2)
    earlier = two_kinds(120)
    extra = replace(earlier, items=earlier.items.slice(0, 2))
    reader = Reader(journal_url(settings))
    both = evidence(settings, reader, "medley", extra)
    alone = evidence(settings, reader, "medley")
    everything, later = after(reader, 0), after(reader, 2 * EACH - 7)
    reader.close()
    assert sorted(everything.to_pylist()) == sorted(alone.events["event_id"].to_pylist())
    assert len(later) == 7
    assert set(later.to_pylist()) < set(everything.to_pylist())
    assert len(both.events) == len(earlier.events) + 2 * EACH
    assert sorted(both.items["item_id"].to_pylist()) == sorted(LAMPS)
    assert both.facts == alone.facts
    assert both.users.equals(earlier.users)
    assert both.facts["watermark"] == 2 * EACH
