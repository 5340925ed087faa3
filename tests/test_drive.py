"""A drive against the real gateway, journal and learner, over a real socket; and its figures by hand."""

import asyncio
import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import uvicorn
from rich.console import Console

from cluster.config import RewardKind, Settings, WorldSettings
from cluster.errors import ConfigError, StateError
from cluster.records import decode
from cluster.registry import DEFAULT_NAME
from serve.app import prepare
from serve.learning.service import LearnerService
from tests import serving
from tune import account, driving
from tune.account import Account
from tune.driving import Drive
from tune.results import Played
from tune.stages import Stages
from tune.traffic import Answer, Traffic
from tune.worlds.base import draw
from tune.worlds.delayed import Delayed
from tune.worlds.position_bias import PositionBias
from tune.worlds.reward_model import RewardModel

POLICIES = ["uniform", "popularity", "pooled_linear", "best_predefined", "ensemble"]


class Shop:
    """The truth behind `serving.dataset`: 60 % for red things on a mobile, green ones on a desktop, else 10 %."""

    def __init__(self, n: int):
        data = serving.dataset(rows=n, seed=9)
        self.events = data.events
        self.devices = [decode(pairs)["device"] for pairs in data.events["context"].to_pylist()]

    def mean_rewards(self, row: int, item_ids: Any, position: int = 0) -> Any:
        liked = "red" if self.devices[row] == "mobile" else "green"
        return np.array([0.6 if serving.COLOURS[int(item[1:]) % 3] == liked else 0.1 for item in item_ids])

    def reward(self, row: int, item_id: str, position: int = 0) -> float:
        return float(draw(1, row, item_id) < self.mean_rewards(row, [item_id])[0])

    def delay_s(self, row: int, item_id: str) -> float:
        return float(row % 3)


@contextlib.contextmanager
def server(settings: Settings) -> Iterator[tuple[str, dict[str, str], LearnerService]]:
    """The gateway of `serving.running` with its learner, behind a socket: address, keys, learner."""
    prepare(settings)
    learner = LearnerService(settings.model_dump(mode="json"), DEFAULT_NAME)
    started: dict[str, Any] = {}
    stop = threading.Event()

    async def run() -> None:
        async with serving.running(settings, learner) as live:
            web = uvicorn.Server(uvicorn.Config(live.parts.app, host="127.0.0.1", port=0, log_level="error"))
            serve = asyncio.create_task(web.serve())
            while not web.started:
                await asyncio.sleep(0.01)
            port = web.servers[0].sockets[0].getsockname()[1]
            started.update(url=f"http://127.0.0.1:{port}", keys=live.keys)
            while not stop.is_set():
                await asyncio.sleep(0.02)
            web.should_exit = True
            await serve
            await learner.stop()

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    while not started and thread.is_alive():
        time.sleep(0.02)
    try:
        yield started["url"], started["keys"], learner
    finally:
        stop.set()
        thread.join(30)


def small(home: Path, span_s: float = 4.0, window_s: float = 2.0) -> Settings:
    return Settings.model_validate(
        {"home": home, "budgets": {"drive_s": span_s + window_s}, "rewards": {"reward": {"window_s": window_s}}}
    )


def test_a_drive_against_the_real_server(tmp_path: Path) -> None:
    settings = small(tmp_path / "home")
    made, world, run = serving.version(), Shop(300), tmp_path / "run"
    run.mkdir()
    serving.publish(settings, made)
    with server(settings) as (url, keys, learner):
        stages = Stages(run / "drive.json")
        figures = Drive(run, settings, "linear", made, world).go(url, keys, stages)
        position = asyncio.run(learner.position())
    assert position["seq"] == 300  # every decision became an outcome that the learner has seen
    assert position["failure"] is None
    assert figures["decisions"] == 300
    assert figures["generated_weight"] == 0
    assert list(figures["policies"]) == POLICIES
    assert figures["policies"]["best_predefined"]["name"] == "linear"
    facts = json.loads((run / "drive.json").read_text())
    assert [timing["stage"] for timing in facts["timings"]] == ["traffic", "baselines"]
    assert facts["traffic"]["retries"] == 0
    assert sum(facts["weights"]["weights"][0]) == pytest.approx(1)
    rows = pq.read_table(run / "drive.parquet").to_pandas()
    assert len(rows) == 5 * 300
    for row in rows.itertuples():
        assert row.reward == world.reward(row.row, row.item)
        assert row.expected == world.mean_rewards(row.row, [row.item])[0]
    for policy, group in rows.groupby("policy"):
        assert sorted(group["row"]) == list(range(300))
        assert figures["policies"][policy]["reward_per_1000"] == pytest.approx(1000 * group["reward"].mean())
        assert figures["policies"][policy]["expected_per_1000"] == pytest.approx(1000 * group["expected"].mean())
    rewarded = (rows[rows.policy == "ensemble"].reward > 0).sum()
    assert rewarded - facts["traffic"]["rewards late"] <= facts["traffic"]["rewards sent"] <= rewarded
    assert (
        figures["policies"]["ensemble"]["expected_per_1000"] > 1.3 * figures["policies"]["uniform"]["expected_per_1000"]
    )
    paired = rows.pivot(index="row", columns="policy", values="reward")
    gain = 1000 * (paired["ensemble"] - paired["uniform"]).mean()
    assert figures["difference"]["uniform"]["reward_per_1000"] == pytest.approx(gain)


def test_slots_are_answered_rewarded_and_compared_one_by_one(tmp_path: Path) -> None:
    settings = small(tmp_path / "home", span_s=3.0).model_copy(update={"world": WorldSettings(slots=3)})
    made, run = serving.version(), tmp_path / "run"
    world = PositionBias(Shop(100), 0, (1.0, 0.5, 0.1), default=0.0)
    run.mkdir()
    serving.publish(settings, made)
    with server(settings) as (url, keys, learner):
        figures = Drive(run, settings, "linear", made, world).go(url, keys, Stages(run / "drive.json"))
        position = asyncio.run(learner.position())
    assert figures["decisions"] == 100
    assert (position["seq"], position["failure"]) == (300, None)  # every slot became an outcome
    facts = json.loads((run / "drive.json").read_text())
    assert (facts["slots"], facts["notes"][0][:38]) == (3, "Every decision filled up to 3 slots; r")
    rows = pq.read_table(run / "drive.parquet").to_pandas()
    assert rows.groupby("policy").size().tolist() == [300] * 5
    for row in rows.itertuples():
        assert row.reward == world.reward(row.row, row.item, row.position)
        assert row.expected == world.mean_rewards(row.row, [row.item], row.position)[0]
    assert (rows.groupby(["policy", "row"])["item"].nunique() == 3).all()
    assert (rows.groupby(["policy", "row"])["position"].apply(list).map(tuple) == (0, 1, 2)).all()
    means = rows[rows.policy == "uniform"].groupby("position")["expected"].mean()
    assert means[1] == pytest.approx(0.5 * means[0], rel=0.25)
    rewarded = (rows[rows.policy == "ensemble"].reward > 0).sum()
    assert rewarded - facts["traffic"]["rewards late"] <= facts["traffic"]["rewards sent"] <= rewarded


def test_a_client_without_a_key_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    drive = Drive(tmp_path, small(tmp_path), "linear", serving.version(), Shop(3))
    with pytest.raises(ConfigError, match="no API key of client 'shop'"):
        drive.go("http://127.0.0.1:9", {"other": "x"}, Stages(tmp_path / "drive.json"))
    assert not (tmp_path / "drive.json").exists()


def test_a_run_without_a_version_says_what_to_do(tmp_path: Path) -> None:
    settings = small(tmp_path)
    with pytest.raises(StateError, match=r"compose\.json: cannot be read .* compose a version first"):
        Drive.opened(tmp_path, tmp_path, settings)
    (tmp_path / "compose.json").write_text('{"version": 1, "timings": []}')
    with pytest.raises(StateError, match="no 'best_predefined'; the run was cut short"):
        Drive.opened(tmp_path, tmp_path, settings)
    (tmp_path / "keys.json").write_text("[]")
    with pytest.raises(StateError, match="expected an object, found list; again"):
        driving.read_json(tmp_path / "keys.json", "again")


def test_what_is_known_of_a_fitted_world_is_said_before_traffic(tmp_path: Path) -> None:
    data = serving.dataset(rows=900, seed=2)
    stages = Stages(None, Console(file=io.StringIO(), width=200))
    fitted = Delayed(RewardModel(data, np.arange(900), RewardKind(), 0), 0, 1.0, 1.5)
    found = Drive(tmp_path, small(tmp_path), "linear", serving.version(), fitted).judge_world(stages)
    assert found["world"]["words"] in stages.console.file.getvalue()
    few = RewardModel(data, np.arange(4), RewardKind(), 0)
    found = Drive(tmp_path, small(tmp_path), "linear", serving.version(), few).judge_world(stages)
    assert found["world"]["verdict"] == "none"
    assert "users are too few to leave any out" in found["world"]["words"]
    assert Drive(tmp_path, small(tmp_path), "linear", serving.version(), Shop(3)).judge_world(stages) == {}


def answer(row: int, models: dict[str, float], reward: float, mode: str = "live") -> Answer:
    return Answer(row, 0, "shop", "i0", 0.5, models, reward, float(row), 1, mode)


def test_the_last_line_by_hand() -> None:
    """Two users; the ensemble earns 1 and 0, the best predefined 0 and 0."""
    world = Shop(2)
    answers = [answer(0, {"linear": 0.25, "g": 0.75}, 1.0), answer(1, {"linear": 0.75, "g": 0.25}, 0.0)]
    policies = {
        "best_predefined": Played(["i1", "i1"], np.zeros(2), np.full(2, 0.1), np.full(2, 0.5)),
        "ensemble": Played(["i0", "i0"], np.array([1.0, 0.0]), np.full(2, 0.6), np.full(2, 0.5)),
    }
    found = Account(world, answers, policies, ["linear", "g"], ["g"], "linear").figures()
    line = account.last_line(found, 12.345)
    assert line["decisions"] == 2
    assert line["generated_weight"] == 0.5
    assert line["seconds"] == 12.3
    assert line["policies"]["ensemble"]["reward_per_1000"] == 500
    assert line["policies"]["best_predefined"] == {"name": "linear", "reward_per_1000": 0, "interval": [0, 0]}
    assert line["difference"]["best_predefined"]["reward_per_1000"] == 500
    assert set(line["difference"]) == {"best_predefined"}
    json.dumps(line, allow_nan=False)
    assert found["difference"]["best_predefined"]["expected_per_1000"] == pytest.approx(500)
    assert account.table(found).row_count == 2


def test_what_went_wrong_is_said() -> None:
    traffic = Traffic([answer(0, {}, 0.0, "baseline")], left_out=3, late=2, rejected=["unknown decision"])
    said = " ".join(account.notes(traffic))
    assert "the first 1 of 4 situations were asked" in said
    assert "2 rewards reached the server after their window" in said
    assert "1 rewards were refused, the first because: unknown decision" in said
    assert "1 decisions were answered with the caller's own choice" in said
    assert account.notes(Traffic()) == []
    harder = WorldSettings(drift="abrupt", non_responders=0.1, slots=2)
    said = "The world was made harder than the data says: drift abrupt, non responders 0.1."
    assert account.of_world(harder) == [said]
    assert account.of_world(WorldSettings(slots=2)) == []
