"""The job as it is started: its answer, what it leaves in its folder, going on after a kill, what it refuses."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from cluster import config
from cluster.config import changed
from cluster.errors import ConfigError, StateError
from cluster.records import Dataset
from cluster.session import Session, joining
from tests.compose_cases import quick, two_kinds
from tests.programs import ROOT, Done, ended
from tests.servers import free_port, ray_head
from tune.sweeps.request import Request
from tune.sweeps.sweeper import Sweeper
from tune.sweeps.trials import Trials, situations


@pytest.fixture
def data(tmp_path: Path) -> Path:
    two_kinds(users=120).save(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def settings(home: Path, tmp_path: Path) -> Path:
    values = quick(home, tune={"events": 200}).model_dump(mode="json", exclude={"home"}, exclude_unset=True)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "settings.yaml"


def command(data: Path, settings: Path, *words: str) -> list[str]:
    return ["tune.sweep", "--data", str(data), "--config", str(settings), *words]


def job(data: Path, settings: Path, *words: str, **environment: str) -> Done:
    return ended(*command(data, settings, *words), **environment)


def answer(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.ray
def test_a_grid_its_table_and_the_best_settings(ray_session: Session, home: Path, data: Path, settings: Path) -> None:
    words = ["--set", "law.exploration_scale=0.3,1", "--set", "bandits.custom=[],['nowhere:Model']"]
    words += ["--search", "grid", "--by", "world", "--name", "one"]
    done = job(data, settings, *words, **joining(ray_session))
    found, folder = answer(done), home / "sweeps" / "one"
    assert (found["trials"], found["done"], found["failed"], found["left_out"]) == (4, 2, 2, 0)
    assert "own model 'nowhere:Model'" in found["rows"][-1]["error"]
    assert "Sweep one" in done.stderr
    table = pq.read_table(folder / "trials.parquet")
    rows = table.to_pylist()
    assert sorted(row["trial"] for row in rows[:4]) == [0, 1, 2, 3]
    base, dataset = config.load(settings), Dataset.load(data)
    here = Trials(dataset, base, "world", situations(dataset, base))
    for row in [*rows[:2], rows[-1]]:  # the last is that of the settings as configured
        (score,) = here.score({"law.exploration_scale": row["law.exploration_scale"]})
        assert row["value"] == score.value
    assert rows[0]["value"] >= rows[1]["value"]
    best = config.load(folder / "best.yaml")
    assert best == changed(base, found["best"]["settings"])
    assert (folder / "trials.png").stat().st_size > 10_000
    again = job(data, settings, *words, **joining(ray_session))
    assert answer(again) == found
    assert pq.read_table(folder / "trials.parquet") == table


@pytest.mark.ray
def test_adaptive_search_says_that_it_does_not_repeat_and_loses_no_trial(
    ray_session: Session, data: Path, settings: Path
) -> None:
    words = ["--set", "law.exploration_scale=log(0.1, 3)", "--set", "bandits.prior_strength=0.1,1"]
    words += ["--by", "world", "--search", "optuna", "--asha", "--trials", "8"]
    done = job(data, settings, *words, **joining(ray_session))
    found = answer(done)
    assert found["repeats"] is False
    assert "the same seed may give another table" in done.stderr
    assert found["done"] + found["stopped"] == 8
    assert found["done"] >= 1
    for row in found["rows"]:
        assert 0.1 <= row["settings"]["law.exploration_scale"] <= 3
        assert row["settings"]["bandits.prior_strength"] in (0.1, 1)


def test_what_the_job_cannot_read_is_one_line(home: Path, settings: Path) -> None:
    done = job(home / "nowhere", settings)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("sweep: ")
    assert "no finished import here" in line


def test_one_folder_is_one_question_and_one_process(home: Path) -> None:
    dataset, base = two_kinds(users=120), quick(home)
    one, other = (
        Sweeper.of(dataset, base, Request({"law.delta": values}, "grid")) for values in ([0.1, 0.2], [0.1, 0.3])
    )
    with one.taken(None) as own, other.taken(None) as another:
        assert own != another
        assert own.name.startswith("feedback-")
    with one.taken(None) as again:
        assert again == own
    with one.taken("mine"), pytest.raises(StateError, match="another sweep is at work there"), one.taken("mine"):
        pass
    message = r"'mine' was begun with other space \(space: law.delta '0.1, 0.2' then, '0.1, 0.3' now\); .*--name"
    with pytest.raises(ConfigError, match=message), other.taken("mine"):
        pass
    warmer = Sweeper.of(dataset, changed(base, {"law.floor": 0.5}), Request({"law.delta": [0.1, 0.2]}, "grid"))
    with pytest.raises(ConfigError, match=r"other settings .*floor 0\.1 then, 0\.5 now"), warmer.taken("mine"):
        pass


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request({"law.dleta": [0.1]}), "law.dleta: unknown setting; did you mean 'delta'"),
        (Request({}, asha=True), "a replay says so at its end only"),
        (Request({"law.delta": [0.1, 0.2]}, "grid", trials=1), "grid has 2 points, more than 1 trials"),
        (Request({}, trials=0), "--trials 0: a sweep has at least 1 trial"),
        (Request({}, trials=-3), "--trials -3: a sweep has at least 1 trial"),
        (Request({}, trials=10**12), "at most 100,000"),
        (Request({}, "grid"), "a grid needs listed values"),
        (Request({"sweep.top_k": [1], "features.levels": [3]}, "optuna"), "leave features.* or the generated member's"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(home: Path, request_: Request, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Sweeper.of(two_kinds(users=120), quick(home), request_)


@pytest.mark.parametrize("name", ["../evil", "a/b", "/tmp/evil", "a/", "..", ".", "", "a\\b", "a\nb", "a" * 300])
def test_a_name_is_one_folder_under_sweeps(home: Path, name: str) -> None:
    sweeper = Sweeper.of(two_kinds(users=120), quick(home), Request({"law.delta": [0.1]}))
    with pytest.raises(ConfigError, match="--name"), sweeper.taken(name):
        pass
    assert not (home / "sweeps").exists() or not list((home / "sweeps").iterdir())
    assert not (home / "evil").exists()


def test_a_check_reads_no_data_and_needs_no_ray(home: Path, settings: Path) -> None:
    nowhere = home / "nowhere"
    good = job(nowhere, settings, "--check", "--set", "law.delta=uniform(0, 0.3)", "--name", "mine")
    assert (good.returncode, good.stdout, good.stderr) == (0, "", "")
    assert not (home / "sweeps").exists()
    for words in (["--set", "law.dleta=1"], ["--trials", "0"], ["--name", "../evil"], ["--space", str(nowhere)]):
        done = job(nowhere, settings, "--check", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("sweep: ")
    told = "import sys, tune.sweep; tune.sweep.main(); assert 'ray' not in sys.modules, 'imported'"
    words = ["--data", str(nowhere), "--config", str(settings), "--check"]
    subprocess.run([sys.executable, "-c", told, *words], cwd=ROOT, check=True, timeout=60)


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head node that outlives the driver; its address host:port."""
    port = free_port()
    words = (f"--port={port}", "--include-dashboard=false", "--node-ip-address=127.0.0.1")
    with ray_head(tmp_path_factory.mktemp("head"), *words):
        yield f"127.0.0.1:{port}"


def trials_ended(folder: Path) -> int:
    """Trials that have reported."""
    return sum(path.stat().st_size > 0 for path in folder.glob("trials/Trial_*/result.json"))


def until(folder: Path, trials: int, driver: "subprocess.Popen[str]", log: Path) -> None:
    deadline = time.monotonic() + 120
    while trials_ended(folder) < trials:
        assert driver.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def worker_of(driver: "subprocess.Popen[str]") -> psutil.Process:
    """A worker that runs trials; between two trials there may be none for a moment."""
    while driver.poll() is None:
        for one in psutil.process_iter(["cmdline"]):
            if "ray::ResourceTrainable" in " ".join(one.info["cmdline"] or ()):
                return one
        time.sleep(0.05)
    raise AssertionError("the sweep ended before a worker was found")


@pytest.mark.kills
@pytest.mark.slow
def test_killed_workers_and_a_killed_driver_change_nothing(
    head: str, home: Path, data: Path, settings: Path, tmp_path: Path
) -> None:
    space = ["law.delta=0,0.1,0.2,0.3", "bandits.prior_strength=0.03,0.1,0.3,1", "law.exploration_scale=0.1,0.3,1,3"]
    words = ["--search", "grid", "--by", "world", *(word for one in space for word in ("--set", one))]
    quiet = answer(job(data, settings, *words, "--name", "quiet", RAY_ADDRESS=head))
    folder, log = home / "sweeps" / "killed", tmp_path / "stderr"
    with log.open("w") as stderr:
        driver = subprocess.Popen(
            [sys.executable, "-m", *command(data, settings, *words, "--name", "killed")],
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": head},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    until(folder, 8, driver, log)
    worker_of(driver).kill()
    until(folder, 30, driver, log)
    driver.kill()
    driver.wait()
    before = trials_ended(folder)
    assert 30 <= before < 64
    assert not (folder / "trials.parquet").exists()
    found = answer(job(data, settings, *words, "--name", "killed", RAY_ADDRESS=head))
    assert (found["done"], found["failed"], found["left_out"]) == (64, 0, 0)
    one, other = (pq.read_table(home / "sweeps" / name / "trials.parquet") for name in ("quiet", "killed"))
    assert one.num_rows == 65
    assert one == other
    assert len(list(folder.glob("trials/Trial_*"))) < 64 + before, "begun again, every trial would be there anew"
    assert found["best"] == quiet["best"]
