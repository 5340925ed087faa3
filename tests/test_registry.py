import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs

from cluster.bakery import locked
from cluster.errors import RegistryError
from cluster.registry import MANIFEST, Objects, Registry

ROOT = Path(__file__).parents[1]


def write(text: str = "a"):
    def fill(folder: Path) -> None:
        (folder / "version.json").write_text(text)
        (folder / "more").mkdir()
        (folder / "more" / "arrays.bin").write_bytes(b"\0\1" * 100)

    return fill


def objects(tmp_path: Path, cache: str = "cache") -> Registry:
    """A registry that treats a local folder as an object store (no rename is used)."""
    registry = Registry(str(tmp_path / "store"))
    registry._store = Objects(fs.LocalFileSystem(), str(tmp_path / "store"), tmp_path / cache)
    return registry


@pytest.fixture(params=["folders", "objects"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Registry:
    return Registry(str(tmp_path / "store")) if request.param == "folders" else objects(tmp_path)


def test_versions_count_up_and_come_back_as_written(registry: Registry) -> None:
    assert registry.versions("shop") == []
    assert [registry.publish("shop", write("one")), registry.publish("shop", write("two"))] == [1, 2]
    assert registry.publish("other", write()) == 1
    assert registry.versions("shop") == [1, 2]
    assert registry.latest("shop") == 2
    assert (registry.fetch("shop", 1) / "version.json").read_text() == "one"
    assert (registry.fetch("shop") / "version.json").read_text() == "two"
    assert (registry.fetch("shop") / "more" / "arrays.bin").read_bytes() == b"\0\1" * 100


def test_missing_versions_are_named(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no version of 'shop' yet"):
        registry.latest("shop")
    registry.publish("shop", write())
    with pytest.raises(RegistryError, match=r"no version 7 of 'shop'; there are \[1\]"):
        registry.fetch("shop", 7)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 200])
def test_a_name_cannot_leave_the_registry(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match="no name for versions"):
        registry.publish(name, write())


def test_a_writer_that_fails_or_leaves_nothing_publishes_nothing(registry: Registry) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        registry.publish("shop", fail)
    with pytest.raises(RegistryError, match="at least one file"):
        registry.publish("shop", lambda folder: None)
    assert registry.versions("shop") == []
    assert registry.publish("shop", write()) == 1


@pytest.mark.parametrize("damage", [lambda p: p.write_text("b"), lambda p: p.unlink()])
def test_a_changed_or_missing_file_is_found(tmp_path: Path, damage) -> None:
    registry = Registry(str(tmp_path))
    registry.publish("shop", write())
    damage(tmp_path / "shop" / "versions" / "1" / "version.json")
    with pytest.raises(RegistryError, match=r"version\.json: (changed since|missing from)"):
        registry.fetch("shop")


def test_a_damaged_copy_of_a_remote_version_is_downloaded_again(tmp_path: Path) -> None:
    registry = objects(tmp_path)
    registry.publish("shop", write("good"))
    (registry.fetch("shop") / "version.json").write_text("evil")
    with pytest.raises(RegistryError, match="changed since"):
        registry.fetch("shop")
    assert (registry.fetch("shop") / "version.json").read_text() == "good"
    assert (objects(tmp_path, "elsewhere").fetch("shop") / "version.json").read_text() == "good"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a version's manifest"),
        ('{"format": 1}', "not a version's manifest"),
        ('{"format": 99, "files": {}}', "format 99 is newer than 1"),
    ],
)
def test_an_unreadable_manifest_is_named(tmp_path: Path, text: str, message: str) -> None:
    registry = Registry(str(tmp_path))
    registry.publish("shop", write())
    (tmp_path / "shop" / "versions" / "1" / MANIFEST).write_text(text)
    with pytest.raises(RegistryError, match=message):
        registry.fetch("shop")


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="expected an absolute path or a URI"):
        Registry("relative/folder")
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RegistryError, match="check that it exists"):
        Registry(str(tmp_path / "file")).publish("shop", write())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["a", "b"]), max_size=8))
def test_any_order_of_publications_counts_per_name(tmp_path_factory: pytest.TempPathFactory, names) -> None:
    registry = Registry(str(tmp_path_factory.mktemp("any")))
    published = [(name, registry.publish(name, write(str(i)))) for i, name in enumerate(names)]
    for name in ("a", "b"):
        assert registry.versions(name) == list(range(1, names.count(name) + 1))
    for i, (name, number) in enumerate(published):
        assert (registry.fetch(name, number) / "version.json").read_text() == str(i)


def _publish_many(folder: str, kind: str, worker: int, count: int) -> None:
    path = Path(folder)
    registry = Registry(str(path / "store")) if kind == "folders" else objects(path, f"cache{worker}")
    for i in range(count):
        registry.publish("shop", write(f"{worker}/{i}"))


@pytest.mark.parametrize("kind", ["folders", "objects"])
def test_publishers_at_the_same_time_each_get_a_number(tmp_path: Path, kind: str) -> None:
    workers = [
        multiprocessing.get_context("spawn").Process(target=_publish_many, args=(str(tmp_path), kind, i, 10))
        for i in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    registry = Registry(str(tmp_path / "store")) if kind == "folders" else objects(tmp_path)
    assert registry.versions("shop") == list(range(1, 31))
    texts = {(registry.fetch("shop", n) / "version.json").read_text() for n in range(1, 31)}
    assert texts == {f"{worker}/{i}" for worker in range(3) for i in range(10)}


def test_the_lock_passes_over_the_dead_and_waits_for_the_living(tmp_path: Path) -> None:
    filesystem, folder = fs.LocalFileSystem(), str(tmp_path / "lock")
    with locked(filesystem, folder):
        pass
    (tmp_path / "lock" / "drawn" / f"{1:012d}-dead").write_text("1")
    start = time.monotonic()
    with locked(filesystem, folder, lease_s=0.5):
        assert 0.3 < time.monotonic() - start < 5
    living = tmp_path / "lock" / "drawn" / f"{0:012d}-alive"
    living.write_text("1")
    os.utime(living, (time.time() + 3600,) * 2)  # renewed for ever
    with pytest.raises(RegistryError, match="locked by another publisher"), locked(filesystem, folder, 0.2):
        pass


@pytest.mark.kills
def test_a_kill_at_any_moment_leaves_whole_versions_only(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from cluster.registry import Registry\n"
        "def fill(folder):\n"
        "    for i in range(20): (folder / f'{i}.bin').write_bytes(b'x' * 20_000)\n"
        "registry = Registry(sys.argv[1])\n"
        "print('ready', flush=True)\n"
        "while True: registry.publish('shop', fill)\n"
    )
    for trial in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.03 + 0.037 * trial)
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        registry = Registry(str(tmp_path))
        numbers = registry.versions("shop")
        assert numbers == list(range(1, len(numbers) + 1))
        for number in numbers:
            folder = registry.fetch("shop", number)
            assert len(json.loads((folder / MANIFEST).read_text())["files"]) == 20
    assert numbers
