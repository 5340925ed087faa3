"""The console command as a user meets it: a process of its own, its streams and its exit code."""

import io
import json
import os
import socket
import subprocess
import time
import uuid
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster import cli, config, parts
from cluster.keys import opened
from cluster.records import Dataset
from tests.compose_cases import two_kinds
from tests.programs import Done, ended


def program(*words: str) -> Done:
    """`medley` as a process of its own."""
    return ended("cluster.cli", *words, COLUMNS="200")


def medley(*words: str, **environment: str) -> Done:
    """The same in this process, which spares the imports."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in {"COLUMNS": "200", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
    return subprocess.CompletedProcess(words, ended.value.code or 0, out.getvalue(), err.getvalue())


def fails(done: "subprocess.CompletedProcess[str]", *parts: str) -> None:
    """Exit code 1, and one line that says all of these."""
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    for part in parts:
        assert part in lines[0]


def write_table(folder: Path, **columns: object) -> Path:
    rng = np.random.default_rng(0)
    n = 60
    base = {"size": rng.normal(size=n), "colour": rng.choice(["red", "blue"], n).tolist()}
    base |= {"label": rng.choice(["yes", "no"], n).tolist()}
    path = folder / "table.parquet"
    pq.write_table(pa.table(base | columns), path)
    return path


def test_without_a_command_it_explains_itself() -> None:
    done = program("--help")
    assert done.returncode == 0
    commands = "run import compose tune what-if explain serve submit status stop config client key"
    assert all(f" {command} " in done.stdout for command in commands.split())
    assert program("dance").returncode == 2


def test_config_prints_settings_that_it_reads_back(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("seed: 5\nlaw: {epsilon: 0.02}\n")
    printed = medley("config", "--config", str(path))
    assert "# share of uniform choices" in printed.stdout
    (tmp_path / "again.yaml").write_text(printed.stdout)
    assert config.load(tmp_path / "again.yaml") == config.load(path)
    values = json.loads(medley("config", "--json", "--config", str(path)).stdout)
    assert (values["seed"], values["law"]["epsilon"]) == (5, 0.02)


def test_a_wrong_setting_is_one_line(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("law: {epsilonn: 0.02}\n")
    fails(program("config", "--config", str(path)), "law.epsilonn", "did you mean 'epsilon'", "settings.yaml")


def test_an_import_is_written_or_only_checked(home: Path, tmp_path: Path) -> None:
    path = write_table(tmp_path)
    words = ["import", "--format", "table", "--data", str(path), "--name", "mine"]
    checked = json.loads(medley(*words, "--check", "--json").stdout)
    assert (checked["events"], checked["folder"]) == (60, None)
    assert checked["roles"]["label"] == "label"
    assert not home.exists()
    done = json.loads(medley(*words, "--json").stdout)
    assert done["folder"] == str(home / "data" / "mine")
    assert Dataset.load(home / "data" / "mine").events.num_rows == 60
    shown = medley(*words, "--check")
    assert "nothing was written (--check)" in shown.stdout
    few = tmp_path / "few.yaml"
    few.write_text("data: {max_events: 50}\n")
    told = medley(*words, "--check", "--config", str(few)).stdout
    assert "10 rows left out at random (max_events)" in told


def test_an_import_that_cannot_be_is_one_line(home: Path, tmp_path: Path) -> None:
    path = str(write_table(tmp_path))
    fails(medley("import", "--format", "tabel", "--data", path), "--format tabel", "transactions")
    fails(medley("import", "--format", "table"), "--data PATH")
    fails(medley("import", "--format", "table", "--data", "/nowhere.csv"), "/nowhere.csv", "no such file")
    fails(medley("import", "--format", "table", "--data", path, "--map", "label"), "--map label", "ours=theirs")
    fails(medley("import", "--format", "table", "--data", path, "--exclude", "colr"), "colr", "colour")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing more")
    broken = str(tmp_path / "broken.parquet")
    fails(medley("import", "--format", "table", "--data", broken), "broken.parquet")


def test_clients_and_keys(home: Path) -> None:
    fails(medley("key", "create", "shop"), "no client 'shop'", "medley client add shop")
    assert json.loads(medley("client", "add", "shop", "--json").stdout) == {"client_id": "shop", "new": True}
    assert json.loads(medley("client", "add", "shop", "--json").stdout)["new"] is False
    plain = medley("key", "create", "shop").stdout.strip()
    operator = json.loads(medley("key", "create", "--operator", "--json").stdout)["key"]
    assert medley("key", "create").returncode == 2
    rotated = medley("key", "rotate", plain.split("_")[1]).stdout.strip()
    assert medley("key", "revoke", operator).returncode == 0
    limited = medley("key", "limit", rotated, "--rate", "50", "--body", "65536").stdout
    assert "rate_per_s=50  max_body_bytes=65536" in limited
    with opened(config.load()) as keys:
        assert keys.verify(plain) is None
        assert keys.verify(operator) is None
        found = keys.verify(rotated)
        assert found is not None
        assert found.client_id == "shop"
    assert medley("client", "mode", "shop", "apprentice").returncode == 0
    assert medley("client", "mode", "shop", "asleep").returncode == 2
    fails(medley("client", "mode", "nobody", "off"), "no client 'nobody'")
    shop = {"client_id": "shop", "mode": "apprentice", "version": None, "agreement": None}
    assert json.loads(medley("client", "list", "--json").stdout) == {"clients": [shop]}
    listed = medley("key", "list", "--json").stdout
    assert len(json.loads(listed)["keys"]) == 3
    assert rotated[24:] not in listed


def test_status_and_stop_where_nothing_runs(home: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = home.parent / "settings.yaml"
    path.write_text(f"serve: {{port: {port}}}\n")
    facts = json.loads(medley("status", "--json", "--config", str(path)).stdout)
    assert (facts["run"], facts["versions"], facts["clients"]) == (None, [], [])
    assert "does not answer" in facts["server"]["error"]
    assert "nothing" in medley("status", "--config", str(path)).stdout
    assert "nothing was running" in medley("stop").stdout


def test_no_disk_no_database_no_import_no_version(home: Path, tmp_path: Path) -> None:
    fails(medley("client", "list", MEDLEY_HOME="/proc/nowhere"), "home /proc/nowhere", "set MEDLEY_HOME")
    fails(medley("run", MEDLEY_HOME="/proc/nowhere"), "home /proc/nowhere", "set MEDLEY_HOME")
    gone = "postgresql+psycopg://medley:secret@127.0.0.1:1/medley"
    done = medley("client", "list", MEDLEY_DATABASE_URL=gone)
    fails(done, "127.0.0.1:1", "MEDLEY_DATABASE_URL")
    assert "secret" not in done.stderr
    fails(medley("compose", "--data", "nothing"), "--data nothing", "no finished import")
    fails(medley("tune", "--data", "nothing"), "--data nothing", "no finished import")
    fails(medley("serve"), "no version", "medley compose")


def test_tune_refuses_before_it_starts_ray(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*given: object) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(parts, "start_ray", started)
    two_kinds(users=20).save(tmp_path / "data")
    words = ["tune", "--data", str(tmp_path / "data")]
    for more, *said in (
        (["--set", "law.dleta=0.1"], "law.dleta: unknown setting", "did you mean 'delta'"),
        (["--set", "law.delta=uniform(0, 2)"], "law.delta = 2.0"),
        (["--set", "law.exploration_scale=uniform(0, inf)"], "has no end"),
        (["--set", "law.particles=int(16, 1e12)"], "too large"),
        (["--space", str(tmp_path / "none.yaml")], "none.yaml: cannot read"),
        (["--name", "../evil"], "--name '../evil'"),
    ):
        done = medley(*words, *more)
        fails(done, *said)
        assert "usage" not in done.stderr
    for more in (["--search", "sideways"], ["--by", "guess"], ["--trials", "0"], ["--trials", "-3"]):
        done = medley(*words, *more)
        assert done.returncode == 2
        assert more[0] in done.stderr
        assert "tune.sweep" not in done.stderr
    assert not (home / "runs").exists()


def test_run_refuses_a_taken_port_before_it_starts_anything(home: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        path = tmp_path / "settings.yaml"
        path.write_text(f"serve: {{port: {port}}}\n")
        start = time.monotonic()
        done = program("run", "--once", "--config", str(path))
        fails(done, f"port {port} is in use by", f"pid {os.getpid()}", "serve.port")
        assert time.monotonic() - start < 20
    assert not list((home / "runs").glob("*"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_one_line(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of the quarantine, written aside, is a device that is always full."""
    path, known = write_table(tmp_path), uuid.UUID(int=7)
    monkeypatch.setattr(uuid, "uuid4", lambda: known)
    aside = home / "data" / f".mine.{known.hex}"
    aside.mkdir(parents=True)
    (aside / "quarantine.parquet").symlink_to("/dev/full")
    fails(medley("import", "--format", "table", "--data", str(path), "--name", "mine"), "No space left")
    assert list((home / "data").iterdir()) == []
