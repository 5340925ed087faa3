"""What a learner keeps of its own: publications and checkpoints, written by one owner."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import StateError
from cluster.journal.journal import Reader
from serve.learner import Learner
from serve.learning.ledger import Ledger, Publication, StaleOwner
from tests.learner_cases import World, all_of, bits, world_at


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with world_at(tmp_path) as made:
        yield made


def test_of_old_publications_the_last_of_each_hour_is_kept(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "learner.db"))
    made = [("shop", 1, 60 * n) for n in range(240)] + [("shop", 2, 10), ("shop", 2, 20), ("other", 1, 30)]
    rows = [Publication(c, v, n, float(at), n, n, {"linear": 1.0}) for n, (c, v, at) in enumerate(made)]
    ledger.write(publications=rows)
    assert ledger.prune(3 * 3_600.0) == 180 - 3 + 1  # of version 1 one in each of three hours, of version 2 one of two
    kept = [(p.client, p.version, p.at) for p in ledger.publications()]
    recent = [("shop", 1, 60.0 * n) for n in range(180, 240)]
    hourly = [("shop", 1, 60.0 * n) for n in (59, 119, 179)]
    assert sorted(kept) == sorted([*recent, *hourly, ("shop", 2, 20.0), ("other", 1, 30.0)])
    assert ledger.prune(3 * 3_600.0) == 0
    newer = Ledger(str(tmp_path / "learner.db"))
    with pytest.raises(StaleOwner):
        ledger.prune(4 * 3_600.0)
    assert newer.prune(4 * 3_600.0) == 59
    ledger.close()
    newer.close()


def test_a_stale_owner_cannot_write(world: World) -> None:
    world.traffic(6)
    old = world.learner()
    old.advance(6)
    new = world.learner()
    with pytest.raises(StaleOwner, match="newer learner"):
        old.publish()
    with pytest.raises(StaleOwner):
        old.save()
    new.advance(12)
    assert new.publish() == 1


def test_the_ledger_on_postgres(world: World, postgres_url: str) -> None:
    world.traffic(8)

    def learner() -> Learner:
        return Learner(world.load, Reader(world.url), Ledger(postgres_url), "reward", lambda: world.now)

    first = learner()
    all_of(first)
    first.publish()
    first.save()
    second = learner()
    assert bits(second, "shop", 1) == bits(first, "shop", 1)
    assert [p.epoch for p in second.publications("shop", 1)] == [2]
    assert len(second.publications()) == 2
    world.traffic(2)
    all_of(first)
    with pytest.raises(StaleOwner):
        first.save()


def test_a_ledger_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be read or written"):
        Ledger(str(tmp_path / "file" / "learner.db"))
