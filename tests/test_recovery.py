"""What rehearsals come to, from planted services; and the sections of the report on them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tune import recovery, report, upkeep
from tune.rehearsal import Rehearsal
from tune.service import Done


def done(levels: list[float], new_at: int | None = None) -> list[Done]:
    """4,000 decisions, at a level in each quarter; version 2 from `new_at` on."""
    return [
        Done(n, float(n), "a", 0.5, 0.0, levels[n // 1_000], 1 if new_at is None or n < new_at else 2, {"linear": 1.0})
        for n in range(4_000)
    ]


def rehearsal(end: float, new_at: int = 2_300) -> Rehearsal:
    looks = [{"decisions": new_at, "action": "restart", "version": 2}, {"decisions": 4_000, "action": "nothing"}]
    replaced, alone = done([0.3, 0.3, 0.05, end], new_at), done([0.3, 0.3, 0.05, 0.05])
    return Rehearsal(replaced, alone, looks, np.linspace(0, 1, 4_000), (0.08, 0.08), (0.32, 0.12))


def facts() -> dict[str, Any]:
    return recovery.facts([rehearsal(0.1), rehearsal(0.11, 2_500)], 0.5)


def test_figures_by_hand() -> None:
    """Half way from 0.05 to 0.12 is 0.085: 400 decisions of which 280 (at 0.1) or 234 (at 0.11) are of the end."""
    figures = facts()["figures"]
    assert figures["before"]["mean"] == pytest.approx(300)
    assert figures["fallen to"]["mean"] == pytest.approx(50)
    assert figures["in the end, replaced"]["mean"] == pytest.approx(105)
    assert figures["in the end, replaced"]["interval"] == pytest.approx([105 - 12.706 * 5, 105 + 12.706 * 5], rel=1e-4)
    assert figures["in the end, alone"]["mean"] == pytest.approx(50)
    assert figures["after the change, replaced − alone"]["mean"] == pytest.approx((25 + 30) / 2)
    assert figures["decisions until replaced"]["mean"] == (300 + 500) / 2
    by_seed = [each["decisions until half regained, replaced"] for each in facts()["by_seed"]]
    assert by_seed == [1_000 - 400 + 280, 1_000 - 400 + 234]
    assert figures["decisions until half regained, alone"] == {"mean": None, "interval": [None, None], "of": 0}


def test_one_seed_has_no_interval() -> None:
    found = recovery.facts([rehearsal(0.1)], 0.5)
    assert found["figures"]["before"]["interval"] == [None, None]
    assert found["curves"]["alone"]["low"] == found["curves"]["alone"]["mean"]


def refined(**changes: Any) -> dict[str, Any]:
    standing = {"member": "generated", "difference": -0.02, "low": -0.03, "high": -0.01, "users": 900, "retired": True}
    drift = {"signal": "down", "since_s": 1.7e9, "first_s": 1.7e9, "last_s": 1.7e9, "alarm_s": 1.7001e9, "turned": True}
    seconds = (1.7e9 + 3_600 * np.arange(20)).tolist()
    found = {"action": "restart", "running": 3, "version": 4, "drift": drift, "looks": 20, "alarm": 20.0}
    return found | {"seconds": seconds, "log_evidence": list(range(-8, 12)), "standing": [standing]} | changes


def test_the_report_says_what_was_found_and_done(tmp_path: Path) -> None:
    (tmp_path / "refine.json").write_text(json.dumps(refined()))
    (tmp_path / "rehearse.json").write_text(json.dumps({"timings": [], "rehearsal": facts()}))
    report.write(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Version 4 began again from the change on, in place of version 3." in text
    assert "since 2023-11-14 22:13" in text
    assert "generated (retired)" in text
    assert "−0.0300 to −0.0100" in text
    assert "Recovery from a drift" in text
    assert "never" in text
    assert text.count("<svg") == 3
    assert "No figures" not in text  # nothing was driven, and nothing said that it would be


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"action": "nothing", "drift": None, "standing": [], "seconds": []}, "There was nothing to do."),
        ({"action": "wait", "waits": "40 users"}, "A replacement has to wait: 40 users."),
        (
            {"action": "keep", "proof": {"difference": 0.01, "low": -0.05, "users": 70}},
            "at least −0.0500 (70 users).",
        ),
    ],
)
def test_every_action_has_its_words(changes: dict[str, Any], said: str) -> None:
    assert said in report.render("x", {}, {}, list(upkeep.sections(refined(**changes), {})))
