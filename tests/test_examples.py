"""The commands of examples/imports.md do what they say."""

import os
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app

TEXT = (Path(__file__).parent.parent / "examples" / "imports.md").read_text()
COMMANDS = [line for block in re.findall(r"```\n(.*?)```", TEXT, re.S) for line in block.splitlines()]


def test_there_is_one_for_every_format() -> None:
    formats = {shlex.split(command)[3] for command in COMMANDS}
    assert formats == {"native", "open-bandit", "table", "transactions", "marketplace"}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.split()[3:6]))
def test_it_imports(command: str, tmp_path, monkeypatch) -> None:
    if "MEDLEY_DATA" in command and "MEDLEY_DATA" not in os.environ:
        pytest.skip("set MEDLEY_DATA to the folder of real data")
    (tmp_path / "events.csv").write_text("time,user,item,purchased,internal_note\n2025-01-01T10:00,u,a,1,x\n")
    (tmp_path / "items.csv").write_text("item,title\na,Lamp\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDLEY_HOME", str(tmp_path / "home"))
    words = shlex.split(os.path.expandvars(command))
    result = CliRunner().invoke(app, [*words[1:], "--json"])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "home" / "data").glob("*/dataset.json"))) == 1
