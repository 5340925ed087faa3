"""Train the residual of the blend by PPO, prove it, and publish it.

    python -m tune.ppo [--config settings.yaml] [--name medley] [--data FOLDER] [--run FOLDER]

With --data, the import that the version was made of: its held-out part is the world in which PPO draws. Without, the
journal's decisions since the last time: one clipped pass over them, refused where they are worth too little (meant for
the schedule, every n rewards). What was found and done stands in FOLDER/ppo.json, by default under home/ppo/NAME, for
the report; a run that was stopped goes on from its last checkpoint there. docs/ppo.md says how. The last line of
standard output is JSON: {"action": "publish", "version": 3, ...}.
"""

import argparse
import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="tune.ppo", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="settings in YAML")
    parser.add_argument("--name", default="medley", help="name of the versions in the registry")
    parser.add_argument("--data", type=Path, help="folder of a finished import, whose held-out part is the world")
    parser.add_argument("--run", type=Path, help="folder for ppo.json and checkpoints; default home/ppo/NAME")
    arguments = parser.parse_args()

    from cluster import config, session
    from cluster.errors import MedleyError, SourceError
    from cluster.records import Dataset
    from tune.stages import Stages

    try:
        settings = config.load(arguments.config)
        session.prepare(settings)  # before anything imports Ray
        from tune.blending.job import PpoJob, journal
        from tune.memory import remembered

        folder = settings.folder(f"ppo/{arguments.name}")
        stages = Stages((arguments.run or folder) / "ppo.json")
        try:
            if arguments.data:
                dataset, new, learned = Dataset.load(arguments.data.expanduser().absolute()), None, None
            else:
                with stages.stage("journal") as stage:
                    dataset, new, learned = journal(settings, arguments.name, stage.progress)
        except SourceError as error:
            if arguments.data:
                raise
            print(json.dumps({"name": arguments.name, "action": "nothing", "waits": str(error)}))  # a new shop
            return 0
        with remembered(folder / "memory.json") as memory:
            job = PpoJob.of(dataset, settings, arguments.name, stages, arguments.run or folder, new, learned)
            facts = replace(job, on_ray=partial(session.opened, settings)).go(memory)
    except (MedleyError, OSError) as error:
        print(f"ppo: {error}", file=sys.stderr)
        return 1
    shown = ("name", "running", "action", "waits", "version", "decisions", "effective")
    print(json.dumps({key: facts[key] for key in shown if key in facts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
