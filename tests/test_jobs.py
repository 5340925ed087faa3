"""Ray jobs on a cluster started with `ray start --head`, with token authentication on."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.config import Settings
from cluster.errors import JobError
from cluster.jobs import Jobs
from tests.programs import ROOT, Done, ended
from tests.servers import free_port, ray_head

pytestmark = [pytest.mark.cluster, pytest.mark.kills]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A head node with a job server; its address http://127.0.0.1:port."""
    folder, port = tmp_path_factory.mktemp("head"), free_port()
    with ray_head(folder, f"--port={free_port()}", f"--dashboard-port={port}", MEDLEY_HOME=str(folder / "home")):
        yield f"http://127.0.0.1:{port}"


def medley(address: str, *words: str, **environment: str) -> Done:
    return ended("cluster.cli", *words, RAY_API_SERVER_ADDRESS=address, **environment)


def test_the_log_follows_and_the_exit_code_is_the_jobs(head: str, home: Path) -> None:
    done = medley(head, "submit", "compose", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: tune.compose" in done.stdout
    assert "--data DATA" in done.stdout
    failed = medley(head, "submit", "compose", "--data", "/nowhere")
    assert failed.returncode == 1
    assert "compose: /nowhere: no finished import here" in failed.stdout


def test_rays_own_command_starts_the_same_job(head: str) -> None:
    ray = str(Path(sys.executable).parent / "ray")
    words = ["job", "submit", "--working-dir", ".", "--", "python", "-m", "tune.compose", "--data", "/nowhere"]
    done = subprocess.run(
        [ray, *words],
        cwd=ROOT,
        env={**os.environ, "RAY_API_SERVER_ADDRESS": head},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 1
    assert "compose: /nowhere: no finished import here" in done.stdout + done.stderr


def test_a_job_is_watched_and_stopped(head: str, settings: Settings) -> None:
    jobs = Jobs(settings, head)
    client = jobs._client
    job = client.submit_job(entrypoint="echo started; sleep 60")
    deadline = time.monotonic() + 60
    while jobs.status(job) != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert jobs.status(job) == "RUNNING"
    assert jobs.stop(job) == "STOPPED"
    assert jobs.exit_code(job) != 0
    odd = client.submit_job(entrypoint="echo one; sleep 1; echo two; exit 7")
    log: list[str] = []
    assert jobs.follow(odd, log.append) == 7
    lines = "".join(log).splitlines()
    assert (lines.count("one"), lines.count("two"), lines[-1]) == (1, 1, "two")


def test_what_is_not_there_is_named(head: str, settings: Settings) -> None:
    jobs = Jobs(settings, head)
    with pytest.raises(JobError, match="no job 'dance'; there are compose"):
        jobs.submit("dance", [])
    with pytest.raises(JobError, match=r"job 'none'.*does not exist"):
        jobs.status("none")


def test_without_the_token_nothing_is_taken(head: str, home: Path) -> None:
    refused = medley(head, "submit", "compose", "--help", RAY_AUTH_TOKEN="0" * 64)
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: ")
    assert "token" in refused.stderr.lower()


def test_without_a_job_server_one_line_says_how_to_start_one(home: Path) -> None:
    refused = medley("http://127.0.0.1:1", "submit", "compose", "--help")
    assert refused.returncode == 1
    assert "no job server at" in refused.stderr
    assert "ray start --head" in refused.stderr
