"""The job's command line on a journal, and what the report says of it; training itself is in test_ppo."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.bandits import learn
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
    ("version", "residual", "new", "older"),
    [
        (None, None, 240, 0),
        (60, None, 180, 0),
        (60, 150, 90, 90),
        (150, 60, 90, 0),
        (None, 60, 180, 0),
    ],
)
def test_fresh_is_what_neither_the_version_nor_the_residual_has_learned_from(
    tmp_path: Path, version: int | None, residual: int | None, new: int, older: int
) -> None:
    """A version that began anew after a drift carries the facts of the residual before it on. Its learners know what
    came between the two; without a watermark their own decisions alone, and all these are the first version's."""
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    write(settings, 2, turned_on=2)
    registry = Registry(settings.registry_uri)
    about = {"watermark": version, "ppo": None if residual is None else {"watermark": residual}}
    again = replace(Version.load(registry.fetch("medley")), facts=about)
    for name in ("medley", "other"):  # of the second it is the first version
        registry.ensure(name)
        registry.publish(name, again.save)
    _, fresh, learned = journal(settings, "medley")
    assert (len(fresh), len(learned)) == (new, older)
    assert not set(fresh.to_pylist()) & set(learned.to_pylist())
    if version is None and residual:
        _, fresh, learned = journal(settings, "other")
        assert (len(fresh), len(learned)) == (new, residual)


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


def test_what_was_learned_before_the_fresh_events_is_known(tmp_path: Path) -> None:
    """As if the learner had taken those outcomes one by one."""
    settings = quick(tmp_path, features=PLAIN, registry=str(tmp_path / "registry"))
    publish(settings)
    dataset = two_kinds(120)
    ids = dataset.events["event_id"].combine_chunks()
    parts = ids.slice(300), ids.slice(100, 200)
    job = PpoJob.of(dataset, settings, "medley", Stages(None), tmp_path, *parts)
    ensemble, events = job.running.ensemble, dataset.events.slice(100, 200)
    state, batch = learn.start(ensemble), job.running.feature_map.batch(events)
    for n, event in enumerate(events.to_pylist()):
        features, action = batch.row(n), event["candidates"].index(event["item_id"])
        reward, propensity = event["reward"], event["propensity"]
        learn.step(
            state,
            learn.Outcome.of(
                features, action, user=None, reward=reward, propensity=propensity, member_propensities_M=None
            ),
        )
    found = job._learned(ensemble)
    assert found.count == 200
    for name, known in state.statistics.items():
        np.testing.assert_allclose(found.statistics[name].data_shift_AD, known.data_shift_AD, rtol=1e-12)


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
