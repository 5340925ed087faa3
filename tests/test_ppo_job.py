"""The job's command line on a journal, and what the report says of it; training itself is in test_ppo."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits.version import Version
from cluster.config import RewardKind, Settings
from cluster.jobs import MODULES
from cluster.journal.journal import Journal, journal_url
from cluster.registry import Registry
from tests.compose_cases import PLAIN, quick, two_kinds
from tests.programs import answered
from tests.test_refine import publish, write
from tune import report
from tune.blending import reported
from tune.blending.job import PpoJob, journal
from tune.stages import Stages


def ppo(settings: Settings, *words: str) -> dict[str, Any]:
    return answered(MODULES["ppo"], settings, *words)


def test_a_version_that_knows_no_content_waits_and_says_so(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, 2, turned_on=2)
    found = ppo(settings, "--run", str(tmp_path / "run"))
    assert (found["action"], found["running"]) == ("wait", 1)
    assert found["waits"] == "version 1 knows nothing of its items' content"
    written = json.loads((tmp_path / "run" / "ppo.json").read_text())
    assert written["events"] == 240
    report.write(tmp_path / "run", tmp_path / "report.html")
    assert "Nothing was tried: version 1 knows nothing" in (tmp_path / "report.html").read_text()


def test_an_empty_journal_is_nothing_to_do(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    Journal(journal_url(settings), {"reward": RewardKind()}).close()
    found = ppo(settings)
    assert found["action"] == "nothing"
    assert "no final outcome" in found["waits"]


@pytest.mark.parametrize(
    ("version", "residual", "new"), [(None, None, 240), (60, None, 180), (60, 150, 90), (150, 60, 90), (None, 60, 180)]
)
def test_fresh_is_what_neither_the_version_nor_the_residual_has_learned_from(
    tmp_path: Path, version: int | None, residual: int | None, new: int
) -> None:
    """A version that began anew after a drift carries the facts of the residual before it on."""
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, 2, turned_on=2)
    registry = Registry(settings.registry_uri)
    about = {"watermark": version, "ppo": None if residual is None else {"watermark": residual}}
    again = replace(Version.load(registry.fetch("medley")), facts=about)
    registry.publish("medley", again.save)
    assert len(journal(settings, "medley")[1]) == new


def test_tries_on_an_import_share_its_judges_whatever_version_they_are_on(tmp_path: Path) -> None:
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    dataset = replace(two_kinds(120), facts={"fingerprint": "f"})
    names = []
    for new in (None, pa.array(["d0-0"])):
        for _ in range(2):
            publish(settings)
            names.append(PpoJob.of(dataset, settings, "medley", Stages(None), tmp_path, new).families)
    assert [share for share, _ in names] == ["medley/f/ppo", "medley/f/ppo", "medley/3/ppo", "medley/4/ppo"]
    assert len({wait for _, wait in names}) == 4


CURVE = [
    {"reward": 0.30 + 0.01 * n, "entropy": 0.5, "plain_entropy": 0.52, "kl": 0.01 * n, "value_loss": 0.2}
    for n in range(12)
]


def test_the_report_shows_the_curve_and_the_proof(tmp_path: Path) -> None:
    plain = {"difference": 0.051, "low": 0.041, "users": 114}
    told = {
        "action": "publish",
        "running": 1,
        "version": 2,
        "effective": 0.91,
        "bounds": {"kl": 0.42, "entropy": 0.9, "factor": 0.75},
        "proof": {"plain": plain, "running": None},
    }
    (tmp_path / "ppo.json").write_text(json.dumps(told))
    reported.draw(CURVE, 0.3, 4096, tmp_path / "ppo.png")
    report.write(tmp_path, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for said in ("Version 2 is version 1 with the residual", "worth 91%", "0.42 nats", "shrunk to 75%", "+0.0410"):
        assert said in page
    assert "data:image/png;base64," in page


def test_smoothing_by_hand() -> None:
    """A straight line stays one; a single peak of 9 in the middle of nine is 1 there."""
    line = np.arange(20.0)
    np.testing.assert_allclose(reported.smooth(line), line)
    peak = np.zeros(9)
    peak[4] = 9
    assert reported.smooth(peak)[4] == pytest.approx(1)
    assert reported.smooth(peak)[0] == 0
