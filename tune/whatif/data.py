"""The log that `medley what-if` is asked about: a finished import, or files read through their importer."""

import argparse
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cluster import imports
from cluster.config import Settings
from cluster.errors import ConfigError, SourceError
from cluster.importers.imported import Options
from cluster.progress import bar
from cluster.records import Dataset
from tune import metric
from tune.whatif.judged import Judged
from tune.whatif.native_files import NativeFiles


def judged(options: argparse.Namespace, settings: Settings, console: Console) -> Judged:
    """What `--data`, `--format`, `--map`, `--exclude`, `--client` and `--part` name.

    Raises:
        SourceError: there is no such import, file or folder.
        ConfigError: a format that is not there, or importer's options for what is imported already.
        SchemaError: as the importer says.
    """
    words = Options.parse(options.map, options.exclude, options.client)
    request = imports.Request(options.format or "native", tuple(path.absolute() for path in options.data), words)
    folder = _finished(options, settings) or imports.done(request, settings)
    if folder is None and request.format == "native" and words == Options() and settings.metric.kind == "reward":
        files = NativeFiles(request.paths)
        if files.fit():
            return files.judged(options.part, settings.seed)
    if folder is not None and settings.metric.kind == "reward":
        return Judged.folder(folder, options.part, settings.seed)
    dataset = _read(request, settings, console) if folder is None else Dataset.load(folder)
    return Judged.of(metric.apply(dataset, settings), options.part, settings.seed)


def _read(request: imports.Request, settings: Settings, console: Console) -> Dataset:
    """The files of a request, and what was left out in words."""
    with bar(console, f"import {request.format}") as progress:
        imported = imports.read(request, settings, progress)
    for line in imported.remarks():
        console.print(f"[yellow]![/] {escape(line)}", highlight=False, soft_wrap=True)
    if imported.quarantine.num_rows:
        console.print(f"[yellow]![/] {imported.quarantine.num_rows:,} rows refused; `medley import --check` says why")
    return imported.dataset


def _finished(options: argparse.Namespace, settings: Settings) -> Path | None:
    """The folder of a finished import, where that is what was named."""
    if not options.data and options.format != "marketplace":
        raise SourceError("--data: name an import (its folder, or its name under home/data), or files to read")
    if len(options.data) != 1:
        return None
    (data,) = options.data
    places = (data.expanduser().absolute(), settings.home / "data" / data)
    found = next((place for place in places if (place / "dataset.json").is_file()), None)
    if found is not None and (options.format or options.map or options.exclude or options.client):
        raise ConfigError(f"--data {data} is imported already; --format, --map, --exclude and --client are for files")
    if found is None and not places[0].exists():
        raise SourceError(f"--data {data}: no finished import there or under {settings.home / 'data'}, and no file")
    return found
