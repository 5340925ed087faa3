"""`medley what-if` as it is typed: its table, plot, Parquet and JSON line, and one line for what it cannot do."""

import json
import math
import os
from pathlib import Path
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.errors import StateError
from tests.compose_cases import two_kinds
from tests.programs import ROOT, Done, ended
from tune import what_if
from tune.whatif import forest
from tune.whatif.answers import Answer, Bounds
from tune.whatif.counterfactual import Answers, Question
from tune.whatif.output import decimals, facts, heading, notes, table

OWN = """
class Mine:
    def probabilities(self, context, items, user_id):
        return [1.0 if item == "red1" else 0.0 for item in items]
"""


def medley(home: Path, folder: Path, *words: str) -> Done:
    """In a folder of the user's own, outside the repository."""
    environment = {"MEDLEY_HOME": str(home), "COLUMNS": "140", "PYTHONPATH": str(ROOT)}
    return ended("cluster.cli", "what-if", *words, folder=folder, **environment)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The user's: a policy of their own, and a file with the name of a package of ours."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.py").write_text(OWN)
    (tmp_path / "shop" / "tune.py").write_text("raise RuntimeError('this is not Medley')\n")
    return tmp_path / "shop"


def test_an_import_is_asked_by_name(home: Path, folder: Path) -> None:
    two_kinds(users=60, rows=5).save(home / "data" / "lamps")
    words = ["--data", "lamps", "--policy", "mine:Mine", "--policy", "item:red1", "--estimator", "snips"]
    done = medley(home, folder, *words, "--json", "--plot", "forest.svg", "--table", "answers.parquet")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    mine, item = told["rows"]
    assert (mine["policy"], item["policy"], told["events"], told["alpha"]) == ("mine:Mine", "item:red1", 300, 0.05)
    assert {**mine, "policy": ""} == {**item, "policy": ""}
    assert "What if: 300 events of 60 users (all rows), 95 % bootstrap intervals by user" in done.stderr
    for text in ("mine:Mine", "item:red1", "on-policy", "less the log's", f"{mine['value']:.2f}"):
        assert text in done.stderr
    assert pq.read_table(folder / "answers.parquet")["policy"].to_pylist() == ["logged", "mine:Mine", "item:red1"]
    texts = "".join(ElementTree.parse(folder / "forest.svg").getroot().itertext())
    assert all(text in texts for text in ("mine:Mine", "item:red1", "snips", "the log itself"))


def test_files_are_read_as_an_import_reads_them(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    events = two_kinds(users=40, rows=5).events.select(["timestamp", "item_id", "reward", "propensity", "user_id"])
    pq.write_table(events.rename_columns(["when", "item_id", "reward", "propensity", "who"]), folder / "log.parquet")
    words = ["--data", "log.parquet", "--map", "timestamp=when", "--map", "user_id=who", "--policy", "uniform"]
    assert what_if.main([*words, "--plot", "what_if.png"]) == 0
    assert "What if: 200 events of 40 users" in capsys.readouterr().out
    assert (folder / "what_if.png").read_bytes().startswith(b"\x89PNG")
    assert list((home / "data").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--policy", "uniform"], "what-if: --data: name an import"),
        (["--policy", "uniform", "--data", "none"], "what-if: --data none: no finished import there or under"),
        (["--policy", "tests:Yours", "--data", "lamps"], "module 'tests' has no attribute 'Yours'"),
        (["--policy", "uniform", "--data", "lamps", "--map", "a=b"], "--data lamps is imported already"),
        (["--policy", "uniform", "--data", "lamps", "--alpha", "5"], "what-if: --alpha 5: an error rate is above 0"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    home: Path, words: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    two_kinds(users=10, rows=5).save(home / "data" / "lamps")
    assert what_if.main(words) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert [fault in line for line in told.err.splitlines()] == [True]


def row(policy: str, estimator: str, value: float, note: str = "", group: str = "") -> Answer:
    bounds = (value, value - 0.0123, value + 0.0123)
    return Answer(policy, estimator, group, False, *bounds, *bounds, 900, 90, 800.0, 0.02, 0.0, None, not note, note)


NO = Answer("c", "ips", "", True, *[math.nan] * 6, 900, 90, 0.0, 0.0, 1.0, None, False, "no support: none of 900")
ANSWERS = Answers(900, 0, [row("logged", "on-policy", 0.25)], [row("a[1]", "dr", 0.3), row("a[1]", "ips", 0.4), NO])


def test_the_table_names_each_policy_once_and_claims_nothing_without_support() -> None:
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(ANSWERS))
    shown = console.export_text()
    lines = [line.split() for line in shown.splitlines()]
    assert shown.count("a[1]") == 1
    assert ["a[1]", "dr", "0.300", "[0.288,", "0.312]", "+0.300", "[+0.288,", "+0.312]", "800", "2%", "0.0%"] in lines
    assert ["c", "(learning)", "ips", "!", "–", "–", "0", "0%", "100.0%"] in lines


def test_on_a_narrow_screen_bounds_have_a_line_of_their_own() -> None:
    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(table(ANSWERS, narrow=True))
    shown = console.export_text()
    assert "[0.288, 0.312]" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" not in shown


def test_a_note_is_said_once_for_the_estimators_that_share_it() -> None:
    rows = [row("a", "dr", 0.1, "flattered"), row("a", "ips", 0.1, "flattered"), row("b", "dr", 0.1), NO]
    assert notes(rows) == ["a (dr, ips): flattered", "c (ips): no support: none of 900"]
    groups = [row("a", "dr", 0.1, "flattered", name) for name in ("x=1", "x=2")] + [row("a", "dr", 0.1, "few", "x=2")]
    assert notes(groups) == ["a (dr): flattered", "a (dr) where x=2: few"]
    both = [row("a", "dr", 0.1, "flattered; few", "x=1"), row("a", "dr", 0.1, "flattered", "x=2")]
    assert notes(both, {"a": "flattered"}) == ["a (dr): flattered", "a (dr) where x=1: few"]


@pytest.mark.parametrize(("width", "digits"), [(1.0, 1), (0.02, 3), (0.0005, 5), (30.0, 0)])
def test_as_many_digits_as_the_narrowest_interval_needs(width: float, digits: int) -> None:
    narrow = Answer("a", "dr", "", False, 1.0, 1.0, 1.0 + width, *[0.0] * 3, 9, 9, 9.0, 0.0, 0.0, None, True, "")
    assert decimals([narrow, row("a", "ips", 1.0)] if width < 0.02 else [narrow]) == digits


def test_machines_read_null_where_nothing_is_claimed() -> None:
    told = facts(ANSWERS, Question(("a",)), "all")
    assert json.loads(json.dumps(told, allow_nan=False))["rows"][2]["value"] is None
    assert heading(replace_missing(), Question(("a",)), "world").startswith(
        "What if: 900 events of 90 users (the world part, 7"
    )


def test_a_heading_tells_where_the_log_s_own_interval_is_of_another_kind() -> None:
    told = heading(ANSWERS, Question(("a",), bounds=Bounds("bernstein")), "all")
    assert told.endswith("95 % Bernstein intervals by user (the log's own: bootstrap)")
    assert heading(ANSWERS, Question(("a",)), "all").endswith("95 % bootstrap intervals by user")


def replace_missing() -> Answers:
    return Answers(900, 7, ANSWERS.logged, ANSWERS.rows)


def test_the_plot_draws_what_has_a_value(tmp_path: Path) -> None:
    forest.draw(tmp_path / "plot.svg", ANSWERS, "asked")
    texts = "".join(ElementTree.parse(tmp_path / "plot.svg").getroot().itertext())
    assert "a[1]" in texts
    assert "see its note" not in texts
    with pytest.raises(StateError, match=r"plot\.docx: cannot be written .*; give --plot FILE\.png"):
        forest.draw(tmp_path / "plot.docx", ANSWERS, "asked")
    nothing = Answers(900, 0, ANSWERS.logged, [NO])
    forest.draw(tmp_path / "empty.png", nothing, "asked")
    assert (tmp_path / "empty.png").stat().st_size > 1_000


def test_real_feedback_under_its_own_policy_earns_what_it_earned(
    home: Path, data_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log of Open Bandit's uniform policy: every weight is 1, so that uniform earns the mean of its clicks."""
    files = [str(data_folder / "open_bandit" / name) for name in ("random_men.parquet", "items_men.parquet")]
    words = ["--format", "open-bandit", "--data", files[0], "--data", files[1], "--policy", "uniform"]
    assert what_if.main([*words, "--estimator", "ips", "--estimator", "snips", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for found in told["rows"]:
        assert found["value"] == pytest.approx(told["logged"][0]["value"], rel=1e-9)
        assert found["difference"] == pytest.approx(0, abs=1e-9)
