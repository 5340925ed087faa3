"""Processes of a real Ray Serve killed by SIGKILL under load, versions and deployments changed under load."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from cluster.journal.journal import journal_url
from serve import deploy
from serve.learning.service import ledger_url
from tests import promises, serving
from tests.load import Load, load
from tests.served import Served, gateways, learners, until

pytestmark = [pytest.mark.ray, pytest.mark.kills, pytest.mark.slow]


@pytest.fixture(scope="module")
def shot(served: Served) -> Load:
    """What clients saw while the replica was killed three times and the learner twice."""
    chance = random.Random(4)
    with load(served.url, served.key) as seen:
        for victim in (gateways, learners, gateways, learners, gateways):
            seen.wait(chance.randrange(50, 200))
            _kill(victim)
        seen.wait(200)
    return seen


def _kill(victim: Callable[[], list[psutil.Process]]) -> None:
    [process] = until(victim, f"one of {victim.__name__}")
    process.kill()


def test_what_failed_is_answered_one_second_later(shot: Load) -> None:
    assert shot.failures  # calls were in work when their replica was killed
    assert shot.lost == []


def test_what_was_acknowledged_is_kept_and_counts_once(served: Served, shot: Load) -> None:
    promises.check_kept(served.settings, shot)


def test_the_learner_has_the_bits_of_an_oracle(served: Served, shot: Load) -> None:
    promises.check_learned(served.settings)
    until(lambda: served.call("/v1/health")[1]["learner"] == "following", "the replica to follow again")


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM journal_rewards WHERE late = 0",
        "UPDATE journal_decisions SET answer = '{}'",
        "UPDATE journal_outcomes SET reward = 1 - reward WHERE seq = (SELECT max(seq) FROM journal_outcomes)",
    ],
)
def test_the_checks_notice_a_journal_that_was_changed(served: Served, shot: Load, tmp_path: Path, change: str) -> None:
    promises.check_learned(served.settings)
    copy = served.settings.model_copy(update={"home": tmp_path, "registry": served.settings.registry_uri})
    for url, other in (
        (journal_url(served.settings), journal_url(copy)),
        (ledger_url(served.settings, 0), ledger_url(copy, 0)),
    ):
        with closing(sqlite3.connect(url)) as source, closing(sqlite3.connect(other)) as target:
            source.backup(target)
    promises.check_kept(copy, shot)
    promises.check_learned(copy)
    with closing(sqlite3.connect(journal_url(copy))) as journal, journal:
        journal.execute(change)
    with pytest.raises(AssertionError):
        promises.check_kept(copy, shot)
    if "outcomes" in change:
        with pytest.raises(AssertionError):
            promises.check_learned(copy)


def test_a_new_version_costs_no_answer(served: Served) -> None:
    with load(served.url, served.key, name="versions") as seen:
        seen.wait(100)
        number = serving.publish(served.settings, serving.version(seed=3))
        until(lambda: served.call("/v1/health")[1]["version"] == number, f"version {number}")
        seen.wait(100)
    assert seen.failures == []
    assert {decision["version"] for decision in seen.decided.values()} == {number - 1, number}
    promises.check_kept(served.settings, seen)


def test_a_second_deploy_costs_no_answer(served: Served) -> None:
    [before] = gateways()
    with load(served.url, served.key, name="deploys") as seen:
        seen.wait(100)
        assert deploy.deploy(served.settings)["ingress"] == "haproxy"
        seen.wait(100)
    assert seen.lost == []
    [after] = gateways()
    assert after.pid != before.pid
    promises.check_kept(served.settings, seen)
