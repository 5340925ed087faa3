"""Published versions: numbered folders of files that never change, on a local folder or any pyarrow.fs URI.

A version appears whole or not at all. Locally a folder is written aside, made durable and renamed to its
number: a rename on to a taken number fails, so of two publishers each gets its own. An object store cannot
rename: files go to a place of their own, and a manifest written last, under a lock, makes them a version.

    <root>/<name>/versions/<n>/{manifest.json, ...}                                local
    <root>/<name>/versions/<n>.json, <root>/<name>/objects/<upload>/...            object store
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
from pyarrow import fs

from cluster.bakery import locked
from cluster.disk import flush
from cluster.errors import RegistryError

T = TypeVar("T")

DEFAULT_NAME = "medley"
"""The name under which `tune.compose` publishes and `serve` looks, unless told otherwise."""

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ABANDONED_S = 24 * 3600.0


class VersionGone(RegistryError):
    """The registry has versions of that name, and not this one: nobody needs to wait for it."""


class _Store(Protocol):
    def numbers(self, name: str) -> list[int]: ...
    def ensure(self, name: str) -> None: ...
    def publish(self, name: str, write: Callable[[Path], None]) -> int: ...
    def fetch(self, name: str, version: int) -> Path: ...


class Registry:
    """Versions by name and number (1, 2, ...).

    Args:
        uri: an absolute path, or any URI that pyarrow.fs knows (s3://, gs://, file://, ...).
        cache: local folder for copies of remote versions; default is `cache` under MEDLEY_HOME.

    Raises:
        RegistryError: the URI cannot be opened.
    """

    def __init__(self, uri: str, cache: Path | None = None) -> None:
        try:
            filesystem, root = fs.FileSystem.from_uri(uri)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise RegistryError(
                f"registry {uri!r}: {error}; expected an absolute path or a URI such as s3://bucket/folder"
            ) from error
        self.uri = uri
        self._store: _Store = (
            Folders(Path(root))
            if isinstance(filesystem, fs.LocalFileSystem)
            else Objects(filesystem, root, cache or _default_cache())
        )

    def publish(self, name: str, write: Callable[[Path], None]) -> int:
        """Let `write` fill an empty folder, then make it the next version; returns its number.

        Raises:
            RegistryError: `write` left nothing, the name is not usable, or the place cannot be written.
        """
        return self._guard(name, lambda: self._store.publish(name, write))

    def ensure(self, name: str) -> None:
        """See that a version could be published under this name, so that long work for it is not in vain.

        Raises:
            RegistryError: the name is not usable, or the place cannot be reached or written.
        """
        self._guard(name, lambda: self._store.ensure(name))

    def versions(self, name: str) -> list[int]:
        """The numbers published under a name, in order; empty if there are none."""
        return self._guard(name, lambda: self._store.numbers(name))

    def latest(self, name: str) -> int:
        """Raises RegistryError when nothing is published under this name."""
        found = self.versions(name)
        if not found:
            raise RegistryError(f"{self.uri}: no version of {name!r} yet; publish one with `medley compose`")
        return found[-1]

    def fetch(self, name: str, version: int | None = None) -> Path:
        """The local folder of a version (the latest by default), its checksums verified.

        Raises:
            VersionGone: there are others, but no such version.
            RegistryError: there is none, a file is missing or changed, or the format is too new.
        """
        number = self.latest(name) if version is None else version
        found = self.versions(name)
        if number not in found:
            error = VersionGone if found else RegistryError  # a place that is away for a moment shows none
            raise error(f"{self.uri}: no version {number} of {name!r}; there are {found or 'none'}")
        return self._guard(name, lambda: self._store.fetch(name, number))

    def _guard(self, name: str, action: Callable[[], T]) -> T:
        if not _NAME.fullmatch(name):
            raise RegistryError(f"{name!r} is no name for versions: letters, digits, dot, dash, underscore")
        try:
            return action()
        except (OSError, pa.ArrowException) as error:
            raise RegistryError(
                f"registry {self.uri}: {error}; check that it exists, has room and can be written"
            ) from error


class Folders:
    """A registry in a local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def numbers(self, name: str) -> list[int]:
        folder = self._root / name / "versions"
        return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []

    def ensure(self, name: str) -> None:
        (self._root / name / "versions").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(_staging(self._root / name / "staging"))

    def publish(self, name: str, write: Callable[[Path], None]) -> int:
        versions = self._root / name / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        staging = _staging(self._root / name / "staging")
        try:
            write(staging)
            _write_manifest(staging)
            for path in [*staging.rglob("*"), staging]:
                flush(path)
            number = _rename_to_next(staging, versions, lambda: self.numbers(name))
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        flush(versions)
        return number

    def fetch(self, name: str, version: int) -> Path:
        folder = self._root / name / "versions" / str(version)
        _verify(folder, _read_manifest(folder / MANIFEST, (folder / MANIFEST).read_bytes()))
        return folder


class Objects:
    """A registry on a store without rename; `cache` holds local copies."""

    def __init__(self, filesystem: fs.FileSystem, root: str, cache: Path) -> None:
        self._fs = filesystem
        self._root = root.rstrip("/")
        self._cache = cache / hashlib.sha256(self._root.encode()).hexdigest()[:16]

    def numbers(self, name: str) -> list[int]:
        selector = fs.FileSelector(f"{self._root}/{name}/versions", allow_not_found=True)
        stems = [info.base_name.removesuffix(".json") for info in self._fs.get_file_info(selector)]
        return sorted(int(stem) for stem in stems if stem.isdigit())

    def ensure(self, name: str) -> None:
        self._fs.create_dir(f"{self._root}/{name}/versions", recursive=True)

    def publish(self, name: str, write: Callable[[Path], None]) -> int:
        staging = _staging(self._cache / "staging")
        upload = f"{self._root}/{name}/objects/{uuid.uuid4().hex}"
        try:
            write(staging)
            manifest = _write_manifest(staging) | {"objects": upload}
            for relative in manifest["files"]:
                target = f"{upload}/{relative}"
                self._fs.create_dir(target.rpartition("/")[0], recursive=True)
                with (staging / relative).open("rb") as source, self._fs.open_output_stream(target) as out:
                    shutil.copyfileobj(source, out)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        self._fs.create_dir(f"{self._root}/{name}/versions", recursive=True)
        with locked(self._fs, f"{self._root}/{name}/lock"):
            number = max(self.numbers(name), default=0) + 1
            with self._fs.open_output_stream(f"{self._root}/{name}/versions/{number}.json") as out:
                out.write(json.dumps(manifest).encode())
        return number

    def fetch(self, name: str, version: int) -> Path:
        path = f"{self._root}/{name}/versions/{version}.json"
        with self._fs.open_input_stream(path) as stream:
            manifest = _read_manifest(path, stream.read())
        upload = str(manifest["objects"])
        folder = self._cache / name / upload.rpartition("/")[2]
        if not folder.is_dir():
            self._download(upload, manifest, folder)
        try:
            _verify(folder, manifest)
        except RegistryError:
            shutil.rmtree(folder)  # a damaged copy: the next fetch downloads it again
            raise
        return folder

    def _download(self, upload: str, manifest: dict[str, Any], folder: Path) -> None:
        staging = _staging(self._cache / "staging")
        try:
            for relative in manifest["files"]:
                (staging / relative).parent.mkdir(parents=True, exist_ok=True)
                remote = f"{upload}/{relative}"
                with self._fs.open_input_stream(remote) as source, (staging / relative).open("wb") as out:
                    shutil.copyfileobj(source, out)
            folder.parent.mkdir(parents=True, exist_ok=True)
            if not folder.is_dir():
                staging.rename(folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another process fetched it first
                raise
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _default_cache() -> Path:
    return Path(os.environ.get("MEDLEY_HOME", "~/.medley")).expanduser().absolute() / "cache"


def _staging(parent: Path) -> Path:
    """A new folder in `parent`; those that a killed process left there a day ago are removed."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        with contextlib.suppress(FileNotFoundError):  # published in this moment
            if time.time() - left.stat().st_mtime > _ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(dir=parent))


def _rename_to_next(staging: Path, versions: Path, numbers: Callable[[], list[int]]) -> int:
    number = max(numbers(), default=0) + 1
    while True:
        try:
            staging.rename(versions / str(number))
            return number
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            number += 1  # another publisher took it


def _write_manifest(folder: Path) -> dict[str, Any]:
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    if not files:
        raise RegistryError("a version needs at least one file; nothing was written")
    manifest = {"format": FORMAT, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return manifest


def _read_manifest(path: Path | str, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
        found, files = int(manifest["format"]), dict(manifest["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{path}: not a version's manifest ({error}); publish the version again") from error
    if found > FORMAT:
        raise RegistryError(f"{path}: format {found} is newer than {FORMAT}, which this Medley reads; upgrade it")
    return {**manifest, "files": files}


def _verify(folder: Path, manifest: dict[str, Any]) -> None:
    for relative, expected in manifest["files"].items():
        path = folder / relative
        if not path.is_file():
            raise RegistryError(f"{path}: missing from its version; publish the version again")
        if path.stat().st_size != expected["bytes"] or _sha256(path) != expected["sha256"]:
            raise RegistryError(f"{path}: changed since it was published; publish the version again")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
