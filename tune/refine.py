"""Look after the version in service: detect drift, judge its members, replace what no longer holds.

    python -m tune.refine [--config settings.yaml] [--name medley] [--data FOLDER] [--run FOLDER] [--generator]

Reads the journal (docs/serving.md), and with --data also the import that the first version was made of. Meant to be
run on a schedule (`schedule` in the settings): with nothing to do it is done in seconds. What was found and done stands
in FOLDER/refine.json, by default under home/refine/NAME. With --generator it fine-tunes the version's generator instead
(FOLDER/generator.json). The last line of standard output is JSON:
{"action": "nothing", ...}.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.refine", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--name", default="medley", help="name of the versions in the registry")
    parser.add_argument("--data", type=Path, help="folder of an earlier import, before the journal's events")
    parser.add_argument("--run", type=Path, help="folder for refine.json; default home/refine/NAME")
    parser.add_argument("--generator", action="store_true", help="fine-tune the generator on what came since")
    arguments = parser.parse_args()

    from cluster import config
    from cluster.errors import MedleyError, SourceError
    from cluster.journal.journal import Reader, journal_url
    from cluster.records import Dataset
    from tune.journal import evidence
    from tune.memory import remembered
    from tune.refinement import Refinement
    from tune.stages import Stages
    from tune.tuning import tuning

    try:
        settings = config.load(arguments.config)
        folder = settings.folder(f"refine/{arguments.name}")
        stages = Stages((arguments.run or folder) / ("generator.json" if arguments.generator else "refine.json"))
        reader = Reader(journal_url(settings))
        earlier = Dataset.load(arguments.data.expanduser().absolute()) if arguments.data else None
        try:
            with stages.stage("journal") as stage:
                dataset = evidence(settings, reader, arguments.name, earlier, stage.progress)
        except SourceError as error:  # a new shop: the schedule looks again
            print(json.dumps({"name": arguments.name, "action": "nothing", "waits": str(error)}))
            return 0
        scratch = tempfile.TemporaryDirectory(dir=settings.folder("scratch"))
        with remembered(folder / "memory.json") as memory, scratch as place:
            found = Refinement.of(dataset, settings, arguments.name, stages, Path(place))
            facts = tuning(found, reader).go(memory) if arguments.generator else found.go(memory)
    except (MedleyError, OSError) as error:
        print(f"refine: {error}", file=sys.stderr)
        return 1
    shown = {
        key: facts[key] for key in ("name", "running", "action", "reason", "drift", "waits", "version") if key in facts
    }
    print(json.dumps(shown))
    return 0


if __name__ == "__main__":
    sys.exit(main())
