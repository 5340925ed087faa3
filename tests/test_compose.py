"""The job as it is started: its answer on the last line, one line for what it cannot do, and its exit code."""

import json
from pathlib import Path

import pytest
import yaml

from actors.bandits.version import Version
from cluster.registry import Registry
from cluster.session import Session, joining
from tests.compose_cases import PLAIN, quick, two_kinds
from tests.programs import Done, ended


def job(home: Path, *words: str, **environment: str) -> Done:
    return ended("tune.compose", *words, MEDLEY_HOME=str(home), **environment)


def refused(done: Done) -> str:
    """The one line on stderr of a job that exited with 1."""
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("compose: ")
    return line


@pytest.fixture
def data(tmp_path: Path) -> Path:
    two_kinds().save(tmp_path / "data")
    return tmp_path / "data"


@pytest.mark.ray
def test_the_job_on_ray_answers_on_its_last_line(ray_session: Session, home: Path, data: Path, tmp_path: Path) -> None:
    settings = quick(home, features=PLAIN, sweep={"batch": 6})
    values = settings.model_dump(mode="json", exclude={"home"}, exclude_unset=True)
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(values))
    words = ["--data", str(data), "--run", str(tmp_path / "new" / "run"), "--config", str(tmp_path / "settings.yaml")]
    done = job(home, *words, "--name", "shop", **joining(ray_session))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["version"], answer["name"], answer["admitted"]) == (1, "shop", True)
    version = Version.load(Registry(str(home / "registry")).fetch("shop"))
    assert version.ensemble.names[-1] == "generated"
    written = json.loads((tmp_path / "new" / "run" / "compose.json").read_text())
    assert answer.items() <= written.items()
    for stage in ("features", "select", "backbone", "head", "generate", "sweep", "confirm", "publish"):
        assert f"✓ {stage}: " in done.stderr
    assert list((home / "scratch").iterdir()) == []


def test_a_data_folder_that_is_not_there(home: Path, tmp_path: Path) -> None:
    line = refused(job(home, "--data", str(tmp_path / "nowhere")))
    assert f"{tmp_path / 'nowhere'}: no finished import here" in line
    assert "run `medley import` again" in line


def test_an_unknown_setting(home: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("generator: {hiden: 3}\n")
    line = refused(job(home, "--data", str(data), "--config", str(tmp_path / "settings.yaml")))
    assert "generator.hiden: unknown setting; did you mean 'hidden'?" in line


def test_a_home_that_cannot_be_written(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(job(tmp_path / "file" / "home", "--data", str(data)))
    assert f"{tmp_path / 'file' / 'home' / 'scratch'}: cannot be made" in line
    assert "set MEDLEY_HOME" in line


def test_a_run_folder_that_cannot_be_written(home: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(job(home, "--data", str(data), "--run", str(tmp_path / "file" / "run")))
    assert "cannot be written" in line
    assert "another --run" in line


@pytest.mark.ray
def test_a_registry_that_cannot_be_written(ray_session: Session, home: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "settings.yaml").write_text(f"registry: {tmp_path / 'file' / 'registry'}\n")
    words = ["--data", str(data), "--run", str(tmp_path / "run"), "--config", str(tmp_path / "settings.yaml")]
    line = refused(job(home, *words, **joining(ray_session)))
    assert f"registry {tmp_path / 'file' / 'registry'}: " in line
    assert "check that it exists, has room and can be written" in line
    assert json.loads((tmp_path / "run" / "compose.json").read_text()) == {"timings": []}
