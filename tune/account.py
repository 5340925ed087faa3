"""What a drive leaves: figures for people and machines, curves for the report, and every decision as a row.

Shapes: N decisions, in the order of their answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from actors.features.features import Ints
from cluster.config import WorldSettings
from tune import results
from tune.caller import Caller
from tune.results import Played
from tune.split import task_codes, tasks
from tune.traffic import Answer, Traffic
from tune.worlds.base import World

ROWS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),
        pa.field("client", pa.string(), nullable=False),
        pa.field("user", pa.string(), nullable=False),
        pa.field("policy", pa.string(), nullable=False),
        pa.field("item", pa.string(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("expected", pa.float64(), nullable=False),
        pa.field("propensity", pa.float64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
    ]
)
"""drive.parquet: a row per slot and policy. row: of the world's events; seconds: since traffic began; position: the
slot, 0 the first."""


@dataclass(frozen=True)
class Account:
    """N answers over HTTP, slot by slot, and what every policy did in the same situations.

    members: names of the served version's; generated: those of them that are not predefined.
    """

    world: World
    answers: Sequence[Answer]
    policies: Mapping[str, Played]
    members: Sequence[str]
    generated: Sequence[str]
    best: str

    @property
    def _rows_N(self) -> Ints:
        return np.array([answer.row for answer in self.answers], np.int64)

    def figures(self) -> dict[str, Any]:
        """Rewards, differences, and the weight of what was generated."""
        user_N = task_codes(self.world.events)[self._rows_N]
        found = results.summary(self.policies, user_N)
        found["best_predefined"]["name"] = self.best
        models = [answer.models for answer in self.answers]
        return {
            "policies": found,
            "difference": results.differences(self.policies, user_N),
            "decisions": sum(answer.position == 0 for answer in self.answers),
            "slots": 1 + max((answer.position for answer in self.answers), default=0),
            "generated": list(self.generated),
            "generated_weight": results.generated_weight(models, self.generated),
        }

    def curves(self) -> dict[str, Any]:
        """Learning curves on expected reward, and weights over time."""
        user_N = task_codes(self.world.events)[self._rows_N]
        seconds_N = np.array([answer.seconds for answer in self.answers])
        models = [answer.models for answer in self.answers]
        return {
            "curves": {name: results.curve(played.expected_N, user_N) for name, played in self.policies.items()},
            "weights": results.weights_over_time(models, seconds_N, self.members),
        }

    def rows(self) -> pa.Table:
        """Every decision of every policy."""
        about = {
            "row": self._rows_N,
            "client": [answer.client for answer in self.answers],
            "user": tasks(self.world.events).take(pa.array(self._rows_N)),
            "seconds": [answer.seconds for answer in self.answers],
            "position": [answer.position for answer in self.answers],
        }
        tables = [
            pa.table(
                about
                | {
                    "policy": [name] * len(played),
                    "item": list(played.item_N),
                    "reward": played.reward_N,
                    "expected": played.expected_N,
                    "propensity": played.propensity_N,
                }
            )
            for name, played in self.policies.items()
        ]
        return pa.concat_tables([table.select(ROWS.names).cast(ROWS) for table in tables])


def last_line(figures: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The figures without their expected values, as a program wants them."""
    return {
        "policies": {name: _realised(found) for name, found in figures["policies"].items()},
        "difference": {name: _realised(found) for name, found in figures["difference"].items()},
        "decisions": figures["decisions"],
        "slots": figures["slots"],
        "generated_weight": figures["generated_weight"],
        "seconds": round(seconds, 1),
        **({"world": figures["world"]["words"]} if "world" in figures else {}),
    }


def _realised(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: found[key] for key in ("name", "reward_per_1000", "interval") if key in found}


def notes(traffic: Traffic) -> list[str]:
    """What a reader of the figures must know about the traffic, in words."""
    found = []
    slots = 1 + max((answer.position for answer in traffic.answers), default=0)
    if slots > 1:
        found.append(f"Every decision filled up to {slots} slots; rewards are per 1,000 slots.")
    if traffic.left_out:
        asked = traffic.decisions
        found.append(
            f"The server could not keep up: the first {asked:,} of {asked + traffic.left_out:,} situations were asked."
        )
    if traffic.late:
        found.append(
            f"{traffic.late:,} rewards reached the server after their window had closed; it learned nothing from them."
        )
    if traffic.rejected:
        found.append(f"{len(traffic.rejected):,} rewards were refused, the first because: {traffic.rejected[0]}")
    baseline = sum(answer.mode != "live" for answer in traffic.answers)
    if baseline:
        found.append(f"{baseline:,} decisions were answered with the caller's own choice, not by the ensemble.")
    return found


def of_world(asked: WorldSettings) -> list[str]:
    """How the world departs from its plain form, in words."""
    changed = asked.model_dump(mode="json", exclude_defaults=True, exclude={"slots"})
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changed.items())
    return [f"The world was made harder than the data says: {said}."] if changed else []


def of_traffic(traffic: Traffic, caller: Caller) -> dict[str, Any]:
    """How traffic went, for the record."""
    latency_s = np.array(caller.latency_s or [0.0])
    return {
        "calls": len(caller.latency_s),
        "retries": caller.retries,
        "rewards sent": traffic.rewards,
        "rewards late": traffic.late,
        "latency p50, ms": 1_000 * float(np.median(latency_s)),
        "latency p99, ms": 1_000 * float(np.quantile(latency_s, 0.99)),
        "seconds": traffic.seconds,
    }


def table(figures: Mapping[str, Any]) -> Table:
    """The figures for a terminal."""
    shown = Table("policy", "reward per 1,000", "95 % interval", "expected", "ensemble minus this", "95 % interval")
    for name, found in figures["policies"].items():
        gain = figures["difference"].get(name)
        against = ("", "") if gain is None else (f"{gain['reward_per_1000']:+.1f}", _interval(gain["interval"]))
        label = f"{name} ({found['name']})" if "name" in found else name
        realised, expected = f"{found['reward_per_1000']:.1f}", f"{found['expected_per_1000']:.1f}"
        style = "bold" if name == "ensemble" else ""
        shown.add_row(label.replace("_", " "), realised, _interval(found["interval"]), expected, *against, style=style)
    return shown


def _interval(interval: Sequence[float | None]) -> str:
    low, high = interval
    return "" if low is None or high is None else f"{low:.1f} to {high:.1f}"
