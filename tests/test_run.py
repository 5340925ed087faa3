"""`medley run` from end to end on a small marketplace, killed where it hurts and started again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import config, ingress, running
from cluster.keys import opened
from cluster.registry import DEFAULT_NAME, Registry
from tests.programs import ROOT, ended
from tests.servers import free_port

pytestmark = [pytest.mark.cluster, pytest.mark.kills, pytest.mark.slow]

SETTINGS = """
serve: {{port: {port}}}
cluster: {{cpus: 2}}
data: {{marketplace_users: 300, marketplace_items: 40, marketplace_events: 4000}}
budgets: {{backbone_s: 2, head_s: 2, sweep_s: 4, confirm_s: 4, drive_s: 4}}
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path, int]]:
    """Home, settings file and port that the tests of this module share, one after the other."""
    folder = tmp_path_factory.mktemp("run")
    port = free_port()
    (folder / "settings.yaml").write_text(SETTINGS.format(port=port))
    yield folder / "home", folder / "settings.yaml", port
    running.stop(folder / "home")


@pytest.fixture
def start(ground: tuple[Path, Path, int], tmp_path: Path) -> Iterator[Start]:
    home, settings, _ = ground
    started: list[subprocess.Popen[str]] = []

    def run(*words: str) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "cluster.cli", "run", "--config", str(settings), *words]
        with (tmp_path / "stderr").open("a") as stderr:
            child = subprocess.Popen(
                [*command, "--report", str(tmp_path / "report.html")],
                cwd=ROOT,
                env={**os.environ, "MEDLEY_HOME": str(home), "COLUMNS": "200"},
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.wait()


def wait_for(child: "subprocess.Popen[str]", home: Path, stage: str, log: Path, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while (running.alive(home) or {}).get("stage") != stage:
        assert child.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def listening() -> list[tuple[str, int, str]]:
    """(address, port, program) of what our descendants and the ingress listen on."""
    return [
        (c.laddr[0].removeprefix("::ffff:"), c.laddr[1], psutil.Process(c.pid).name())
        for c in psutil.net_connections("tcp")
        if c.status == psutil.CONN_LISTEN and c.laddr and c.pid
    ]


def versions(home: Path) -> list[int]:
    return Registry(str(home / "registry")).versions(DEFAULT_NAME)


def test_a_kill_while_composing_leaves_no_version(ground: tuple[Path, Path, int], start: Start, tmp_path: Path) -> None:
    home, _, _ = ground
    child = start()
    wait_for(child, home, "tune.compose", tmp_path / "stderr")
    time.sleep(2)
    child.kill()
    child.wait()
    assert versions(home) == []
    assert len(list((home / "data").iterdir())) == 1


def test_the_next_run_starts_clean_serves_and_its_curl_line_works(
    ground: tuple[Path, Path, int], start: Start, tmp_path: Path
) -> None:
    home, _, port = ground
    child = start()
    wait_for(child, home, "serving", tmp_path / "stderr")
    log = (tmp_path / "stderr").read_text()
    assert "is there already" in log  # the import of the killed run
    assert versions(home) == [1]
    assert child.stdout is not None
    curl = next(line for line in child.stdout if line.startswith("curl "))
    answer = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=30)
    slots = json.loads(answer.stdout)["decisions"][0]["slots"]
    assert 0 < slots[0]["propensity"] <= 1
    address = {where for where, number, _ in listening() if number == port}
    assert address == {"127.0.0.1"}
    status = ended("cluster.cli", "status", "--json", MEDLEY_HOME=str(home))
    facts = json.loads(status.stdout)
    assert (facts["run"]["stage"], facts["versions"]) == ("serving", [1])
    assert facts["server"]["status"] == 200
    assert (tmp_path / "report.html").read_text().startswith("<!")
    key = re.search(r"Bearer (\S+?)'", curl)
    assert key is not None
    (home / "key").write_text(key[1])
    child.send_signal(signal.SIGKILL)
    child.wait()


def test_after_a_kill_while_serving_the_ingress_is_ended_and_the_version_used_again(
    ground: tuple[Path, Path, int], start: Start, tmp_path: Path
) -> None:
    home, settings, port = ground
    left = ingress.running(home)
    if sys.platform == "linux":
        assert left  # HAProxy outlives its Ray
    child = start("--once", "--json", "--reuse-version")
    out, _ = child.communicate(timeout=300)
    log = (tmp_path / "stderr").read_text()
    assert child.returncode == 0, log
    assert "was cut short; starting clean" in log
    assert "version 1 of an earlier run is used again" in log
    figures: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert {"uniform", "best_predefined", "ensemble"} <= set(figures["policies"])
    for policy in figures["policies"].values():
        low, high = policy["interval"]
        assert low <= policy["reward_per_1000"] <= high
    assert figures["decisions"] > 0
    assert 0 <= figures["generated_weight"] <= 1
    assert versions(home) == [1]
    assert not any(one.alive() for one in left)
    assert ingress.running(home) == []
    assert not [number for _, number, _ in listening() if number == port]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDLEY_HOME", str(home))
        with opened(config.load(settings)) as keys:
            assert keys.verify((home / "key").read_text()) is None
            assert len(keys.ring()) == 0
