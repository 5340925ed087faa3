"""Export the journal's final outcomes: as Parquet by client and day, or as data that `medley compose` takes.

    python -m cluster.export --to FOLDER [--client CLIENT] [--since DAY] [--until DAY] [--config settings.yaml]
    python -m cluster.export --name NAME ...

The last line of standard output is JSON.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="cluster.export", description=(__doc__ or "").splitlines()[0])
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", type=Path, help="folder of Parquet files; a later run adds what is new")
    where.add_argument("--name", help="data set under home/data, made anew")
    parser.add_argument("--client", help="only this client's decisions")
    parser.add_argument("--since", help="only decisions from this day or moment on (UTC)")
    parser.add_argument("--until", help="only decisions before this day or moment (UTC)")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    arguments = parser.parse_args()

    from dataclasses import asdict

    from rich.console import Console

    from cluster import config, imports
    from cluster.errors import MedleyError
    from cluster.journal.data import dataset
    from cluster.journal.events import Choice
    from cluster.journal.exported import export
    from cluster.journal.journal import Reader, journal_url
    from cluster.progress import bar

    try:
        settings = config.load(arguments.config)
        choice = Choice.parse(arguments.client, arguments.since, arguments.until)
        reader = Reader(journal_url(settings))
        with bar(Console(stderr=True), "export") as progress:
            if arguments.to is not None:
                folder = arguments.to.expanduser().absolute()
                facts = asdict(export(reader, folder, choice, progress))
            else:
                data = dataset(settings, reader, choice, progress=progress)
                folder = settings.folder("data") / imports.check_name(arguments.name)
                imports.place(folder, data.save)
                facts = data.facts | {"events": data.events.num_rows}
    except MedleyError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"folder": str(folder)} | facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
