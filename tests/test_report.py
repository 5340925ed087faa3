"""The report of whole, halved and killed runs; what it shows is what the stages left."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.errors import StateError
from tests.programs import ended
from tune import report, results
from tune.results import Played
from tune.worlds.fidelity import Fidelity
from tune.worlds.held_out import HeldOut
from tune.worlds.segments import Segment

POLICIES = {"uniform": 0.08, "popularity": 0.11, "pooled_linear": 0.14, "best_predefined": 0.14, "ensemble": 0.17}
MEMBERS = ["uniform", "popularity", "linear", "forgetting", "generated/7f3a"]


def driven(n: int = 4_000, seed: int = 0) -> dict[str, Any]:
    """What a drive leaves, from seeded draws."""
    rng = np.random.default_rng(seed)
    user_N = rng.integers(0, 400, n)
    taste_N = rng.beta(2, 2, 400)[user_N]
    policies = {}
    for name, base in POLICIES.items():
        grows = 1 - 0.5 * np.exp(-np.arange(n) / 800) if name != "uniform" else np.ones(n)
        mean_N = 2 * base * grows * taste_N
        policies[name] = Played(["a"] * n, (rng.random(n) < mean_N).astype(float), mean_N, np.full(n, 0.1))
    shares = [
        dict(zip(MEMBERS, np.array([0.1, 0.2, 0.3, 0.2, 0.2 + 1.2 * i / n]) / (1 + 1.2 * i / n), strict=True))
        for i in range(n)
    ]
    figures = results.summary(policies, user_N)
    figures["best_predefined"]["name"] = "linear"
    return {
        "policies": figures,
        "difference": results.differences(policies, user_N),
        "decisions": n,
        "generated": MEMBERS[-1:],
        "generated_weight": results.generated_weight(shares, MEMBERS[-1:]),
        "curves": {name: results.curve(played.expected_N, user_N) for name, played in policies.items()},
        "weights": results.weights_over_time(shares, np.linspace(0, 40, n), MEMBERS),
        "timings": [{"stage": "traffic", "seconds": 43.1, "budget_s": 45, "left_out": "12 situations not asked"}],
        "traffic": {"calls": 812, "retries": 0},
        "notes": [],
    }


def composed(seed: int = 1) -> dict[str, Any]:
    """What a compose leaves, from seeded draws."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(24):
        gain, error = rng.normal(0.01, 0.02), rng.uniform(0.005, 0.02)
        rows.append(
            {
                "candidate": f"p{number // 4}/z{number % 4}",
                "users": int(rng.integers(5, 90)),
                "events": 400,
                "value": 0.14 + gain,
                "baseline": "linear",
                "baseline_value": 0.14,
                "difference": gain,
                "low": gain - 2 * error if number else -1.0,
                "high": gain + 2 * error if number else 1.0,
                "model_based": False,
                "chosen": bool(gain > 0.01),
            }
        )
    return {
        "version": 3,
        "best_predefined": "linear",
        "data": {
            "format": "marketplace",
            "events": 30_000,
            "users": 2_000,
            "parts": {"fit": 12_000, "stop": 2_400, "select": 4_800, "confirm": 2_400, "world": 6_000},
            "features": {"kind": "joint", "dimension": 96},
            "reward_mean": 0.1424242,
        },
        "members": MEMBERS,
        "candidates": rows,
        "gate": {
            "admitted": True,
            "tested": MEMBERS[-1],
            "against": "linear",
            "reason": "better than the best predefined model: lower bound +0.0041 is above 0",
            "users": 311,
            "events": 2_377,
            "model_based": False,
        },
        "timings": [
            {"stage": "backbone", "seconds": 60.3, "budget_s": 60, "left_out": "2 of 5 epochs"},
            {"stage": "sweep", "seconds": 41.0, "budget_s": 60, "left_out": ""},
        ],
    }


class Strict(HTMLParser):
    """Checks that elements nest, and collects what a browser would fetch and what a reader sees."""

    VOID = ("meta", "link", "br", "img", "path", "use")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "action", "srcset")]
        assert tag != "script"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and not {"style", "defs"} & set(self.open):
            self.seen.append(" ".join(data.split()))


def parse(text: str) -> Strict:
    found = Strict()
    found.feed(text)
    assert found.open == []
    assert all(target.startswith(("#", "data:")) for target in found.fetched)
    assert not re.search(r"url\((?!#)|@import", text)
    return found


def test_a_whole_run_shows_its_figures() -> None:
    facts = driven()
    seen = parse(report.render("01J", composed(), facts)).seen
    ours = facts["policies"]["ensemble"]
    low, high = ours["interval"]
    assert f"{ours['reward_per_1000']:,.1f} [{low:,.1f}, {high:,.1f}]" in seen
    assert "best predefined (linear)" in seen
    assert f"{facts['generated_weight']:.0%}" in seen
    assert "4,000" in seen
    assert "12 situations not asked" in seen
    assert "2 of 5 epochs" in seen
    assert any("lower bound +0.0041 is above 0. Judged on 2,377 events of 311 users." in text for text in seen)
    assert "generated/7f3a" in seen  # in the legend of the weights: text stays text
    assert sum(bool(re.fullmatch(r"p\d/z\d · \d+ users", text)) for text in seen) == 24


def test_every_figure_has_ids_of_its_own() -> None:
    """Inline figures share the page's ids: a clip path of one must not be another's."""
    text = report.render("01J", composed(), driven())
    clips = re.findall(r'<clipPath id="([^"]+)"', text)
    assert len(clips) == len(set(clips)) >= 3


def test_the_same_facts_give_the_same_page() -> None:
    assert report.render("x", composed(), driven()) == report.render("x", composed(), driven())


def test_a_killed_run_says_what_is_not_there() -> None:
    seen = " ".join(parse(report.render("01J", {}, {})).seen)
    for said in ("stopped before it had figures", "No candidate was generated", "before the gate", "No stage finished"):
        assert said in seen
    halved = " ".join(parse(report.render("01J", composed(), {})).seen)
    assert "fit 12,000" in halved
    assert "No learning curves" in halved


def test_the_report_names_clients_that_were_judged_by_themselves_and_a_test_after_the_first() -> None:
    made = composed()
    own = {"admitted": False, "reason": "not shown to be better", "users": 320, "events": 900, "model_based": False}
    made["gate"] |= {"pooled": True, "test": 2, "alpha": 0.05 / 6, "clients": {"<shop>": own}}
    seen = " ".join(parse(report.render("x", made, driven())).seen)
    assert "Test 2 on this data, hence at an error rate of 0.0083." in seen
    assert "Not admitted : client <shop>, judged by itself. Not shown to be better. Judged on 900 events" in seen


def test_a_run_without_generated_members_says_so() -> None:
    facts = driven() | {"generated": [], "generated_weight": 0.0}
    del facts["policies"]["popularity"]
    gate = {"admitted": False, "tested": None, "reason": "no candidate could be used"}
    seen = " ".join(parse(report.render("x", composed() | {"candidates": [], "gate": gate}, facts)).seen)
    assert "all weight is on predefined ones" in seen
    assert "Nothing came before the gate: no candidate could be used." in seen
    assert "popularity (not in this version)" in seen


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([1.0, 2.0], "earned more than"),
        ([-2.0, -1.0], "earned less than"),
        ([-1.0, 1.0], "as much as"),
        ([None, None], "too few users"),
    ],
)
def test_the_verdict_follows_the_interval(interval: list[float | None], said: str) -> None:
    facts = driven()
    facts["difference"]["best_predefined"]["interval"] = interval
    assert any(said in text for text in parse(report.render("x", {}, facts)).seen)


def fitted() -> dict[str, Any]:
    """What a drive says of a fitted world."""
    rng = np.random.default_rng(3)
    item_N, user_N = rng.integers(0, 4, 4_000), rng.integers(0, 900, 4_000)
    said_N = np.array([0.1, 0.2, 0.3, 0.4])[item_N]
    names = ("<b>", "i1", "i2", "i3")
    real_N = (rng.random(4_000) < said_N).astype(float)
    level_N, user_N = np.full(4_000, 0.25), np.unique(user_N, return_inverse=True)[1]
    held = HeldOut(real_N, said_N, level_N, level_N, user_N, (Segment("item", item_N, names),), np.ones(4_000))
    return Fidelity.of(held).facts()


def test_a_fitted_world_shows_how_it_was_checked() -> None:
    world = fitted()
    text = report.render("x", composed(), driven() | {"world": world})
    seen = parse(text).seen
    said = " ".join(seen)
    assert f"{world['words']}." in said
    assert "trust it to say which policy is better" in said
    assert {"mean reward", "mean reward under uniform choice", "AUC", "item", "events by what the world said"} <= {
        *seen
    }
    assert "The world that answered" not in report.render("x", composed(), driven())
    unchecked = {"verdict": "none", "words": "do not trust it: 3 users", "remarks": [], "means": []}
    assert "do not trust it: 3 users." in " ".join(parse(report.render("x", {}, {"world": unchecked})).seen)


def test_text_from_outside_is_escaped() -> None:
    evil = "<script>alert(1)</script>&"
    facts = driven()
    facts["policies"]["best_predefined"]["name"] = evil
    facts["notes"] = [evil]
    facts["weights"]["names"] = [evil, *facts["weights"]["names"][1:]]
    made = composed()
    made["gate"] |= {"tested": evil, "reason": evil}
    made["data"] = {evil: evil}
    made["candidates"][0]["candidate"] = evil
    text = report.render(evil, made, facts)
    parse(text)
    assert "<script" not in text


def test_written_whole_or_not_at_all(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(StateError, match="no such run folder; start one with `medley run`"):
        report.write(run, tmp_path / "report.html")
    run.mkdir()
    (run / "drive.json").write_text('{"policies": ')
    with pytest.raises(StateError, match=r"drive\.json: cannot be read"):
        report.write(run, tmp_path / "report.html")
    (run / "drive.json").write_text("[]")
    with pytest.raises(StateError, match="expected an object, found list"):
        report.write(run, tmp_path / "report.html")
    (run / "drive.json").write_text(json.dumps(driven()))
    with pytest.raises(StateError, match="cannot write the report"):
        report.write(run, tmp_path / "absent" / "report.html")
    report.write(run, tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "run"]


def test_the_command_prints_where_the_report_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    out = tmp_path / "report.html"
    done = ended("tune.report", "--run", str(tmp_path / "run"), "--out", str(out))
    assert (done.returncode, json.loads(done.stdout)) == (0, {"report": str(out)})
    done = ended("tune.report", "--run", str(tmp_path / "gone"), "--out", str(out))
    assert done.returncode == 1
    assert "report: " in done.stderr
    assert "Traceback" not in done.stderr
