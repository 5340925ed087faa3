"""The vector store on its disk: what was acknowledged is there, what was cut short not; what is damaged is refused."""

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actors.content.vectors.entry import Delete, Entry, Put
from actors.content.vectors.log import Log, create, read
from actors.content.vectors.memory import Memory
from actors.content.vectors.snapshot import Snapshot
from actors.content.vectors.store import Store
from cluster.errors import StateError
from tests.store_worlds import WIDTH, commit, number_of, state, vectors

REPOSITORY = Path(__file__).parents[1]
SEED = 7


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as folder:
        yield Path(folder)


def expected(upto: int) -> dict[str, Entry]:
    """The entries after the commits 0 .. upto, without a disk."""
    memory = Memory(Snapshot.empty(WIDTH))
    for number in range(upto + 1):
        memory.apply(memory.settled(commit(SEED, number), 0.5 ** (1 / 1_000)))
    return state(memory)


def written(folder: Path, commits: int) -> list[int]:
    """A store with this many commits in its log; the log's size after each, and before the first."""
    with Store(folder, WIDTH) as store:
        sizes = [store.log_bytes]
        for number in range(commits):
            store.commit(commit(SEED, number))
            sizes.append(store.log_bytes)
    return sizes


def test_a_log_cut_at_any_byte_is_the_store_after_its_last_whole_commit(tmp_path: Path, caplog) -> None:
    sizes = written(tmp_path / "whole", 3)
    data = (tmp_path / "whole" / "log-0").read_bytes()
    assert len(data) == sizes[-1]
    states = [expected(number - 1) for number in range(4)]
    for cut in [*range(sizes[0], sizes[2], 37), *range(sizes[2] - 1, sizes[3] + 1)]:
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / "log-0").write_bytes(data[:cut])
        whole = max(n for n, size in enumerate(sizes) if size <= cut)
        with caplog.at_level(logging.WARNING), Store(folder, WIDTH) as store:
            assert state(store) == states[whole]
            assert bool(caplog.records) == (cut not in sizes)
            store.commit(commit(SEED, whole))  # goes on after the last whole one
        with Store(folder, WIDTH) as store:
            assert number_of(store) == whole
        caplog.clear()
        shutil.rmtree(folder)


def test_a_last_record_of_zeros_or_of_a_wrong_end_was_not_acknowledged(tmp_path: Path) -> None:
    sizes = written(tmp_path, 3)
    data = (tmp_path / "log-0").read_bytes()
    for tail in (b"\0" * 700, data[sizes[2] : -9] + b"\0" * 9):
        (tmp_path / "log-0").write_bytes(data[: sizes[2]] + tail)
        with Store(tmp_path, WIDTH) as store:
            assert number_of(store) == 1
        assert (tmp_path / "log-0").stat().st_size == sizes[2]


def test_a_log_damaged_before_its_end_is_refused(tmp_path: Path) -> None:
    sizes = written(tmp_path, 4)
    data = bytearray((tmp_path / "log-0").read_bytes())
    places = random.Random(1).sample(range(sizes[0], sizes[3]), 60)
    for place in [*places, sizes[2], sizes[2] + 3]:  # of them the length of a record
        wrong = data.copy()
        wrong[place] ^= 1 << (place % 8)
        (tmp_path / "log-0").write_bytes(wrong)
        with pytest.raises(StateError, match=r"log-0: damaged at byte [\d,]+, before its end; restore"):
            Store(tmp_path, WIDTH)
    (tmp_path / "log-0").write_bytes(data)
    with Store(tmp_path, WIDTH) as store:
        assert state(store) == expected(3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: os.truncate(f / "snapshot-1" / "entries.arrow", 500), "entries.arrow: cut short or changed"),
        (lambda f: (f / "snapshot-1" / "entries.arrow").unlink(), "snapshot-1: cannot be read"),
        (lambda f: os.truncate(f / "snapshot-1" / "manifest.json", 20), "snapshot-1: cannot be read"),
        (lambda f: flip(f / "snapshot-1" / "entries.arrow", 900), "entries.arrow: cut short or changed"),
        (lambda f: flip(f / "snapshot-1" / "cells.safetensors", 3), "cells.safetensors: cut short or changed"),
        (lambda f: (f / "log-1").unlink(), "log-1: cannot be read"),
        (lambda f: os.truncate(f / "log-1", 10), "log-1: not the log of a vector store, or damaged"),
        (lambda f: shutil.rmtree(f / "snapshot-1"), "log-0: cannot be read"),
    ],
)
def test_a_store_of_which_a_file_is_missing_cut_short_or_changed_is_refused(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    written(tmp_path, 3)
    with Store(tmp_path, WIDTH) as store:
        store.checkpoint()
    damage(tmp_path)
    with pytest.raises(StateError, match=message):
        Store(tmp_path, WIDTH)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def test_embeddings_of_another_size_are_another_store(tmp_path: Path) -> None:
    written(tmp_path, 1)
    with pytest.raises(StateError, match="a store of embeddings of size 8, opened for 9; use another folder"):
        Store(tmp_path, 9)
    with Store(tmp_path, WIDTH) as store:
        store.checkpoint()
    with pytest.raises(StateError, match="a store of embeddings of size 8, opened for 9; use another folder"):
        Store(tmp_path, 9)


def test_a_restart_gives_the_same_answers_bit_by_bit_before_and_after_a_checkpoint(tmp_path: Path) -> None:
    query_QE = vectors(30, 3)

    def answers(store: Store) -> list[tuple[list[str], bytes]]:
        scopes = [("c0", "p0"), ("c1", "p1"), ("c0", None), (None, None)]
        found = [store.search(query_QE, k, *scope) for scope in scopes for k in (1, 4, 20)]
        return [(n.item_ids, n.similarity_K.tobytes()) for answer in found for n in answer]

    with Store(tmp_path, WIDTH) as store:
        for number in range(100):
            store.commit(commit(SEED, number))
            if number == 60:
                store.checkpoint()
        before, entries = answers(store), state(store)
    with Store(tmp_path, WIDTH) as store:
        assert (answers(store), state(store)) == (before, entries)
        store.checkpoint()
        assert (answers(store), state(store)) == (before, entries)
        assert store.log_bytes < 100
        store.commit([Delete("last")])
    with Store(tmp_path, WIDTH) as store:
        assert "last" in entries
        assert "last" not in state(store)


def test_what_a_killed_checkpoint_left_is_passed_over_and_removed(tmp_path: Path) -> None:
    written(tmp_path, 3)
    before = expected(2)
    with Store(tmp_path, WIDTH) as store:
        store.checkpoint()
        after = sorted(path.name for path in tmp_path.iterdir())
    create(tmp_path / "log-2", WIDTH)  # the next checkpoint got so far
    shutil.copytree(tmp_path / "snapshot-1", tmp_path / ".snapshot-2")
    with Store(tmp_path, WIDTH) as store:
        assert state(store) == before
        store.checkpoint()
        assert state(store) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [name.replace("1", "2") for name in after]


def test_a_record_that_could_not_be_written_is_not_there_and_the_next_one_is(tmp_path: Path) -> None:
    """The disk is full: here a limit on the file's size, which the kernel enforces for this process alone."""
    import resource

    create(tmp_path / "log", WIDTH)
    log = Log(tmp_path / "log", read(tmp_path / "log", WIDTH).size, 0)
    log.append(b"one")
    signal_before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.size + 100, limits[1]))
    try:
        with pytest.raises(StateError, match="cannot be written"):
            log.append(b"x" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, signal_before)
    log.append(b"two")
    log.close()
    assert list(read(tmp_path / "log", WIDTH)) == [b"one", b"two"]


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot be written"):
        Store(tmp_path / "file" / "store", WIDTH)
    (tmp_path / "log-0").write_text("something else entirely")
    with pytest.raises(StateError, match="not the log of a vector store"):
        Store(tmp_path, WIDTH)


@pytest.mark.kills
def test_killed_at_random_moments_it_has_every_acknowledged_commit_and_no_half_one(quick_folder: Path) -> None:
    """Forty kills by -9 among commits and checkpoints. What was not acknowledged may be there, but then whole.

    A kill loses nothing that was given to the kernel, so that a file system in memory shows as much, and sooner.
    """
    moments, acknowledged = random.Random(3), -1
    words = [sys.executable, "-m", "tests.store_worlds", str(quick_folder), str(SEED)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        for kill in range(40):
            print("begin", file=parent.stdin, flush=True)
            pid, opened = (int(parent.stdout.readline()) for _ in range(2))
            assert opened in (acknowledged, acknowledged + 1), f"kill {kill}"
            acknowledged = opened
            for _ in range(moments.randint(0, 60)):
                acknowledged = int(parent.stdout.readline())
            time.sleep(moments.random() * 0.01)
            os.kill(pid, signal.SIGKILL)
            while (line := parent.stdout.readline()) != "ended\n":
                acknowledged = int(line)
        parent.stdin.close()
    with Store(quick_folder, WIDTH) as store:
        last = number_of(store)
        assert last in (acknowledged, acknowledged + 1)
        assert last > 500
        assert state(store) == expected(last)


def test_the_commits_that_the_kills_make_do_all_kinds_of_changes() -> None:
    kinds = {type(change).__name__ for number in range(100) for change in commit(SEED, number)}
    assert kinds == {"Put", "Feedback", "Delete", "Move"}
    assert any(isinstance(change, Put) for change in commit(SEED, 0))
