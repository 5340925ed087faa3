"""Regroup providers: look at the outcomes since the last run, move who is better predicted by another cluster.

    python -m tune.regroup [--data FOLDER] [--config settings.yaml] [--name medley] [--run FOLDER] [--anew]
    python -m tune.regroup --move PROVIDER --to CLUSTER
    python -m tune.regroup --undo 17

Without --data, the journal's final outcomes. Those that confirm a composition are left out, and of an import the part
that answers as a world: clusters that had seen them would be judged by what made them. The last line of standard output
is JSON; the run's folder has regroup.json (with the table of before and after) and regroup.png (the tree).
docs/regroup.md says how.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path


def rate(text: str) -> float:
    """An error rate. Raises ValueError for what is none."""
    value = float(text)
    if not 0 < value < 1:
        raise ValueError(f"{text} is not between 0 and 1")
    return value


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.regroup", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of a finished import instead of the journal")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--name", default="medley", help="name of the versions in the registry")
    parser.add_argument("--run", type=Path, help="folder for what is shown; default home/regroup/NAME")
    parser.add_argument("--alpha", type=rate, default=0.05, help="chance of a needless move per provider and year")
    parser.add_argument("--anew", action="store_true", help="group from scratch")
    parser.add_argument("--undo", type=int, metavar="MOVE", help="take a move back, and do nothing else")
    parser.add_argument("--move", metavar="PROVIDER", help="move it --to a cluster, and do nothing else")
    parser.add_argument("--to", metavar="CLUSTER")
    arguments = parser.parse_args()
    if (arguments.move is None) != (arguments.to is None):
        parser.error("--move and --to go together; --move=-x where a name begins with a dash")

    from rich.console import Console

    from cluster import config
    from cluster.errors import MedleyError, SourceError
    from cluster.journal.journal import Reader, journal_url
    from cluster.progress import bar
    from cluster.records import Dataset
    from tune.journal import evidence
    from tune.regrouping.job import Job, move, undo
    from tune.regrouping.traffic import DAY_US
    from tune.split import WORLD, parts

    try:
        settings = config.load(arguments.config)
        today = int(time.time() * 1e6) // DAY_US
        if arguments.undo is not None:
            print(json.dumps(undo(settings, arguments.name, arguments.undo, today)))
            return 0
        if arguments.move is not None:
            print(json.dumps(move(settings, arguments.name, arguments.move, arguments.to, today)))
            return 0
        try:
            if arguments.data:
                dataset = Dataset.load(arguments.data.expanduser().absolute())
            else:
                dataset = evidence(settings, Reader(journal_url(settings)), arguments.name)
        except SourceError as error:
            if arguments.data:
                raise
            print(json.dumps({"waits": str(error)}))  # a new shop: the schedule looks again
            return 0
        folder = arguments.run or settings.folder(f"regroup/{arguments.name}")
        folder.mkdir(parents=True, exist_ok=True)
        rows = parts(dataset, settings.seed, WORLD if arguments.data else 0.0).unjudged
        dataset = replace(dataset, events=dataset.events.take(rows))
        job = Job.of(dataset, settings, arguments.name, arguments.alpha)
        with bar(Console(stderr=True), "days") as progress:
            facts = job.run(folder, anew=arguments.anew, progress=progress)
    except (MedleyError, OSError) as error:
        print(f"regroup: {error}", file=sys.stderr)
        return 1
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
