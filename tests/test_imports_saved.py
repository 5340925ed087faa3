"""A finished import is whole, whoever else imports the same at the same time."""

import threading
from pathlib import Path
from typing import Any

import pytest

from cluster import config, imports
from cluster.errors import StateError
from cluster.importers.imported import Imported
from cluster.records import Dataset


def request_of(folder: Path, rows: int = 40) -> imports.Request:
    path = folder / "table.csv"
    path.write_text("x,label\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(rows)))
    return imports.Request("table", (path,), name="mine")


def test_two_imports_at_once_leave_one_whole(home: Path, tmp_path: Path) -> None:
    settings, request = config.load(), request_of(tmp_path)
    imported = imports.read(request, settings)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                imports.save(request, settings, imported)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    folder = imports.done(request, settings)
    assert folder == home / "data" / "mine"
    assert Dataset.load(folder).events.equals(imported.dataset.events)
    assert [path.name for path in folder.parent.iterdir()] == ["mine"]


def test_an_import_that_ends_half_way_leaves_the_one_before(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, request = config.load(), request_of(tmp_path)
    imports.save(request, settings, imports.read(request, settings))
    before = request.folder(settings)

    def full(self: Imported, folder: Path) -> Any:
        folder.mkdir()
        (folder / "events.parquet").write_bytes(b"cut")
        raise OSError(28, "No space left on device")

    other = request_of(tmp_path, 60)
    imported = imports.read(other, settings)
    monkeypatch.setattr(Imported, "save", full)
    with pytest.raises(StateError, match=r"No space left.*free the disk or set MEDLEY_HOME"):
        imports.save(other, settings, imported)
    assert len(Dataset.load(before).events) == 40
    assert [path.name for path in before.parent.iterdir()] == ["mine"]
