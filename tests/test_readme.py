"""What the README tells a newcomer to type is there, and does what it says."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cluster.cli import app
from cluster.records import EVENTS, ITEMS, USERS
from serve.messages import Decisions, Rewards

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LINES = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.S)
    for line in block.splitlines()
]
RUNS = [line for line in LINES if line.startswith("medley run")]
REAL = {
    "adult.parquet": "classification/adult.parquet",
    "lines.parquet": "online_retail/transactions.parquet",
    "random_men.parquet": "open_bandit/random_men.parquet",
}


def commands() -> dict[str, Any]:
    group: Any = typer.main.get_command(app)
    return dict(group.commands)


@pytest.mark.parametrize("line", RUNS)
def test_a_run_reads_such_data(line: str, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The import of each `medley run`, with `--check`: real tables stand for the reader's own."""
    (tmp_path / "events.parquet").write_bytes(b"")
    (tmp_path / "events.csv").write_text("time,user,ad,clicked\n2025-01-01T10:00,u,a,1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDLEY_HOME", str(tmp_path / "home"))
    words = shlex.split(line)[2:]
    known = {option for parameter in commands()["run"].params for option in parameter.opts}
    assert known >= {word for word in words if word.startswith("--")}
    words = [str(data_folder / REAL[w]) if w in REAL else w.replace("events.parquet", "events.csv") for w in words]
    words.remove("--once")
    found = CliRunner().invoke(app, ["import", "--check", "--json", *words])
    assert found.exit_code == 0, found.output


def test_every_command_of_the_table_is_there() -> None:
    rows = re.findall(r"^\| (`medley.*?) \|", README, re.M)
    named = {
        words[1]
        for row in rows
        for quoted in re.findall(r"`(.*?)`", row)
        if (words := quoted.split())[:1] == ["medley"]
    }
    assert len(named) > 8
    assert named <= set(commands())


def test_make_targets_and_modules_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in LINES:
        words = line.split()
        if words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", makefile, re.M), line
        if words[:2] == ["python", "-m"]:
            assert (ROOT / (words[2].replace(".", "/") + ".py")).exists(), line


def test_the_two_calls_are_what_the_service_reads() -> None:
    bodies = dict(re.findall(r"^POST /v1/(\w+) +(\{.*\})$", README, re.M))
    assert Decisions.model_validate_json(bodies["decisions"]).requests[0].items == ["i1", "i2", "i3"]
    assert Rewards.model_validate(json.loads(bodies["rewards"])).rewards[0].value == 1.0


@pytest.mark.parametrize(("table", "schema"), [("events", EVENTS), ("items", ITEMS), ("users", USERS)])
def test_the_columns_are_those_of_the_schemas(table: str, schema: object) -> None:
    row = re.search(rf"^\| {table} \| (.*) \|$", README, re.M)
    assert row is not None
    assert row.group(1).split(", ") == schema.names  # type: ignore[attr-defined]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target
