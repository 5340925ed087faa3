"""One drive: traffic over HTTP, then the baselines on the same situations."""

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from actors.bandits.version import Version
from cluster.config import Settings
from cluster.errors import ConfigError, EvidenceError, StateError
from cluster.records import Dataset
from cluster.registry import DEFAULT_NAME, Registry
from tune import account, baselines
from tune.account import Account
from tune.caller import Caller
from tune.results import Played
from tune.stages import Stages
from tune.traffic import Answer, Delays, Driver, Plan, Traffic
from tune.worlds.base import Situations, World
from tune.worlds.build import build
from tune.worlds.reward_model import RewardModel
from tune.worlds.wrapped import innermost

Progress = Callable[[float, float], None]
LEAST_S = 1.0
"""Traffic lasts this long at least, however small the budget."""


@dataclass(frozen=True)
class Drive:
    """The world that answers, the version that is served, and the best predefined model as named on select."""

    run: Path
    settings: Settings
    best: str
    version: Version
    world: World

    @classmethod
    def opened(cls, data: Path, run: Path, settings: Settings) -> "Drive":
        """Raises MedleyError where the run was not composed, its version is gone, or the data is no import."""
        composed = read_json(run / "compose.json", "compose a version first")
        absent = {"version", "best_predefined"} - set(composed)
        if absent:
            raise StateError(f"{run / 'compose.json'}: no {min(absent)!r}; the run was cut short, compose again")
        folder = Registry(settings.registry_uri).fetch(composed.get("name", DEFAULT_NAME), composed["version"])
        world = build(Dataset.load(data), settings)
        return cls(run, settings, composed["best_predefined"], Version.load(folder), world)

    def go(self, url: str, keys: dict[str, str], stages: Stages) -> dict[str, Any]:
        """Drive, and leave drive.json and drive.parquet; returns the figures.

        Raises:
            ConfigError: a client of the world has no key.
            ClusterError: the server refuses a request or stops answering.
        """
        self._check(keys)
        world = self.judge_world(stages)
        with stages.stage("traffic", self.settings.budgets.drive_s) as stage:
            traffic, caller = asyncio.run(self._send(url, keys, stage.progress))
            if traffic.left_out:
                stage.left_out = f"{traffic.left_out:,} of {len(self.world.events):,} situations were not asked"
        answers = sorted(traffic.answers, key=lambda answer: answer.seconds)
        with stages.stage("baselines") as stage:
            policies = self._baselines(answers, stage.progress)
        members = self.version.ensemble.members
        found = Account(
            world=self.world,
            answers=answers,
            policies=policies | {"ensemble": self._served(answers)},
            members=[member.name for member in members],
            generated=[member.name for member in members if not member.predefined],
            best=self.best,
        )
        figures = found.figures() | world
        pq.write_table(found.rows(), self.run / "drive.parquet", compression="zstd")
        notes = [*account.notes(traffic), *account.of_world(self.settings.world)]
        about = {"traffic": account.of_traffic(traffic, caller), "notes": notes}
        stages.write(**figures, **found.curves(), **about)
        return figures

    def judge_world(self, stages: Stages) -> dict[str, Any]:
        """What is to be said of a world that was fitted; nothing of one that knows its truth."""
        fitted = innermost(self.world)
        if not isinstance(fitted, RewardModel):
            return {}
        try:
            with stages.stage("fidelity"):
                found = fitted.fidelity
        except EvidenceError as error:
            stages.warn(f"the world that answers is a fitted model that cannot be checked: {error}")
            return {"world": {"verdict": "none", "words": f"do not trust it: {error}", "remarks": [], "means": []}}
        say = stages.say if found.verdict == "trust" else stages.warn
        for text in (f"the world that answers is a fitted model: {found.say()}", *found.remarks):
            say(text)
        return {"world": found.facts()}

    def _check(self, keys: dict[str, str]) -> None:
        missing = sorted(set(self.world.events["client_id"].unique().to_pylist()) - set(keys))
        if missing:
            raise ConfigError(
                f"no API key of client {missing[0]!r} ({len(missing)} such clients); "
                "make one with `medley key create` and add it to the keys file"
            )
        if not len(self.world.events):
            raise StateError("the world has no situations to ask; import more events")

    async def _send(self, url: str, keys: dict[str, str], progress: Progress) -> tuple[Traffic, Caller]:
        kind = self.settings.reward
        plan = Plan(
            span_s=max(LEAST_S, self.settings.budgets.drive_s - kind.window_s),
            kind_name=self.settings.reward_kind,
            kind=kind,
            label=f"{self.run.name}-{secrets.token_hex(4)}",
            slots=self.settings.world.slots,
        )
        delays = Delays(self.world, self.version.feature_map.item_ids, kind.window_s)
        async with Caller(url, keys, connections=2 * plan.connections) as caller:  # rewards do not queue behind
            return await Driver(self.world, delays, plan, caller, progress).run(), caller

    def _baselines(self, answers: Sequence[Answer], progress: Progress) -> dict[str, Played]:
        decided = [answer for answer in answers if answer.position == 0]
        schedule = baselines.Schedule(
            row_N=np.array([answer.row for answer in decided], np.int64),
            second_N=np.array([answer.seconds for answer in decided]),
            window_s=self.settings.reward.window_s,
            publish_s=1 / self.settings.serve.publications_per_s,
            slots=self.settings.world.slots,
        )
        alone = baselines.policies(self.version, self.best)
        return baselines.play(alone, self.version, self.world, schedule, self.settings.seed, progress)

    def _served(self, answers: Sequence[Answer]) -> Played:
        situations = Situations(self.world.events)
        expected = []
        for answer in answers:
            listed = situations[answer.row].candidates or (answer.item_id,)
            place = listed.index(answer.item_id)
            expected.append(baselines.expected_reward(self.world, answer.row, listed, place, answer.position))
        return Played(
            [answer.item_id for answer in answers],
            np.array([answer.reward for answer in answers]),
            np.array(expected),
            np.array([answer.propensity for answer in answers]),
        )


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """An object from a file. Raises StateError where there is none."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(found, dict):
        raise StateError(f"{path}: expected an object, found {type(found).__name__}; {remedy}")
    return found
