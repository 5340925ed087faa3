"""Stages are written as they end, so that a job that dies leaves what it finished."""

import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from cluster.errors import StateError
from tune.stages import Stages

ROOT = Path(__file__).parents[1]


def read(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


def names(path: Path) -> list[str]:
    return [row["stage"] for row in read(path)["timings"]]  # type: ignore[attr-defined]


def test_the_file_grows_stage_by_stage(tmp_path: Path) -> None:
    path, said = tmp_path / "new" / "compose.json", io.StringIO()
    stages = Stages(path, Console(file=said, width=300))
    stages.write()
    assert read(path) == {"timings": []}
    with stages.stage("features"):
        assert names(path) == []
    stages.write(data={"events": 3})
    with stages.stage("head", budget_s=60) as stage:
        assert names(path) == ["features"]
        assert 59 < stage.left_s <= 60
        stage.progress(1, 2)
        stage.left_out = "7 of [9] tasks left out"
    assert names(path) == ["features", "head"]
    timing = read(path)["timings"][1]  # type: ignore[index]
    assert (timing["budget_s"], timing["left_out"]) == (60, "7 of [9] tasks left out")
    assert 0 <= timing["seconds"] < 60
    assert read(path)["data"] == {"events": 3}
    assert "✓ head: 0.0 s of 60 s; 7 of [9] tasks left out" in said.getvalue()
    assert list(path.parent.iterdir()) == [path]


def test_without_a_budget_there_is_time_and_without_a_path_no_file() -> None:
    stages = Stages(None, Console(file=io.StringIO()))
    with stages.stage("features") as stage:
        assert stage.left_s == float("inf")
    assert [row["stage"] for row in stages.facts["timings"]] == ["features"]


def test_a_stage_that_fails_leaves_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "compose.json"
    stages = Stages(path, Console(file=io.StringIO()))
    with stages.stage("one"):
        pass
    with pytest.raises(ValueError, match="no"), stages.stage("two"):
        raise ValueError("no")
    assert names(path) == ["one"]


def test_a_killed_stage_leaves_the_earlier_ones(tmp_path: Path) -> None:
    path = tmp_path / "compose.json"
    program = (
        "import os, signal, sys; from pathlib import Path; from tune.stages import Stages\n"
        "stages = Stages(Path(sys.argv[1]))\n"
        "with stages.stage('one'): pass\n"
        "stages.write(data=1)\n"
        "with stages.stage('two'): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert names(path) == ["one"]
    assert read(path)["data"] == 1
    assert "✓ one" in done.stderr
    assert done.stdout == ""


def test_a_warning_is_told_as_it_is(tmp_path: Path) -> None:
    said = io.StringIO()
    Stages(None, Console(file=said, width=20)).warn("no generated member: [red]torch[/] said no, in many words")
    assert said.getvalue() == "! no generated member: [red]torch[/] said no, in many words\n"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match=r"file/compose\.json: cannot be written .*another --run"):
        Stages(tmp_path / "file" / "compose.json").write()
