"""What is done about a version in service, on planted traffic: nothing, restart, replace, retire; and what it costs."""

import contextlib
import datetime as dt
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console

from actors.bandits.mixture import Mixture
from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import StateError
from cluster.records import EVENTS, Dataset
from cluster.registry import Registry
from tests.compose_cases import LAMPS, PLAIN, changed, proposed, quick, two_kinds
from tune.composer import compose
from tune.groundwork import Groundwork
from tune.memory import Memory, remembered
from tune.refinement import Refinement
from tune.stages import Stages

NAME = "medley"
USERS, ROWS, DAYS = 240, 16, 40.0


def traffic(
    version: int, turned_at: float = 1.0, seed: int = 3, chosen: float = 0.7, fallen_by: float = 0.0
) -> Dataset:
    """Users of one kind, who like red lamps until a share of the time and blue ones after it.

    The running version takes a red lamp with probability `chosen`, a blue one otherwise; that is logged. From 60 % of
    the time on, whatever is chosen is rewarded less by `fallen_by`.
    """
    plain = two_kinds(USERS, ROWS, seed)
    n, rng = len(plain.events), np.random.default_rng(seed)
    red_N = rng.random(n) < chosen
    item_N = rng.integers(3, size=n) + 3 * ~red_N
    late_N = np.arange(n) >= turned_at * n
    liked_N = red_N != late_N
    chance_N = np.where(liked_N, 0.6, 0.2) - fallen_by * (np.arange(n) >= 0.6 * n)
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    return changed(
        replace(plain, facts={"fingerprint": f"served {seed} {turned_at}", "watermark": 77}),
        event_id=[f"s{k}" for k in range(n)],
        timestamp=[start + dt.timedelta(days=DAYS * k / n) for k in range(n)],
        item_id=[LAMPS[k] for k in item_N],
        propensity=np.where(red_N, chosen / 3, (1 - chosen) / 3),
        reward=(rng.random(n) < chance_N).astype(float),
        version=[version] * n,
    )


@dataclass
class Shop:
    """A registry with a running version of the predefined members, and what refinements of it say."""

    settings: Settings
    said: io.StringIO

    def running(self) -> Version:
        return Version.load(Registry(self.settings.registry_uri).fetch(NAME))

    def refine(self, dataset: Dataset, memory: Memory | None = None) -> dict[str, Any]:
        stages = Stages(self.settings.home / "refine.json", Console(file=self.said, width=300))
        found = Refinement.of(dataset, self.settings, NAME, stages).go(memory if memory is not None else Memory())
        assert json.loads((self.settings.home / "refine.json").read_text())["action"] == found["action"]
        return found


def shop(home: Path, *extra: Mixture, made_of: int | None = None, **changes: Any) -> Shop:
    """A version that knows red lamps to be liked, from the days before the traffic."""
    values = {"features": PLAIN, "drift": {"block_users": 60}} | changes
    settings = quick(home, **values)
    before = traffic(0, seed=11)
    early = pa.array([at - dt.timedelta(days=DAYS) for at in before.events["timestamp"].to_pylist()])
    past = changed(before, timestamp=early)
    work = Groundwork.of(past, settings)
    ensemble = work.ensemble(*work.predefined.members(), *extra)
    earned = {"uniform": 0.4}  # of red and blue alike; red ones alone earn 0.6
    ensemble = replace(ensemble, values_M=np.array([earned.get(name, 0.6) for name in ensemble.names]))
    facts: dict[str, Any] = {"watermark": None, "events": made_of, "tests": {}}
    registry = Registry(settings.registry_uri)
    registry.ensure(NAME)
    registry.publish(NAME, Version(work.feature_map, ensemble, past.items, facts).save)
    return Shop(settings, io.StringIO())


def test_a_run_with_nothing_to_do_does_nothing(tmp_path: Path) -> None:
    made, memory = shop(tmp_path), Memory()
    found = made.refine(traffic(1), memory)
    assert (found["action"], found["reason"], found["drift"], found["running"]) == ("nothing", None, None, 1)
    assert [each["member"] for each in found["standing"]] == ["uniform", "popularity", "linear", "forgetting"]
    assert Registry(made.settings.registry_uri).versions(NAME) == [1]
    again = made.refine(traffic(1), memory)
    assert again["standing"] == []  # its members were looked at when there was as much
    assert memory.attempts == {}


def test_choices_that_turned_are_a_restart_on_what_came_since(tmp_path: Path) -> None:
    """Published from the events since the change alone, with a parent, a watermark, and no memory of red lamps."""
    made = shop(tmp_path)
    dataset = traffic(1, turned_at=0.6)
    found = made.refine(dataset)
    assert (found["action"], found["version"]) == ("restart", 2)
    assert found["drift"]["turned"]
    second_N = dataset.events["timestamp"].cast(pa.int64()).to_numpy() / 1e6
    change_s = second_N[int(0.6 * len(second_N))]
    assert abs(found["drift"]["since_s"] - change_s) < 2 * 86_400
    version = made.running()
    assert version.facts["parents"] == [1]
    assert version.facts["watermark"] == 77
    assert version.facts["since_s"] == found["drift"]["since_s"]
    since_N = second_N >= found["drift"]["since_s"]
    assert version.facts["events"] == since_N.sum()
    popularity = next(m for m in version.ensemble.members if m.name == "popularity")
    mean_I = popularity.shift_AD[:-1, 0] / popularity.precision_ADD[:-1, 0, 0]  # type: ignore[union-attr]
    order = version.feature_map.fitted_ids
    red, blue = (mean_I[[k for k, i in enumerate(order) if i.startswith(c)]].mean() for c in ("red", "blue"))
    assert blue > 0.45 > 0.35 > red
    later = made.refine(changed(dataset, version=[2] * len(dataset.events)))
    assert later["running"] == 2
    assert later["drift"] is None  # it rests on what came since


def test_a_fall_of_all_rewards_is_no_reason_to_forget(tmp_path: Path) -> None:
    """Of red and blue alike: the choices are what they were."""
    made = shop(tmp_path)
    found = made.refine(traffic(1, fallen_by=0.18))
    assert found["drift"]["signal"] == "down"
    assert not found["drift"]["turned"]
    assert found["reason"] == "drift"
    assert found["action"] in ("wait", "keep", "replace")


def test_a_better_version_replaces_the_running_one_by_proof(tmp_path: Path) -> None:
    """The running version has uniform alone, the log tells what is liked: more than twice the events it was made of."""
    made = shop(tmp_path, made_of=500, bandits={"predefined": ["uniform", "linear"]})
    registry = Registry(made.settings.registry_uri)
    running = made.running()
    only = replace(running, ensemble=running.ensemble.only("uniform"))
    registry.publish(NAME, only.save)
    memory = Memory()
    found = made.refine(traffic(2, chosen=0.5), memory)
    assert (found["reason"], found["action"], found["version"]) == ("grown", "replace", 3)
    assert found["proof"]["low"] > -made.settings.gate.margin
    assert found["proof"]["difference"] == pytest.approx(0.2, abs=0.1)  # 0.6 of red lamps less 0.4 of any
    assert made.running().facts["parents"] == [2]
    assert made.running().facts["events"] == USERS * ROWS
    assert memory.tries("medley/2/grown/None") == 1


def test_a_version_that_is_no_better_is_kept_and_tried_again_only_when_there_is_more(tmp_path: Path) -> None:
    """No loss is tolerated here, and nobody can do better than to take red lamps always, as the running one does."""
    made, memory = shop(tmp_path, made_of=500, gate={"bootstrap": 200, "margin": 0.0}), Memory()
    dataset = traffic(1, chosen=0.9, seed=25)
    first = made.refine(dataset, memory)
    assert first["action"] == "keep"
    assert abs(first["proof"]["difference"]) < 0.05
    assert memory.tried("medley/1/grown/None") == len(dataset.events)
    second = made.refine(dataset, memory)
    assert second["action"] == "wait"
    assert f"{len(dataset.events):,} at the last try" in second["waits"]
    assert Registry(made.settings.registry_uri).versions(NAME) == [1]


def test_a_generated_member_that_harms_is_retired(tmp_path: Path) -> None:
    """A member that is sure of blue lamps. No replacement waits for it: its own bound is the proof."""
    case = proposed()
    assert case.proposal.member is not None
    member = case.proposal.member
    made = shop(tmp_path)
    feature_map = made.running().feature_map
    blue_D = feature_map.features({"hour": 3}, ["blue0"], None).phi_KD[0]
    red_D = feature_map.features({"hour": 3}, ["red0"], None).phi_KD[0]
    way_D = 5 * (blue_D - red_D) / np.sum((blue_D - red_D) ** 2)
    worse = replace(member, means_CAD=np.broadcast_to(way_D, member.means_CAD.shape).copy(), follow=None, base_AD=None)
    harmed = shop(tmp_path / "harmed", worse, gate={"bootstrap": 200, "least_users": 20})
    found = harmed.refine(traffic(1))
    standing = {each["member"]: each for each in found["standing"]}
    assert standing["generated"]["retired"]
    assert found["reason"] == "retired"
    assert found["version"] == 2
    names = harmed.running().ensemble.names
    if found["action"] == "retire":
        assert names == ("uniform", "popularity", "linear", "forgetting")
        assert harmed.running().facts["watermark"] == 0
    assert harmed.running().facts["parents"] == [1]
    assert harmed.running().facts["reason"] == "retired"


def test_few_users_since_a_change_wait(tmp_path: Path) -> None:
    made = shop(tmp_path, made_of=10)
    few = traffic(1)
    some = [int(user[1:]) < 40 for user in few.events["user_id"].to_pylist()]
    found = made.refine(replace(few, events=few.events.filter(pa.array(some))))
    assert found["action"] == "wait"
    assert found["waits"] == "40 users since then, 150 needed"


def test_the_memory_outlives_a_run(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    with remembered(path) as memory:
        memory.attempt("a", 100)
        memory.look(3, 50)
    with contextlib.suppress(RuntimeError), remembered(path) as memory:
        memory.attempt("a", 200)
        with pytest.raises(StateError, match="another refinement has it"), remembered(path):
            pass
        assert json.loads(path.read_text())["attempts"] == {"a": [100, 200]}  # a kill would not lose it
        raise RuntimeError
    with remembered(path) as memory:
        assert (memory.tries("a"), memory.tried("a"), memory.tried("b"), memory.looked(3)) == (2, 200, 0, 50)


def test_composed_versions_say_how_many_events_they_are_made_of(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN)
    compose(two_kinds(120), settings, Stages(None), NAME)
    version = Version.load(Registry(settings.registry_uri).fetch(NAME))
    assert version.facts["events"] == len(two_kinds(120).events)
    assert EVENTS.names == two_kinds(120).events.column_names
