"""The main job: fit, generate, sweep, select, confirm, blend, publish a version.

    python -m tune.compose --data FOLDER [--run FOLDER] [--config settings.yaml]

The last line of standard output is JSON: {"version": 1, "admitted": true, ...}.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.compose", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of a finished import")
    parser.add_argument("--run", type=Path, help="folder for compose.json; default keeps none")
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--name", default="medley", help="name of the versions in the registry")
    arguments = parser.parse_args()

    from cluster import config, session
    from cluster.errors import MedleyError
    from cluster.records import Dataset
    from tune.stages import Stages

    try:
        settings = config.load(arguments.config)
        dataset = Dataset.load(arguments.data.expanduser().absolute())
        stages = Stages(arguments.run / "compose.json" if arguments.run else None)
        stages.write()  # before anything long: a folder that cannot be written, or an earlier run's facts
        with tempfile.TemporaryDirectory(dir=settings.folder("scratch")) as scratch, session.opened(settings):
            from tune.composer import compose

            facts = compose(dataset, settings, stages, arguments.name, Path(scratch))
    except (MedleyError, OSError) as error:
        print(f"compose: {error}", file=sys.stderr)
        return 1
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
