"""One import: a format, its files and options, into a folder under home/data; done once for the same input."""

import contextlib
import errno
import hashlib
import json
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cluster.config import Settings
from cluster.errors import ConfigError, SourceError, StateError
from cluster.importers.formats import FORMATS
from cluster.importers.imported import Imported, Options

_REVISION = 5
"""Raised when importers read the same file differently, so that earlier imports are not reused."""


@dataclass(frozen=True)
class Request:
    """What to import; `name` is the folder under home/data, made from everything else where it is not given."""

    format: str = "marketplace"
    paths: tuple[Path, ...] = ()
    options: Options = field(default_factory=Options)
    name: str | None = None

    def check(self) -> None:
        """Raises ConfigError for a format that is not there, SourceError for files that are not."""
        if self.format not in FORMATS:
            raise ConfigError(f"--format {self.format}: there is no such format; choose {', '.join(FORMATS)}")
        if not self.paths and self.format != "marketplace":
            raise SourceError(f"--format {self.format} reads files: name them with --data PATH")
        for path in self.paths:
            if not path.exists():
                raise SourceError(f"--data {path}: no such file or folder")

    def key(self, settings: Settings) -> str:
        """A hash of what decides the result: files by path, size and time, options, settings, seed."""
        files = [
            (str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns)
            for root in self.paths
            for path in (sorted(root.rglob("*")) if root.is_dir() else [root])
            if path.is_file()
        ]
        facts = [
            _REVISION,
            self.format,
            files,
            sorted(self.options.mapping.items()),
            list(self.options.exclude),
            self.options.client,
            settings.data.model_dump(mode="json"),
            settings.seed,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def folder(self, settings: Settings) -> Path:
        return settings.folder("data") / (self.name or f"{self.format}-{self.key(settings)[:12]}")


def read(request: Request, settings: Settings, progress: Callable[[int, int], None] | None = None) -> Imported:
    """Read without writing anything."""
    request.check()
    imported = FORMATS[request.format](request.paths, request.options, settings.data, settings.seed, progress)
    facts = imported.dataset.facts
    facts["notes"] = [*facts["notes"], *_of_rewards(imported.dataset.events, settings)]
    return imported


def _of_rewards(events: pa.Table, settings: Settings) -> list[str]:
    """What the configuration must say before a version can be composed of these rewards."""
    least, most = pc.min_max(events["reward"]).as_py().values()
    kind, name = settings.reward, settings.reward_kind
    if least is None or kind.low <= least <= most <= kind.high:
        return []
    how = f"{{{name}: {{low: {least:g}, high: {most:g}}}}}"
    return [
        f"rewards go from {least:g} to {most:g}, and the configuration says [{kind.low:g}, {kind.high:g}]; for a "
        f"composition say the range there, such as rewards: {how}"
    ]


def done(request: Request, settings: Settings) -> Path | None:
    """The folder of a finished import of exactly this input, if there is one."""
    request.check()
    folder = request.folder(settings)
    try:
        finished = json.loads((folder / "import.json").read_text())["key"] == request.key(settings)
    except (OSError, ValueError, KeyError):
        return None
    return folder if finished and (folder / "dataset.json").is_file() else None


def save(request: Request, settings: Settings, imported: Imported) -> Path:
    """Write an import aside, then put it in its place whole: two at once, or one that is killed, leave no half.

    Raises StateError where the folder cannot be written or the disk is full.
    """
    facts = {"key": request.key(settings), "format": request.format, **summary(imported)}

    def write(aside: Path) -> None:
        imported.save(aside)
        (aside / "import.json").write_text(json.dumps(facts, indent=1))

    folder = request.folder(settings)
    place(folder, write)
    return folder


def check_name(name: str) -> str:
    """The name of a folder under home/data. Raises ConfigError where it would lie elsewhere."""
    if name in ("", ".", "..") or "/" in name or not name.isprintable():
        raise ConfigError(f"--name {name!r}: expected one plain name of a folder under home/data, such as live")
    return name


def place(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a folder aside, then put it in the place of `folder`, whole.

    Raises StateError where it cannot be written or the disk is full.
    """
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        write(aside)
        while not _placed(aside, folder):
            old = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError):  # the other of two imports was quicker
                folder.rename(old)
                shutil.rmtree(old)
    except OSError as error:
        raise StateError(f"{folder}: cannot be written ({error}); free the disk or set MEDLEY_HOME") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _placed(aside: Path, folder: Path) -> bool:
    """Whether the import is in its place now; not where another one stands there."""
    try:
        aside.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def summary(imported: Imported) -> dict[str, Any]:
    """What an import came to, for people and machines."""
    data = imported.dataset
    return {
        "events": data.events.num_rows,
        "items": data.items.num_rows,
        "users": data.users.num_rows,
        "rejected": imported.quarantine.num_rows,
        "rejects": dict(imported.rejects()),
        "roles": imported.roles,
        "remarks": imported.remarks(),
    }
